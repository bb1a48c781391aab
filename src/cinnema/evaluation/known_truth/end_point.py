"""Error of the end point of a robot's hand, relative to the control."""

from collections.abc import Sequence

import numpy as np
import torch

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.decoding import (
    CONTROL_ROWS,
    NO_ETA,
    OTHER_ETA,
    TaskMetric,
    Video,
    all_partners,
    conditioned,
    corrected,
    decode_latent,
    decode_residual,
)
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.metrics.base import Entry, Task
from cinnema.evaluation.protocol import ClipSet, RealClip
from cinnema.evaluation.results import FROZEN, MODEL, REAL, RECONSTRUCTION, Column, Target
from cinnema.evaluation.statistics.bootstrap import mean, ratio
from cinnema.models.control import END_POINT

_ERROR = Column(
    name="error of the end point",
    better="lower",
    unit="of the workspace's width",
    group="end point",
    about="distance of the hand in the last frame from the control; at least 0. The real row is "
    "the error of the reader on the real last frame",
    target=Target(kind="at most", limit=0.15),
)
_GAIN = Column(
    name="times smaller than with another eta",
    better="higher",
    digits=2,
    group="end point",
    about="the error beside another clip's control over that beside its own; 1 if it is ignored",
    target=Target(kind="at least", limit=3.0),
)


class EndPoint(TaskMetric):
    """Distance between the hand's end point and the control, relative to the workspace's width.

    Each first frame is decoded with the clip's true end point and a random nu; a small network then
    predicts the hand's position in the last frame (`cinnema.evaluation.known_truth.reader`).

    Args:
        task: The evaluation, with a reader of the same robot and camera.

    Raises:
        UserError: The model has no end point as its control, the clips have none, or they are of
            one source.
    """

    rows = CONTROL_ROWS
    columns = (_ERROR, _GAIN)

    def __init__(self, task: Task) -> None:
        super().__init__(task, length=6)
        control = task.model.control
        if control is None or control.name != END_POINT:
            what = "no control" if control is None else f"the {control.name} as its control"
            raise UserError(
                f"the model {task.model.name} takes {what}, and this metric needs the {END_POINT}: "
                "name weights of a robot"
            )
        self._is_optional = control.optional
        require_end_points(task.clips)
        self._partners = all_partners(task.clips.starts)
        self._reader = require_reader(task)
        rows = (MODEL, OTHER_ETA, NO_ETA, FROZEN, RECONSTRUCTION, REAL)
        self.entries = {(row, _ERROR.name): Entry(mean, (i,)) for i, row in enumerate(rows)}
        self.entries[MODEL, _GAIN.name] = Entry(ratio, (1, 0))

    def measure(self, clips: Sequence[RealClip]) -> list[list[float]]:
        """Return errors with eta, with another eta, without, frozen, reconstructed and real."""
        model, reader = self._model, self._reader
        x0 = first_frames(model, clips)
        nu = draws(model, clips, seed=self._seed, purpose="end point").to(x0)
        etas = [torch.from_numpy(clip.eta) for clip in clips if clip.eta is not None]
        asked = np.stack([clip.eta for clip in clips if clip.eta is not None]).astype(np.float64)
        partners = [self._partners[clip.start.key] for clip in clips]
        other = np.stack([np.asarray(self._clips.eta(partner)) for partner in partners])

        def read(videos: Sequence[Video]) -> np.ndarray:
            return reader.read(np.stack([video[-1] for video in videos]))

        seen = read(decode_residual(model, x0, nu, corrected(model, x0, nu, etas)))
        free = np.full_like(seen, np.nan)
        if self._is_optional:
            free = read(decode_residual(model, x0, nu, conditioned(model, x0, None)))
        misses = [
            seen - asked,
            seen - other,
            free - asked,
            read([clip.frames[:1] for clip in clips]) - asked,
            read(decode_latent(model, x0, encoded(model, clips))) - asked,
            read([clip.frames for clip in clips]) - asked,
        ]
        errors = np.stack([np.linalg.norm(miss, axis=1) for miss in misses], axis=1)
        return list((errors / reader.config.width).tolist())

    def notes(self) -> list[str]:
        """Return the width of the workspace."""
        config = self._reader.config
        return [f"end point: the workspace is {config.width:g} {config.unit} wide"]


def require_end_points(clips: ClipSet) -> None:
    """Raise a UserError unless all clips have an end point in three dimensions.

    Args:
        clips: The clips.
    """
    etas = (clips.eta(start) for start in clips.starts)
    if any(eta is None or len(eta) != 3 for eta in etas):
        raise UserError(
            "these clips have no position of an end effector: name data of a robot, as `cinnema "
            "data simulate push` makes them"
        )


def require_reader(task: Task) -> EndPointReader:
    """Return the reader of end points, on the task's device.

    Raises:
        UserError: The task has no reader.
    """
    if task.reader is None:
        raise UserError("a reader of end points is needed: give one with --reader")
    return task.reader().to(task.device)
