"""One measurement of a model, from packed clips to numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

from cinnema.core.devices import one_thread
from cinnema.data.dataset import PackedDataset
from cinnema.data.records import Split
from cinnema.evaluation.known_truth.clips import (
    KnownClip,
    Progress,
    choose_clips,
    choose_windows,
    partners_of,
    read_window,
    say_nothing,
)
from cinnema.evaluation.known_truth.drift import measure_direction, measure_edit, require_drift
from cinnema.evaluation.known_truth.end_point import measure_end_point, require_end_points
from cinnema.evaluation.known_truth.futures import fit_priors, group_futures, measure_futures
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.known_truth.results import TaskResult
from cinnema.evaluation.known_truth.swap import measure_swap
from cinnema.evaluation.known_truth.transfer import measure_transfer
from cinnema.evaluation.protocols import Start
from cinnema.evaluation.statistics.bootstrap import hash_of
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LatentPrior

TaskName: TypeAlias = Literal["end-point", "direction", "transfer", "edit", "swap", "futures"]

_PRIOR_CLIPS = 256


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How much is measured.

    Attributes:
        split: Which side of the split.
        clips: At most so many windows, or for `futures` starts.
        stride: Every which frame follows.
        seed: Of all draws.
        batch_size: Clips that the model sees at once.
    """

    split: Split = "test"
    clips: int = 128
    stride: int = 1
    seed: int = 0
    batch_size: int = 8


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """What is measured on.

    Attributes:
        clips: Whose truth is known.
        training: Whose split train simple priors are fitted on; None where there is none.
        reader: Makes or finds what reads end points; it is asked only where that is needed.
    """

    clips: PackedDataset
    training: PackedDataset | None
    reader: Callable[[], EndPointReader]


@one_thread()
def measure_task(
    task: TaskName,
    model: VideoModel,
    data: TaskData,
    *,
    settings: TaskSettings | None = None,
    progress: Progress = say_nothing,
) -> TaskResult:
    """Measure what one task promises.

    Args:
        task: Which.
        model: In evaluation mode.
        data: What on.
        settings: How much.
        progress: Told what goes on.

    Raises:
        UserError: The model or the data cannot serve this measurement.

    Example:
        >>> data = TaskData(clips=PackedDataset(folder), training=None, reader=lambda: reader)
        >>> measure_task("swap", load_model("landscape").model, data).numbers()[0].what
        'cosine'
    """
    run = _Run(model, data, settings or TaskSettings(), progress)
    return _TASKS[task](run)


@dataclass(frozen=True)
class _Run:
    """What every measurement is handed."""

    model: VideoModel
    data: TaskData
    settings: TaskSettings
    progress: Progress

    def clips(self) -> list[KnownClip]:
        self.progress("reading clips", 0, 1)
        return choose_clips(
            self.data.clips,
            self.model,
            split=self.settings.split,
            stride=self.settings.stride,
            most=self.settings.clips,
        )

    def options(self) -> "_Options":
        return {
            "seed": self.settings.seed,
            "batch_size": self.settings.batch_size,
            "progress": self.progress,
        }


class _Options(TypedDict):
    seed: int
    batch_size: int
    progress: Progress


def _end_point(run: _Run) -> TaskResult:
    require_end_points(run.model, [])
    clips = run.clips()
    require_end_points(run.model, clips)  # this and the next before a reader is trained
    partners_of(clips)
    return measure_end_point(run.model, clips, run.data.reader(), **run.options())


def _direction(run: _Run) -> TaskResult:
    require_drift(run.model)
    return measure_direction(run.model, run.clips(), **run.options())


def _edit(run: _Run) -> TaskResult:
    require_drift(run.model)
    return measure_edit(run.model, run.clips(), **run.options())


def _transfer(run: _Run) -> TaskResult:
    clips = run.clips()
    control = run.data.clips.manifest.control
    has_hand = control is not None and control.kind == "position" and len(control.labels) == 3
    partners_of(clips)  # before a reader is trained
    reader = run.data.reader() if has_hand else None
    return measure_transfer(run.model, clips, reader, **run.options())


def _swap(run: _Run) -> TaskResult:
    settings = run.settings
    return measure_swap(
        run.model, run.clips(), batch_size=settings.batch_size, progress=run.progress
    )


def _futures(run: _Run) -> TaskResult:
    clips = _futures_of(run)
    group_futures(clips)  # before a reader is trained
    priors = _priors(run)
    return measure_futures(run.model, clips, run.data.reader(), priors=priors, **run.options())


_TASKS: dict[TaskName, Callable[[_Run], TaskResult]] = {
    "end-point": _end_point,
    "direction": _direction,
    "transfer": _transfer,
    "edit": _edit,
    "swap": _swap,
    "futures": _futures,
}


def _futures_of(run: _Run) -> list[KnownClip]:
    """Read the futures of some starts, chosen by a hash."""
    dataset, settings = run.data.clips, run.settings
    run.progress("reading clips", 0, 1)
    windows = choose_windows(dataset, run.model, split=settings.split, stride=settings.stride)
    by_start: dict[str, list[Start]] = {}
    for window in windows:
        name = dataset.manifest.clips[window.position].start
        if name is not None:
            by_start.setdefault(name, []).append(window)
    chosen = sorted(by_start, key=hash_of)[: settings.clips]
    num_frames = run.model.num_frames
    return [
        read_window(dataset, window, num_frames=num_frames)
        for name in chosen
        for window in by_start[name]
    ]


def _priors(run: _Run) -> dict[str, LatentPrior]:
    """Fit simple priors where there are training clips."""
    training = run.data.training
    if training is None or not len(training.indices("train")):
        return {}
    clips = choose_clips(
        training, run.model, split="train", stride=run.settings.stride, most=_PRIOR_CLIPS
    )
    return fit_priors(run.model, clips, seed=run.settings.seed, progress=run.progress)
