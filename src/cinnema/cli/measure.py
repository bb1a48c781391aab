"""`cinnema measure`: one task metric of `cinnema evaluate`, on clips whose truth is known."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.cli.console import DONE, Progress, report_error
from cinnema.cli.data import open_data
from cinnema.cli.evaluate import ClipOptions
from cinnema.cli.options import Weights, at_least
from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of, write_json

if TYPE_CHECKING:
    from cinnema.data.dataset import PackedDataset
    from cinnema.evaluation.results import Evaluation

UNSUITABLE = 1
"""Exit code: the weights or the data are not of the kind that the task needs."""


@dataclass(frozen=True, kw_only=True)
class Measure(ClipOptions):
    """Measure whether a model does what a task promises, with 95 % intervals, beside baselines.

    end-point: whether a robot's hand ends where the control says. direction: whether a sky drifts
    as the control says. transfer: whether a picture that is given a video's nu moves as the video.
    edit: whether a video takes another direction and keeps its speed. swap: whether codes hold the
    motion and not the picture. futures: whether samples cover the true futures of a start, and no
    others. The same as `cinnema evaluate WEIGHTS FOLDER --only TASK`, 8 clips at once.

    Exit code 1: the weights or the data are not of the kind that the task needs.
    """

    task: Annotated[
        Literal["end-point", "direction", "transfer", "edit", "swap", "futures"],
        tyro.conf.Positional,
    ]
    """The task."""
    weights: Annotated[Weights, tyro.conf.Positional]
    """Weights to measure: the name of bundled ones or a file."""
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of packed clips whose truth is known, as `cinnema data simulate` makes it."""
    clips: int = 128
    """Largest number of clips, or for futures of first frames, chosen by a hash."""
    batch_size: int = 8
    """Clips at once."""

    def run(self) -> int:
        """Measure, print the table, and write the file."""
        self.check_clips(self.weights, self.data)
        at_least({"--clips": (self.clips, 2), "--batch-size": (self.batch_size, 1)})
        from cinnema.core.devices import choose_device, one_thread
        from cinnema.evaluation.results import as_text
        from cinnema.models.files import load_model

        loaded, device = load_model(self.weights), choose_device(self.device)
        with ExitStack() as stack:
            tell = stack.enter_context(Progress(total=0)).report
            dataset = open_data(self.data, tell)
            stack.enter_context(one_thread())
            try:
                evaluation = self.evaluate(
                    loaded,
                    dataset,
                    tell,
                    only=(self.task,),
                    clips=self.clips,
                    batch_size=self.batch_size,
                    device=device,
                )
                assert evaluation is not None
                _require_numbers(evaluation)
            except UserError as error:
                stack.close()
                report_error(error)
                return UNSUITABLE
        print(as_text(evaluation), flush=True)
        self._write(evaluation, dataset)
        return DONE

    def _write(self, evaluation: "Evaluation", dataset: "PackedDataset") -> None:
        if self.json_file is None:
            return
        files = {"training": self.training, "reader": self.reader}
        values: dict[str, Any] = {
            "task": self.task,
            "weights": dict(evaluation.weights),
            "data": {
                "name": dataset.manifest.name,
                "settings": dataset.manifest.settings,
                "manifest": sha256_of(dataset.folder / "manifest.json"),
            },
            "settings": dict(evaluation.settings)
            | {name: None if path is None else path.name for name, path in files.items()},
            "numbers": evaluation.numbers(),
            "notes": list(evaluation.notes),
            "seconds": round(evaluation.seconds, 1),
        }
        write_json(self.json_file, values, overwrite=True)


def _require_numbers(evaluation: "Evaluation") -> None:
    """Raise a UserError with the reason if nothing could be measured."""
    from cinnema.evaluation.results import Missing

    cells = [cell for row in evaluation.rows for cell in row.cells.values()]
    reasons = [cell.reason for cell in cells if isinstance(cell, Missing)]
    if reasons and len(reasons) == len(cells):
        raise UserError(reasons[0])
