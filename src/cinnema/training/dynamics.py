"""Fits the constants of each kind's motion by a coordinate search on training clips.

A clip's own measured motion, with churn drawn at random, is rendered with different constants; the
constants whose videos score best are kept. The score is the caller's, for instance the share of the
kernel distance between the frozen picture and real video that is closed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_class
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.windows import SceneWindows
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import MOTION_DIM, Z_DIM, NatureModel
from cinnema.models.nature.motion import KindDynamics
from cinnema.training.motion_pool import MotionPool

Score = Callable[[UInt8[np.ndarray, "n t h w 3"]], float]
"""Scores the videos of the chosen clips, in their order; higher is better."""

Trial = Callable[[str, float], object]
"""Told of each trial: what was changed, and the score."""

_AT_ONCE = 8  # clips


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DynamicsSearch:
    """The search for the constants of each kind.

    Attributes:
        options: Of each kind the values to try, by the name of the constant, in this order.
        clips_per_scene: Largest number of clips of a scene.
        least_area: Share of the picture from which a clip counts for a kind.
        seed: Seed of the churn.
    """

    options: dict[str, dict[str, tuple[float, ...]]]
    clips_per_scene: int = Field(default=3, ge=1)
    least_area: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        for kind, options in self.options.items():
            if kind not in KINDS:
                raise UserError(f"options: there is no kind {kind!r}: use {', '.join(KINDS)}")
            unknown = sorted(set(options) - set(KindDynamics.__dataclass_fields__))
            if unknown:
                known = ", ".join(KindDynamics.__dataclass_fields__)
                raise UserError(f"options: there is no constant {unknown[0]!r}: use {known}")


@dataclass(frozen=True)
class ChosenClips:
    """Clips by which the constants of a kind are fitted.

    Attributes:
        index: Their positions in the pool.
        frames: x0 and the frames after it.
        scenes: Name of each clip's scene.
    """

    index: Int64[Tensor, " n"]
    frames: UInt8[np.ndarray, "n t1 h w 3"]
    scenes: tuple[str, ...]


def choose_clips(
    pool: MotionPool, windows: Sequence[SceneWindows], kind: int, config: DynamicsSearch
) -> ChosenClips | None:
    """Return training clips that show a kind; None if fewer than 2 scenes do.

    Args:
        pool: Measured motion of the windows, in their order.
        windows: The clips.
        kind: Index in `KINDS`.
        config: Number of clips of a scene, and smallest area.
    """
    is_shown = (pool.area[:, kind] > config.least_area) & ~pool.held_out[pool.scene]
    is_shown &= ~pool.closer
    chosen: list[int] = []
    for scene in pool.scene[is_shown].unique():
        own = (is_shown & (pool.scene == scene)).nonzero()[:, 0]
        step = max(1, len(own) // config.clips_per_scene)
        chosen += own[::step][: config.clips_per_scene].tolist()
    index = torch.tensor(chosen, dtype=torch.long)
    if len(pool.scene[index].unique()) < 2:
        return None
    first = torch.bincount(pool.scene, minlength=len(windows)).cumsum(0)
    frames = []
    for position in chosen:
        scene = int(pool.scene[position])
        frames.append(windows[scene].frames[position - (int(first[scene - 1]) if scene else 0)])
    names = tuple(pool.scenes[s] for s in pool.scene[index].tolist())
    return ChosenClips(index, np.stack(frames), names)


class MeasuredVideos:
    """Videos of clips with their own measured motion, and churn that is drawn at random.

    Layers of the first frames are cut once, and the constants are the model's at the time.

    Args:
        model: With its normalisation fitted, in evaluation mode.
        pool: Measured motion.
        clips: The clips.
    """

    @torch.no_grad()
    def __init__(self, model: NatureModel, pool: MotionPool, clips: ChosenClips) -> None:
        self._model = model
        rows = model.normalised(pool.raw[clips.index].to(model.z_mean))
        shown = (pool.area[clips.index] > 0).to(rows)
        self._rows = (rows * shown[..., None]).flatten(1)
        first = to_tensor(np.ascontiguousarray(clips.frames[:, 0])).to(rows)
        self._parts = [(x0, model.layers(x0)) for x0 in first.split(_AT_ONCE)]

    @torch.no_grad()
    def render(self, *, seed: int) -> UInt8[np.ndarray, "n t h w 3"]:
        """Return the videos, in the clips' order.

        Args:
            seed: Seed of the churn.
        """
        out = []
        for number, (x0, layers) in enumerate(self._parts):
            start = number * _AT_ONCE
            rows = self._rows[start : start + _AT_ONCE]
            generator = generator_for(seed, start)
            churn = torch.randn(len(rows), Z_DIM - MOTION_DIM, generator=generator).to(rows)
            video = self._model.move(x0, layers, torch.cat([rows, churn], 1))
            out.append(to_pixels(video.cpu()))
        return np.concatenate(out)


def fit_dynamics(
    model: NatureModel,
    pool: MotionPool,
    kind: int,
    clips: ChosenClips,
    config: DynamicsSearch,
    *,
    score: Score,
    report: Trial | None = None,
) -> KindDynamics:
    """Fit the constants of one kind, beginning with the model's, and give them to the model.

    Args:
        model: Its `config.dynamics` is changed.
        pool: Measured motion.
        kind: Index in `KINDS`.
        clips: From `choose_clips`.
        config: Values to try.
        score: Scores the videos.
        report: Told of each trial.

    Returns:
        The constants of the kind.
    """
    videos = MeasuredVideos(model, pool, clips)

    def value(dynamics: KindDynamics) -> float:
        give_dynamics(model, kind, dynamics)
        return score(videos.render(seed=config.seed))

    start = model.config.dynamics[kind]
    found = climb(start, config.options.get(KINDS[kind], {}), value, report=report)
    give_dynamics(model, kind, found)
    return found


def climb(
    start: KindDynamics,
    options: Mapping[str, Sequence[float]],
    score: Callable[[KindDynamics], float],
    *,
    report: Trial | None = None,
) -> KindDynamics:
    """Change one constant after the other, and keep each change that scores better.

    Args:
        start: The first constants.
        options: Values to try, by the name of the constant, in this order.
        score: Higher is better.
        report: Told of each trial.
    """
    tell = report or (lambda _what, _score: None)
    best, highest = start, score(start)
    tell("start", highest)
    for name, values in options.items():
        for value in values:
            tried = replace(best, **{name: value})
            if tried == best:
                continue
            reached = score(tried)
            tell(f"{name} {value:g}", reached)
            if reached > highest:
                best, highest = tried, reached
    return best


def give_dynamics(model: NatureModel, kind: int, dynamics: KindDynamics) -> None:
    """Replace the constants of one kind (its index in `KINDS`) in a model's configuration."""
    every = list(model.config.dynamics)
    every[kind] = dynamics
    model.config = replace(model.config, dynamics=tuple(every))
