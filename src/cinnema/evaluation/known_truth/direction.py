"""Direction and speed of drifts: of controlled skies, and of edited videos."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.wind import estimate_wind
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
from cinnema.evaluation.metrics.base import Entry, Task
from cinnema.evaluation.protocol import RealClip
from cinnema.evaluation.results import MODEL, REAL, RECONSTRUCTION, Column, Row, Target
from cinnema.evaluation.statistics.bootstrap import correlation, median, share_below
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.control import DRIFT, ControlSpec

Drift = Float64[np.ndarray, "2"]
"""Displacement (right, down) over a clip, as a fraction of the picture's width and height."""

_SLOWEST, _FASTEST = 0.5, 1.5  # requested speeds, relative to the typical one
_LEAST_QUERY = 0.25  # smallest relative speed of an edited video
_NARROW = 22.5
_LEAST_CHANGE = 45.0  # degrees by which an edit turns a sky

_COURSE = 3  # values of a compared drift: angle, requested and visible speed
_RANDOM = "random nu, edited"


class Direction(TaskMetric):
    """Angle and speed of the visible drift, compared with the drift in the control.

    Each picture gets a requested drift; all directions and speeds from 0.5 to 1.5 of the typical
    one are spread evenly over the pictures. The visible drift is the mean optical flow of what
    moves in the decoded frames.

    Args:
        task: The evaluation.

    Raises:
        UserError: The model's control is not a drift, or all clips come from one source.
    """

    rows = CONTROL_ROWS

    def __init__(self, task: Task) -> None:
        super().__init__(task, length=4 * _COURSE)
        self._spec, starts = require_drift(task.model), task.clips.starts
        drifts = _all_around(len(starts), self._spec, task.seed)
        self._asked = dict(zip(task.order, drifts, strict=True))
        self._partners = all_partners(starts)
        self.columns = _course_columns(
            ("angle to the control", "within 22.5 degrees of it", "correlation with its speed"),
            group="direction", least=0.8,
            about=" of the drift and the control; the real row is the error of the optical flow "
            "on real clips with known winds of such speeds",
        )  # fmt: skip
        self.entries = _course_entries((MODEL, OTHER_ETA, NO_ETA, REAL), self.columns)

    def measure(self, clips: Sequence[RealClip]) -> list[list[float]]:
        """Return angle and speeds with the control, for another one, without one, and real."""
        model, keys = self._model, [clip.start.key for clip in clips]
        x0 = first_frames(model, clips)
        nu = draws(model, clips, seed=self._seed, purpose="direction").to(x0)
        etas = [torch.from_numpy(self._asked[key]).float() for key in keys]
        seen = _drifts(decode_residual(model, x0, nu, corrected(model, x0, nu, etas)), clips)
        free: list[Drift | None] = [None] * len(clips)
        if self._spec.optional:
            plain = decode_residual(model, x0, nu, conditioned(model, x0, None))
            free = [*_drifts(plain, clips)]
        return [
            [
                *_course(self._asked[key], drift),
                *_course(self._asked[self._partners[key].key], drift),
                *_course(self._asked[key], without),
                *self._real(clip),
            ]
            for key, clip, drift, without in zip(keys, clips, seen, free, strict=True)
        ]

    def _real(self, clip: RealClip) -> list[float]:
        if not _has_wind(clip.eta, self._spec, slowest=_SLOWEST, fastest=_FASTEST):
            return [math.nan] * _COURSE
        return _course(np.asarray(clip.eta, np.float64), visible_drift(clip.frames, clip))

    def notes(self) -> list[str]:
        """Return which drifts are requested."""
        return [
            f"direction: requested are directions all around, at speeds from {_SLOWEST} to "
            f"{_FASTEST} of the typical one"
        ]


