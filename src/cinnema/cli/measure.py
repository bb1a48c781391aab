"""`cinnema measure`: one task metric of `cinnema evaluate`, on clips with known ground truth."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.cli.console import DONE, Progress, report_error
from cinnema.cli.data import open_data
from cinnema.cli.evaluate import ClipOptions
from cinnema.cli.options import Weights
from cinnema.cli.ranges import BatchSize, Range
from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of, write_json

if TYPE_CHECKING:
    from cinnema.data.dataset import PackedDataset
    from cinnema.evaluation.results import Evaluation

UNSUITABLE = 1
"""Exit code if the weights or the data do not suit the task."""


@dataclass(frozen=True, kw_only=True)
class Measure(ClipOptions):
    """Measure a model on a task with known ground truth, with 95 % intervals and baselines.

    end-point: error of a robot hand's end point. direction: direction and speed of controlled
    skies. transfer: agreement of transferred motion with that of the video. edit: direction and
    speed of edited videos. swap: whether codes encode motion and not appearance. futures: coverage
    and precision of samples, compared with all true futures of a start. The same as `cinnema
    evaluate WEIGHTS FOLDER --only TASK`, 8 clips at once.

    Exit code 1: the weights or the data do not suit the task.
    """

    task: Annotated[
        Literal["end-point", "direction", "transfer", "edit", "swap", "futures"],
        tyro.conf.Positional,
    ]
    """Task to measure."""
    weights: Annotated[Weights, tyro.conf.Positional]
    """Weights to measure: the name of bundled ones or a file."""
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of packed clips with known ground truth, from `cinnema data simulate`."""
    clips: Annotated[int, Range(2, 10**9)] = 128
    """Largest number of clips (for futures: of first frames), chosen by a hash."""
    batch_size: BatchSize = 8
    """Number of clips per batch."""

    def run(self) -> int:
        """Measure, print the table, and write the file."""
        self.check_clips(self.weights, self.data)
        from cinnema.core.devices import choose_device, one_thread
        from cinnema.evaluation.results import as_text
        from cinnema.models.files import load_model

        loaded, device = load_model(self.weights), choose_device(self.device)
        with ExitStack() as stack:
            progress = stack.enter_context(Progress(total=0)).report
            dataset = open_data(self.data, progress)
            stack.enter_context(one_thread())
            try:
                evaluation = self.evaluate(
                    loaded,
                    dataset,
                    progress,
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
