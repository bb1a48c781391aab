"""`cinnema measure`: whether a model does what its tasks promise, where the truth is known."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.cli.console import DONE, Progress, report_error
from cinnema.cli.options import at_least
from cinnema.core.errors import UserError
from cinnema.core.files import check_output_folder

if TYPE_CHECKING:
    from cinnema.data.dataset import PackedDataset
    from cinnema.evaluation.known_truth.clips import Progress as Tell
    from cinnema.evaluation.known_truth.measuring import TaskData, TaskSettings
    from cinnema.evaluation.known_truth.reader import EndPointReader
    from cinnema.evaluation.known_truth.results import TaskResult
    from cinnema.models.files import LoadedModel

CANNOT_SERVE = 1
"""The weights and the data are there, but they cannot serve this measurement."""


class _CannotServeError(UserError):
    """What is there is of the wrong kind for the measurement."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measure what a task promises, with 95 % intervals, beside baselines.

    end-point: whether a robot's hand ends where it was told to. direction: whether a sky drifts as
    told. transfer: whether a picture that is given a video's nu moves as the video. edit: whether a
    video takes another direction and keeps its speed. swap: whether codes hold motion and no
    picture. futures: whether samples reach the true futures of a start, and no others.

    Exit code 1: the weights or the data cannot serve, as weights that take no control.
    """

    task: Annotated[
        Literal["end-point", "direction", "transfer", "edit", "swap", "futures"],
        tyro.conf.Positional,
    ]
    """What is measured."""
    weights: Annotated[str, tyro.conf.Positional]
    """Name of bundled weights, or a weights file."""
    data: Annotated[Path, tyro.conf.Positional]
    """Folder of packed clips whose truth is known, as `cinnema data simulate` makes it."""
    training: Path | None = None
    """Packed clips whose split train the reader of end points and simple priors rest on; DATA
    unless given."""
    regressor: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Keep the reader of end points in this file: it is read if it is there, else trained (some
    minutes) and written."""
    clips: int = 128
    """At most so many clips, or for futures starts, chosen by a hash."""
    split: Literal["train", "validation", "test"] = "test"
    """Which side of the split."""
    stride: int = 1
    """Take every which frame."""
    seed: int = 0
    """Of every draw."""
    output: Annotated[
        Path | None, tyro.conf.arg(name="output", aliases=["-o"], metavar="FILE.json")
    ] = None
    """Write the numbers to this JSON file; one that is there already is replaced."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    batch_size: int = 8
    """Clips at once."""

    def run(self) -> int:
        """Measure, print the table, and write the file that is asked for."""
        self._check()
        from cinnema.data.dataset import PackedDataset
        from cinnema.evaluation.known_truth.results import as_text
        from cinnema.models.files import load_model

        loaded, clips = load_model(self.weights), PackedDataset(self.data)
        began = time.monotonic()
        try:
            result = self._measure(loaded, clips)
        except _CannotServeError as error:
            report_error(error)
            return CANNOT_SERVE
        print(as_text(result), flush=True)
        self._write(result, loaded, clips, time.monotonic() - began)
        return DONE

    def _check(self) -> None:
        """Raise a UserError for what is wrong whatever the weights and the data are."""
        at_least({
            "--clips": (self.clips, 2),
            "--stride": (self.stride, 1),
            "--seed": (self.seed, 0),
            "--batch-size": (self.batch_size, 1),
        })  # fmt: skip
        for path in (self.output, self.regressor):
            if path is not None and not path.exists():
                check_output_folder(path.parent)  # not after minutes of measuring

    def _measure(self, loaded: "LoadedModel", clips: "PackedDataset") -> "TaskResult":
        from cinnema.core.devices import choose_device
        from cinnema.evaluation.known_truth.measuring import measure_task

        model = loaded.model.to(choose_device(self.device)).eval()
        with Progress(total=0) as bar:

            def tell(text: str, done: int, total: int) -> None:
                bar.begin(text)
                bar.reach(done, total=total)

            data = self._data(clips, tell)
            try:
                return measure_task(
                    self.task, model, data, settings=self._settings(), progress=tell
                )
            except UserError as error:
                raise _CannotServeError(str(error)) from error

    def _settings(self) -> "TaskSettings":
        from cinnema.evaluation.known_truth.measuring import TaskSettings

        return TaskSettings(
            split=self.split,
            clips=self.clips,
            stride=self.stride,
            seed=self.seed,
            batch_size=self.batch_size,
        )

    def _data(self, clips: "PackedDataset", tell: "Tell") -> "TaskData":
        from cinnema.core.devices import choose_device
        from cinnema.data.dataset import PackedDataset
        from cinnema.evaluation.known_truth.measuring import TaskData
        from cinnema.evaluation.known_truth.reader import load_reader, save_reader, train_reader

        training = clips if self.training is None else PackedDataset(self.training)
        is_there = self.regressor is not None and self.regressor.exists()
        found = load_reader(self.regressor) if self.regressor is not None and is_there else None

        def reader() -> "EndPointReader":
            made = found or train_reader(training, progress=tell)
            if found is None and self.regressor is not None:
                save_reader(self.regressor, made)
            return made.to(choose_device(self.device))

        return TaskData(clips=clips, training=training, reader=reader)

    def _write(
        self,
        result: "TaskResult",
        loaded: "LoadedModel",
        clips: "PackedDataset",
        seconds: float,
    ) -> None:
        if self.output is None:
            return
        from cinnema.core.files import sha256_of, write_json

        files = {"training": self.training, "regressor": self.regressor}
        values: dict[str, Any] = {
            "task": self.task,
            "title": result.title,
            "weights": {"name": loaded.model.name, "sha256": loaded.sha256},
            "data": {
                "name": clips.manifest.name,
                "settings": clips.manifest.settings,
                "manifest": sha256_of(clips.folder / "manifest.json"),
            },
            "settings": asdict(self._settings())
            | {name: None if path is None else path.name for name, path in files.items()},
            "numbers": [number.to_dict() for number in result.numbers()],
            "notes": list(result.notes()),
            "seconds": round(seconds, 1),
        }
        write_json(self.output, values, overwrite=True)
