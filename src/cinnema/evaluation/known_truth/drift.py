"""Whether a sky drifts where it is told, how fast, and whether an edited video keeps its speed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.data.wind import estimate_wind
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.clips import (
    KnownClip,
    Progress,
    Video,
    aimed_at,
    batches,
    developed,
    filmed,
    partners_of,
    say_nothing,
    told,
)
from cinnema.evaluation.known_truth.results import Aim, Number, TaskResult
from cinnema.evaluation.statistics.bootstrap import (
    Estimate,
    correlation,
    median,
    resampled,
    share_below,
)
from cinnema.media.pictures import to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.control import DRIFT, ControlSpec

Drift = Float64[np.ndarray, "2"]
"""Right and down, in picture sizes a clip."""

_SLOWEST, _FASTEST = 0.5, 1.5  # speeds that are asked for, in typical ones
_LEAST_QUERY = 0.25  # of a video that is edited: a slower one hardly has a direction
_NARROW = 22.5
_LEAST_CHANGE = 45.0  # degrees by which an edit turns a sky


@dataclass(frozen=True, kw_only=True)
class Course:
    """How well some skies keep to a direction and a speed.

    Attributes:
        error: Median angle between the drift and the one asked for, in degrees.
        narrow: Share of angles below 22.5 degrees.
        speed: Correlation of the speed with the one asked for.
    """

    error: Estimate
    narrow: Estimate
    speed: Estimate


@dataclass(frozen=True, kw_only=True)
class DirectionResult(TaskResult):
    """How well skies drift as told.

    Attributes:
        told: The model, told eta.
        shuffled: The same samples beside the eta of another clip.
        dropped: The model, told nothing, beside eta.
        estimator: Real clips beside their true wind: what the optical flow itself misses by.
    """

    title: ClassVar[str] = "Where the sky drifts"

    told: Course
    shuffled: Course
    dropped: Course
    estimator: Course

    def numbers(self) -> Sequence[Number]:
        """Return angles and speeds."""
        rows = (
            ("model, told eta", self.told),
            ("model, beside another clip's eta", self.shuffled),
            ("model, told nothing", self.dropped),
            ("real clips: the estimator's own", self.estimator),
        )
        return _course_numbers(rows, speed="correlation of speed with the one asked", least=0.8)

    def notes(self) -> Sequence[str]:
        """Return what was asked for."""
        return [
            f"asked: directions all around, speeds from {_SLOWEST} to {_FASTEST} of the typical "
            "one; the estimator's own on real clips of such speeds"
        ]


@dataclass(frozen=True, kw_only=True)
class EditResult(TaskResult):
    """How well videos take another direction and keep their speed.

    Attributes:
        edited: nu of the video, told a new direction at the speed read off the video.
        random: A random nu, told the same: what eta alone brings along.
        unedited: The video, encoded and decoded: its own direction beside the new one, and the
            speed that stage 1 leaves.
        pace: Median of the edited video's speed over that of the video.
    """

    title: ClassVar[str] = "Another direction for a video"

    edited: Course
    random: Course
    unedited: Course
    pace: Estimate

    def numbers(self) -> Sequence[Number]:
        """Return angles and speeds."""
        rows = (
            ("edited video", self.edited),
            ("random nu, told the same", self.random),
            ("video as it is, encoded and decoded", self.unedited),
        )
        pace = Number(what="speed, of the video's, in the median", of="edited video",
                      estimate=self.pace, digits=2)  # fmt: skip
        speed = "correlation of speed with the video's"
        return [*_course_numbers(rows, speed=speed, least=0.7), pace]

    def notes(self) -> Sequence[str]:
        """Return which videos were edited."""
        return [
            f"videos with a true wind of {_LEAST_QUERY} typical speeds up to the fastest that the "
            f"model can be told, turned by {_LEAST_CHANGE:g} to {360 - _LEAST_CHANGE:g} degrees"
        ]


@torch.inference_mode()
def measure_direction(
    model: VideoModel,
    clips: Sequence[KnownClip],
    *,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> DirectionResult:
    """Tell the model a drift for each picture, and see in the decoded frames where it goes.

    Args:
        model: In evaluation mode, told a drift.
        clips: Skies; where they say what is still, that does not count.
        seed: Of nu, and of what is asked of which picture.
        batch_size: Clips at once.
        progress: Told how many are done.

    Raises:
        UserError: The model is not told a drift; the clips are of one source.
    """
    spec = require_drift(model)
    asked = dict(
        zip([c.start.key for c in clips], _all_around(len(clips), spec, seed), strict=True)
    )
    others = [asked[other.start.key] for other in partners_of(clips)]
    seen, untold = [], []
    for batch in batches(clips, batch_size, text="telling drifts", progress=progress):
        x0 = first_frames(model, batch)
        nu = draws(model, batch, seed=seed, purpose="direction").to(x0)
        etas = [torch.from_numpy(asked[clip.start.key]).float() for clip in batch]
        seen += _drifts(filmed(model, x0, nu, aimed_at(model, x0, nu, etas)), batch)
        if spec.optional:
            untold += _drifts(filmed(model, x0, nu, told(model, x0, None)), batch)
    sources, wanted = [clip.source for clip in clips], [asked[c.start.key] for c in clips]
    real = [clip for clip in clips if _blows(clip, spec, slowest=_SLOWEST, fastest=_FASTEST)]
    own = [seen_drift(clip.frames, clip) for clip in real]
    true = [np.asarray(c.eta, np.float64) for c in real if c.eta is not None]
    return DirectionResult(
        told=_course(wanted, seen, sources),
        shuffled=_course(others, seen, sources),
        dropped=_course(wanted[: len(untold)], untold, sources[: len(untold)]),
        estimator=_course(true, own, [clip.source for clip in real]),
    )


@torch.inference_mode()
def measure_edit(
    model: VideoModel,
    clips: Sequence[KnownClip],
    *,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> EditResult:
    """Give videos another direction at their own speed, and see in the decoded frames.

        nu~ = T^-1(q(X~); x~0, eta~),   z = T(nu~; x~0, eta*)

    with eta~ read off the video by the model, as `cinnema edit` does.

    Args:
        model: In evaluation mode, told a drift that it can read off a video.
        clips: Skies of known wind.
        seed: Of the new directions, and of the random nu.
        batch_size: Clips at once.
        progress: Told how many are done.

    Raises:
        UserError: The model is not told a drift; no clip has a wind that it can be told.
    """
    spec = require_drift(model)
    fastest = _limit(spec) / spec.typical
    queries = [c for c in clips if _blows(c, spec, slowest=_LEAST_QUERY, fastest=fastest)]
    if not queries:
        raise UserError(
            "no clip has a known wind that the model can be told: name skies, as `cinnema data "
            "simulate sky` makes them"
        )
    turns = dict(zip([c.start.key for c in queries], _turns(len(queries), seed), strict=True))
    asked, edited, random, plain = [], [], [], []
    for batch in batches(queries, batch_size, text="editing videos", progress=progress):
        x0, z = first_frames(model, batch), encoded(model, batch)
        own = _read(model, batch, spec)
        new = [turned(eta, turns[c.start.key]) for eta, c in zip(own, batch, strict=True)]
        nu, _ = model.to_residual(z, told(model, x0, own))
        other = draws(model, batch, seed=seed, purpose="edit").to(nu)
        asked += [eta.double().numpy() for eta in new]
        edited += _drifts(filmed(model, x0, nu, aimed_at(model, x0, nu, new)), batch)
        random += _drifts(filmed(model, x0, other, aimed_at(model, x0, other, new)), batch)
        plain += _drifts(developed(model, x0, z), batch)
    sources = [clip.source for clip in queries]
    speeds = [float(np.linalg.norm(c.eta)) for c in queries if c.eta is not None]
    pace = np.array([[np.linalg.norm(d) / s] for d, s in zip(edited, speeds, strict=True)])
    return EditResult(
        edited=_course(asked, edited, sources, speeds=speeds),
        random=_course(asked, random, sources, speeds=speeds),
        unedited=_course(asked, plain, sources, speeds=speeds),
        pace=resampled(pace, sources, median),
    )


def require_drift(model: VideoModel) -> ControlSpec:
    """Return the control of a model that is told a drift.

    Raises:
        UserError: It is told something else, or nothing.
    """
    control = model.control
    if control is None or control.name != DRIFT:
        what = "no control" if control is None else f"the {control.name}"
        raise UserError(
            f"the model {model.name} is told {what}, and this measures one that is told the "
            f"{DRIFT}: name weights that are"
        )
    return control


def seen_drift(video: Video, clip: KnownClip) -> Drift:
    """Return the mean motion of the sky over a clip, by optical flow of its frames.

    Args:
        video: x0 and what follows it.
        clip: Whose picture it is: where something is known to be still, that does not count.
    """
    wind = estimate_wind(video, still=clip.still)
    return np.asarray(wind.displacement.sum(axis=0), dtype=np.float64)


def angle_between(a: Drift, b: Drift) -> float:
    """Return the angle between two drifts, in degrees from 0 to 180.

    Returns:
        90 where one stands still, which misses as chance does.
    """
    if min(np.linalg.norm(a), np.linalg.norm(b)) < 1e-6:
        return 90.0
    cross, dot = a[0] * b[1] - a[1] * b[0], a @ b
    return abs(math.degrees(math.atan2(cross, dot)))


def turned(eta: Float[Tensor, "2"], degrees: float) -> Float[Tensor, "2"]:
    """Return a drift of the same length, turned counter-clockwise as one sees it."""
    a = math.radians(degrees)
    x, y = float(eta[0]), float(eta[1])  # y points down
    return torch.tensor(
        [x * math.cos(a) + y * math.sin(a), -x * math.sin(a) + y * math.cos(a)]
    )  # fmt: skip


def _all_around(num: int, spec: ControlSpec, seed: int) -> list[Drift]:
    """Drifts whose directions and speeds are spread evenly, each by an order of its own."""
    generator = np.random.default_rng(seed)
    places = [(generator.permutation(num) + generator.random(num)) / max(num, 1) for _ in range(2)]
    angles = 2 * np.pi * places[0]
    speeds = spec.typical * (_SLOWEST + (_FASTEST - _SLOWEST) * places[1])
    return list(speeds[:, None] * np.stack([np.cos(angles), -np.sin(angles)], axis=1))


def _turns(num: int, seed: int) -> list[float]:
    generator = np.random.default_rng(seed)
    places = (generator.permutation(num) + generator.random(num)) / max(num, 1)
    return list(map(float, _LEAST_CHANGE + (360 - 2 * _LEAST_CHANGE) * places))


def _blows(clip: KnownClip, spec: ControlSpec, *, slowest: float, fastest: float) -> bool:
    """Say whether a clip's wind is known, and its speed within limits, in typical ones."""
    if clip.eta is None or len(clip.eta) != 2:
        return False
    return bool(slowest <= np.linalg.norm(clip.eta) / spec.typical <= fastest)