class Edit(TaskMetric):
    """Direction and speed of videos that are edited to drift in another direction.

        nu~ = T^-1(q(X~); x~0, eta~),   z = T(nu~; x~0, eta*)

    with eta~ estimated from the video by the model, as `cinnema edit` does, and eta* turned by 45
    to 315 degrees at the same speed.

    Args:
        task: The evaluation.

    Raises:
        UserError: The model's control is not a drift, or no clip has a known wind in its range.
    """

    rows = (
        Row(
            name=_RANDOM,
            kind="baseline",
            about="a random nu with the same control: the effect of the control alone",
        ),
    )

    def __init__(self, task: Task) -> None:
        super().__init__(task, length=3 * _COURSE + 1)
        self._spec = require_drift(task.model)
        fastest = _limit(self._spec) / self._spec.typical
        keys = [
            start.key
            for start in task.clips.starts
            if _has_wind(task.clips.eta(start), self._spec, slowest=_LEAST_QUERY, fastest=fastest)
        ]
        if not keys:
            raise UserError(
                "no clip has a known wind in the range of the model's control: use skies from "
                "`cinnema data simulate sky`"
            )
        self.chosen = frozenset(keys)
        self._turns = dict(zip(keys, _turns(len(keys), task.seed), strict=True))
        columns = _course_columns(
            ("angle to the new direction", "edits within 22.5 degrees of it",
             "correlation with the video's speed"),
            group="edit", least=0.7,
            about=" of the edited video's drift; the row of the reconstruction is the video as it "
            "is, encoded and decoded",
        )  # fmt: skip
        speed = Column(
            name="speed relative to the video's", better="real", digits=2, group="edit",
            about="median of the edited video's speed over that of the video; 1 is best",
        )  # fmt: skip
        self.columns = (*columns, speed)
        self.entries = {
            **_course_entries((MODEL, _RANDOM, RECONSTRUCTION), columns),
            (MODEL, speed.name): Entry(median, (3 * _COURSE,)),
        }

    def measure(self, clips: Sequence[RealClip]) -> list[list[float]]:
        """Return angle and speeds of edits, of a random nu and of the videos; relative speed."""
        model = self._model
        x0, z = first_frames(model, clips), encoded(model, clips)
        own = _estimated_controls(model, clips, self._spec)
        turns = [self._turns[clip.start.key] for clip in clips]
        new = [turned(eta, degrees) for eta, degrees in zip(own, turns, strict=True)]
        nu, _ = model.to_residual(z, conditioned(model, x0, own))
        other = draws(model, clips, seed=self._seed, purpose="edit").to(nu)
        edited, random = (
            _drifts(decode_residual(model, x0, n, corrected(model, x0, n, new)), clips)
            for n in (nu, other)
        )
        plain = _drifts(decode_latent(model, x0, z), clips)
        rows = []
        for clip, eta, *drifts in zip(clips, new, edited, random, plain, strict=True):
            speed = float(np.linalg.norm(np.asarray(clip.eta)))
            asked = eta.double().numpy()
            courses = [number for drift in drifts for number in _course(asked, drift, speed=speed)]
            rows.append([*courses, float(np.linalg.norm(drifts[0])) / speed])
        return rows

    def notes(self) -> list[str]:
        """Return which videos are edited."""
        return [
            f"edit: of videos with a true wind from {_LEAST_QUERY} of the typical speed to the "
            f"fastest in the control's range, turned by {_LEAST_CHANGE:g} to "
            f"{360 - _LEAST_CHANGE:g} degrees"
        ]


def require_drift(model: VideoModel) -> ControlSpec:
    """Return the control of a model whose control is a drift.

    Raises:
        UserError: The model has another control, or no control.
    """
    control = model.control
    if control is None or control.name != DRIFT:
        what = "no control" if control is None else f"the {control.name} as its control"
        raise UserError(
            f"the model {model.name} takes {what}, and this metric needs the {DRIFT}: choose "
            "weights that take it"
        )
    return control


def visible_drift(video: Video, clip: RealClip) -> Drift:
    """Return the mean motion of the sky over a clip, by optical flow of its frames.

    Args:
        video: x0 and the frames after it.
        clip: The clip that x0 comes from; its regions that are known to be still are ignored.
    """
    wind = estimate_wind(video, still=clip.still)
    return np.asarray(wind.displacement.sum(axis=0), dtype=np.float64)


def angle_between(a: Drift, b: Drift) -> float:
    """Return the angle between two drifts, in degrees from 0 to 180.

    Returns:
        The angle; 90, the chance level, if one of the drifts is zero.
    """
    if min(np.linalg.norm(a), np.linalg.norm(b)) < 1e-6:
        return 90.0
    cross, dot = a[0] * b[1] - a[1] * b[0], a @ b
    return abs(math.degrees(math.atan2(cross, dot)))


