"""Whether the robot's hand ends where it was told to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.clips import (
    KnownClip,
    Progress,
    aimed_at,
    batches,
    developed,
    filmed,
    partners_of,
    say_nothing,
    told,
)
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.known_truth.results import Aim, Number, TaskResult
from cinnema.evaluation.statistics.bootstrap import Estimate, mean, ratio, resampled
from cinnema.models.base import VideoModel
from cinnema.models.control import END_POINT


@dataclass(frozen=True, kw_only=True)
class EndPointResult(TaskResult):
    """How far the end effector of the last frame is from where eta says.

    Attributes:
        told: Of the model that is told eta, as a share of the workspace's width.
        shuffled: The same samples beside the eta of another clip.
        dropped: Of the model that is told nothing; NaN of one that cannot do without.
        frozen: Of the first frame.
        decoded: Of the real clip, encoded and decoded: what stage 1 leaves.
        reader: Of the real last frame: what the reader itself misses by.
        gain: How many times `told` goes into `shuffled`.
        width: Of the workspace.
        unit: Of it.
    """

    title: ClassVar[str] = "Where the hand ends"

    told: Estimate
    shuffled: Estimate
    dropped: Estimate
    frozen: Estimate
    decoded: Estimate
    reader: Estimate
    gain: Estimate
    width: float
    unit: str

    def numbers(self) -> Sequence[Number]:
        """Return the errors and the gain."""
        aim = Aim(way="at most", limit=0.15)
        rows = (
            ("model, told eta", self.told, aim),
            ("model, beside another clip's eta", self.shuffled, None),
            ("model, told nothing", self.dropped, None),
            ("frozen first frame", self.frozen, None),
            ("real clip, encoded and decoded", self.decoded, None),
            ("real last frame: the reader's own", self.reader, None),
        )
        what = "mean error of the end point"
        errors = [
            Number(what=what, of=of, estimate=e, unit="of the width", aim=aim)
            for of, e, aim in rows
        ]
        gain = Number(
            what="times smaller than with another clip's eta",
            of="model",
            estimate=self.gain,
            digits=2,
            aim=Aim(way="at least", limit=3.0),
        )
        return [*errors, gain]

    def notes(self) -> Sequence[str]:
        """Return what the width is."""
        return [f"the workspace is {self.width:g} {self.unit} across"]


@torch.inference_mode()
def measure_end_point(
    model: VideoModel,
    clips: Sequence[KnownClip],
    reader: EndPointReader,
    *,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> EndPointResult:
    """Tell the model where each clip's hand ends, and read off the last frame where it did.

    Args:
        model: In evaluation mode, told an end point.
        clips: With their end points.
        reader: Of the same robot, at the same camera.
        seed: Of nu.
        batch_size: Clips at once.
        progress: Told how many are done.

    Raises:
        UserError: The model is not told an end point, or the clips have none.
    """
    require_end_points(model, clips)
    others = {clip.start.key: other for clip, other in zip(clips, partners_of(clips), strict=True)}
    rows = [
        row
        for batch in batches(clips, batch_size, text="telling end points", progress=progress)
        for row in _errors(model, batch, reader, others=[others[c.start.key] for c in batch],
                           seed=seed)
    ]  # fmt: skip
    table, sources = np.stack(rows) / reader.config.width, [clip.source for clip in clips]
    errors = [resampled(table[:, i : i + 1], sources, mean) for i in range(6)]
    return EndPointResult(
        told=errors[0],
        shuffled=errors[1],
        dropped=errors[2],
        frozen=errors[3],
        decoded=errors[4],
        reader=errors[5],
        gain=resampled(table[:, [1, 0]], sources, ratio),
        width=reader.config.width,
        unit=reader.config.unit,
    )


def require_end_points(model: VideoModel, clips: Sequence[KnownClip]) -> None:
    """Raise a UserError unless the model is told end points, and the clips have them.

    Args:
        model: It.
        clips: They.
    """
    control = model.control
    if control is None or control.name != END_POINT:
        what = "no control" if control is None else f"the {control.name}"
        raise UserError(
            f"the model {model.name} is told {what}, and this measures one that is told the "
            f"{END_POINT}: name weights of a robot"
        )
    if any(clip.eta is None or len(clip.eta) != 3 for clip in clips):
        raise UserError(
            "these clips do not say where an end effector is: name data of a robot, as `cinnema "
            "data simulate push` makes them"
        )


def _errors(
    model: VideoModel,
    clips: Sequence[KnownClip],
    reader: EndPointReader,
    *,
    others: Sequence[KnownClip],
    seed: int,
) -> Float64[np.ndarray, "b 6"]:
    """Distances of told, shuffled, dropped, frozen, decoded and real last frames."""
    x0 = first_frames(model, clips)
    nu = draws(model, clips, seed=seed, purpose="end point").to(x0)
    etas = [torch.from_numpy(clip.eta) for clip in clips if clip.eta is not None]
    asked = np.stack([clip.eta for clip in clips if clip.eta is not None]).astype(np.float64)
    other = np.stack([clip.eta for clip in others if clip.eta is not None])

    def read(videos: Sequence[np.ndarray]) -> np.ndarray:
        return reader.read(np.stack([video[-1] for video in videos]))

    seen = read(filmed(model, x0, nu, aimed_at(model, x0, nu, etas)))
    untold = np.full_like(seen, np.nan)
    if model.control is not None and model.control.optional:
        untold = read(filmed(model, x0, nu, told(model, x0, None)))
    places = [
        seen - asked,
        seen - other,
        untold - asked,
        read([clip.frames[:1] for clip in clips]) - asked,
        read(developed(model, x0, encoded(model, clips))) - asked,
        read([clip.frames for clip in clips]) - asked,
    ]
    return np.stack([np.linalg.norm(place, axis=1) for place in places], axis=1)