def _limit(spec: ControlSpec) -> float:
    """The fastest drift that can be told in every direction."""
    return min(*map(abs, spec.low), *map(abs, spec.high))


def _read(
    model: VideoModel, clips: Sequence[KnownClip], spec: ControlSpec
) -> list[Float[Tensor, "2"]]:
    """The drift that the model reads off each clip, cut to what it can be told."""
    video = to_tensor(np.stack([clip.frames for clip in clips]))
    rows, _ = model.read_control(video.to(next(model.parameters()).device))
    lengths = rows.norm(dim=1, keepdim=True).clamp_min(1e-9)
    return list((rows * (_limit(spec) / lengths).clamp_max(1.0)).float().cpu())


def _drifts(videos: Sequence[Video], clips: Sequence[KnownClip]) -> list[Drift]:
    return [seen_drift(video, clip) for video, clip in zip(videos, clips, strict=True)]


def _course(
    asked: Sequence[Drift],
    seen: Sequence[Drift],
    sources: Sequence[str],
    *,
    speeds: Sequence[float] | None = None,
) -> Course:
    """Compare drifts with what was asked; `speeds` where another one is to be kept."""
    wanted = [float(np.linalg.norm(a)) for a in asked] if speeds is None else speeds
    rows = np.array(
        [
            [angle_between(a, s), w, np.linalg.norm(s)]
            for a, s, w in zip(asked, seen, wanted, strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 3)
    return Course(
        error=resampled(rows[:, :1], sources, median),
        narrow=resampled(rows[:, :1], sources, share_below(_NARROW)),
        speed=resampled(rows[:, 1:], sources, correlation),
    )


def _course_numbers(
    rows: Sequence[tuple[str, Course]], *, speed: str, least: float
) -> list[Number]:
    """Numbers of courses; the first one has aims."""
    kinds = (
        ("angle to what was asked, in the median", "error", "degrees", 1,
         Aim(way="at most", limit=15.0)),
        ("share below 22.5 degrees", "narrow", "", 2, Aim(way="at least", limit=0.9)),
        (speed, "speed", "", 2, Aim(way="at least", limit=least)),
    )  # fmt: skip
    return [
        Number(what=what, of=of, estimate=getattr(course, name), unit=unit, digits=digits,
               aim=aim if course is rows[0][1] else None)
        for what, name, unit, digits, aim in kinds
        for of, course in rows
    ]  # fmt: skip