def turned(eta: Float[Tensor, "2"], degrees: float) -> Float[Tensor, "2"]:
    """Return a drift of the same length, turned counter-clockwise as seen in the picture."""
    a = math.radians(degrees)
    x, y = float(eta[0]), float(eta[1])  # y points down
    return torch.tensor(
        [x * math.cos(a) + y * math.sin(a), -x * math.sin(a) + y * math.cos(a)]
    )  # fmt: skip


def _all_around(num: int, spec: ControlSpec, seed: int) -> list[Drift]:
    """Drifts with evenly spread directions and speeds, each in a separate random order."""
    generator = np.random.default_rng(seed)
    places = [(generator.permutation(num) + generator.random(num)) / max(num, 1) for _ in range(2)]
    angles = 2 * np.pi * places[0]
    speeds = spec.typical * (_SLOWEST + (_FASTEST - _SLOWEST) * places[1])
    return list(speeds[:, None] * np.stack([np.cos(angles), -np.sin(angles)], axis=1))


def _turns(num: int, seed: int) -> list[float]:
    generator = np.random.default_rng(seed)
    places = (generator.permutation(num) + generator.random(num)) / max(num, 1)
    return list(map(float, _LEAST_CHANGE + (360 - 2 * _LEAST_CHANGE) * places))


def _has_wind(
    eta: Float32[np.ndarray, " e"] | None, spec: ControlSpec, *, slowest: float, fastest: float
) -> bool:
    """Return whether a clip's wind is known, with its speed, in typical ones, within limits."""
    if eta is None or len(eta) != 2:
        return False
    return bool(slowest <= np.linalg.norm(eta) / spec.typical <= fastest)


def _limit(spec: ControlSpec) -> float:
    """The fastest drift that is in the control's range in every direction."""
    return min(*map(abs, spec.low), *map(abs, spec.high))


def _estimated_controls(
    model: VideoModel, clips: Sequence[RealClip], spec: ControlSpec
) -> list[Float[Tensor, "2"]]:
    """The drift that the model estimates from each clip, within its range."""
    video = to_tensor(np.stack([clip.frames for clip in clips]))
    rows, _ = model.read_control(video.to(next(model.parameters()).device))
    lengths = rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return list((rows * (_limit(spec) / lengths).clamp_max(1.0)).float().cpu())


def _drifts(videos: Sequence[Video], clips: Sequence[RealClip]) -> list[Drift]:
    return [visible_drift(video, clip) for video, clip in zip(videos, clips, strict=True)]


def _course(asked: Drift, seen: Drift | None, *, speed: float | None = None) -> list[float]:
    """Return the angle between two drifts, the wanted speed and the visible one.

    Args:
        asked: The requested drift.
        seen: The visible drift; None if it is not measured.
        speed: The wanted speed; defaults to that of the requested drift.
    """
    if seen is None:
        return [math.nan] * _COURSE
    wanted = float(np.linalg.norm(asked)) if speed is None else speed
    return [angle_between(asked, seen), wanted, float(np.linalg.norm(seen))]


def _course_columns(
    names: tuple[str, str, str], *, group: str, least: float, about: str
) -> tuple[Column, ...]:
    """Return the columns of angles, of the share of small ones, and of speeds."""
    angle, share, speed = names
    return (
        Column(
            name=angle, better="lower", unit="degrees", digits=1, group=group,
            about=f"median angle{about}; 90 where nothing moves, which is chance",
            target=Target(kind="at most", limit=15.0),
        ),
        Column(
            name=share, better="higher", digits=2, group=group,
            about=f"share of angles below {_NARROW} degrees{about}; 0.125 by chance",
            target=Target(kind="at least", limit=0.9),
        ),
        Column(
            name=speed, better="higher", digits=2, group=group,
            about=f"Pearson's correlation of speeds, from -1 to 1,{about}",
            target=Target(kind="at least", limit=least),
        ),
    )  # fmt: skip


def _course_entries(
    rows: Sequence[str], columns: Sequence[Column]
) -> dict[tuple[str, str], Entry]:  # fmt: skip
    entries = {}
    for number, row in enumerate(rows):
        first = number * _COURSE
        entries[row, columns[0].name] = Entry(median, (first,))
        entries[row, columns[1].name] = Entry(share_below(_NARROW), (first,))
        entries[row, columns[2].name] = Entry(correlation, (first + 1, first + 2))
    return entries
