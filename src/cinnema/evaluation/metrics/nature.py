"""Metrics of nature models: how far each kind moves and where, and what moves that should stand.

Motion is measured on frames, by the optical flow from each frame to the next, for generated and
real clips alike, over the pixels that the model's kind network assigns to a kind in x0. Lengths
are in pixels of a picture of 128 pixels over a clip.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import condition, draws, encoded, first_frames
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch, Task, Video
from cinnema.evaluation.results import MODEL, REAL, Cells, Column
from cinnema.evaluation.statistics.bootstrap import (
    ClusteredSums,
    Estimate,
    SumStatistic,
    joint_estimate,
    ratio_of_sums,
)
from cinnema.media.pictures import to_tensor
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import NatureModel
from cinnema.models.nature.motion import GRID
from cinnema.models.nature.reading import measure_flow, measure_motion, velocity_of
from cinnema.models.nature.rendering import shares

PIXELS = 128
"""Size of the picture that lengths refer to."""

LEAST_SHARE = 0.02
"""Share of the picture below which the motion of a kind is not measured."""

STILL, STANDS, MOVES, MOVING = 1.0, 1.0, 2.0, 3.0
"""Change a frame, in levels of 255: real pixels below `STILL` are still, above `MOVING` moving;
generated pixels below `STANDS` stand, above `MOVES` move."""

_CELL = 4 / 128  # side, in picture sizes, of the squares over which changes are averaged
_GROUP, _STILL_GROUP = "motion by kind", "still and moving"
_APART = "sky and water"
_STILL_MOVES, _MOVING_STANDS = "still that moves", "moving that stands"


class _Moved(NamedTuple):
    """The motion of each of `KINDS` over a clip, in pixels; NaN where x0 does not show it.

    Attributes:
        length: Mean length of the displacement.
        drift: Mean displacement, (right, down).
    """

    length: Float64[np.ndarray, " k"]
    drift: Float64[np.ndarray, "k 2"]


class _StatisticsOfSums(Metric):
    """A metric whose cells are statistics of sums over clips."""

    def statistics(self, row: str) -> Mapping[str, tuple[str, SumStatistic]]:
        """Return the columns of a row: what is summed, and the statistic of the sums."""
        raise NotImplementedError

    def cells(self, row: str) -> Cells:
        """Return the cells of a row."""
        return {
            column: self.sums[row, what].estimate(statistic)
            for column, (what, statistic) in self.statistics(row).items()
            if (row, what) in self.sums
        }

    def changes(self, row: str, before: Metric) -> Mapping[str, Estimate]:
        """Return the paired differences of a row's cells to those of another model."""
        found = {}
        for column, (what, statistic) in self.statistics(row).items():
            if (row, what) in self.sums and (row, what) in before.sums:
                pair = [before.sums[row, what], self.sums[row, what]]
                found[column] = joint_estimate(pair, partial(_difference, statistic))
        return found


class MotionByKind(_StatisticsOfSums):
    """How far and where each kind moves, and whether sky and water move independently.

    For each kind, with v its static velocity fitted to the optical flow of the frames:

        motion    sum over clips of mean |v| of the futures / the same of the real clips
        right, down    mean v, in pixels over a clip

    Args:
        task: The evaluation.

    Raises:
        UserError: The model is not a nature model.
    """

    uses_futures = True

    columns = (
        *(
            Column(
                name=f"motion: {kind}",
                better="real",
                digits=2,
                group=_GROUP,
                about=f"mean displacement of {kind} over that in the real clips: 1 as real, 0 "
                "still",
            )
            for kind in KINDS
        ),
        *(
            Column(
                name=f"motion in z: {kind}",
                better="real",
                digits=2,
                group="motion by kind, in z",
                about=f"mean displacement of {kind} in z of samples over that in z of the real "
                "clips, times the kind's gain both: what the flow draws, before it is rendered",
            )
            for kind in KINDS
        ),
        *(
            Column(
                name=f"{where}: {kind}",
                better="real",
                unit="px",
                digits=2,
                group="direction by kind",
                about=f"mean motion of {kind} over a clip to the {side}, in pixels of a picture "
                f"of {PIXELS}",
            )
            for kind in KINDS
            for where, side in (("right", "right"), ("down", "bottom"))
        ),
        Column(
            name=_APART,
            better="real",
            digits=2,
            group=_GROUP,
            about="correlation of the drifts of sky and water over the futures of one photograph; "
            "near 0: they move independently, 1: as one sheet",
        ),
    )

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._model = require_nature(task)
        self._seed, self._num_samples = task.seed, task.num_samples
        self._known: dict[str, tuple[Tensor, _Moved]] = {}

    @torch.inference_mode()
    def see_real(self, real: RealBatch) -> None:
        """Measure the real clips, and the motion in z of real clips and samples."""
        model = self._model
        x0 = first_frames(model, real.clips)
        share = shares(model.recognise(x0).probabilities)[:, 1:]
        cells = functional.adaptive_avg_pool2d(share, GRID).cpu()
        self._known = {}
        for clip, own in zip(real.clips, cells, strict=True):
            moved = _measure(clip.frames, own)
            self._known[clip.start.key] = own, moved
            self._add(REAL, clip.source, [moved], moved)
        c = condition(model, real.clips, x0)
        drawn = [
            draws(model, real.clips, seed=self._seed, purpose=f"nu {k}").to(x0)
            for k in range(self._num_samples)
        ]
        samples = [self._lengths(model.to_latent(nu, c)[0], cells) for nu in drawn]
        self._add_latents(
            real, np.mean(samples, 0), self._lengths(encoded(model, real.clips), cells)
        )

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Measure all futures of each start."""
        for i, clip in enumerate(real.clips):
            cells, moved = self._known[clip.start.key]
            videos = [np.concatenate([clip.frames[:1], of[i]]) for of in futures.frames]
            self._add(futures.row, clip.source, [_measure(v, cells) for v in videos], moved)

    def _add(self, row: str, source: str, futures: list[_Moved], real: _Moved) -> None:
        length = np.mean([moved.length for moved in futures], 0)
        drift = np.stack([moved.drift for moved in futures])
        for k, kind in enumerate(KINDS):
            if np.isfinite(real.length[k]):
                sums = self.sums.setdefault((row, kind), ClusteredSums(5))
                means = [length[k], real.length[k], *drift[:, k].mean(0), 1.0]
                sums.add(source, np.array(means, np.float64))
        sky, water = (drift[:, KINDS.index(name)] for name in ("sky", "water"))
        if len(futures) > 1 and np.isfinite(sky).all() and np.isfinite(water).all():
            a, b = sky - sky.mean(0), water - water.mean(0)
            sums = self.sums.setdefault((row, _APART), ClusteredSums(3))
            sums.add(source, np.array([(a * b).sum(), (a * a).sum(), (b * b).sum()]))

    def _lengths(self, z: Tensor, cells: Tensor) -> Float64[np.ndarray, "b k"]:
        motion = self._model.read_motion(z)
        each = [_length(velocity_of(v).cpu(), cells[:, k]) for k, (v, _) in enumerate(motion)]
        return torch.stack(each, 1).double().numpy()

    def _add_latents(
        self, real: RealBatch, samples: Float64[np.ndarray, "b k"], own: Float64[np.ndarray, "b k"]
    ) -> None:
        for source, row, of_real in zip(real.sources, samples, own, strict=True):
            for kind, a, b in zip(KINDS, row, of_real, strict=True):
                if np.isfinite(b):
                    sums = self.sums.setdefault((MODEL, f"z {kind}"), ClusteredSums(2))
                    sums.add(source, np.array([a, b], np.float64))

    def statistics(self, row: str) -> Mapping[str, tuple[str, SumStatistic]]:
        """Return the ratios, the directions, and the correlation of sky and water."""
        found: dict[str, tuple[str, SumStatistic]] = {_APART: (_APART, _correlation)}
        for kind in KINDS:
            if row != REAL:
                found[f"motion: {kind}"] = kind, lambda s: ratio_of_sums(s[..., :2])
            found[f"motion in z: {kind}"] = f"z {kind}", ratio_of_sums
            found[f"right: {kind}"] = kind, lambda s: s[..., 2] / s[..., 4]
            found[f"down: {kind}"] = kind, lambda s: s[..., 3] / s[..., 4]
        return found


class StillAndMoving(_StatisticsOfSums):
    """Share of still pixels that move in futures, and of moving pixels that stand.

    The change of a pixel is the mean of |x_t - x_t-1| over the clip and the colours, averaged over
    squares of 4 pixels of 128. Pixels that change by less than 1 level of 255 a frame in the real
    clip are still, by more than 3 moving; in a future they move above 2, and stand below 1.
    """

    uses_futures = True

    columns = (
        Column(
            name=_STILL_MOVES,
            better="lower",
            digits=3,
            group=_STILL_GROUP,
            about=f"of the pixels that change by less than {STILL:g} level of 255 a frame in the "
            f"real clip, the share that changes by more than {MOVES:g} in the futures",
        ),
        Column(
            name=_MOVING_STANDS,
            better="lower",
            digits=3,
            group=_STILL_GROUP,
            about=f"of the pixels that change by more than {MOVING:g} levels a frame in the real "
            f"clip, the share that changes by less than {STANDS:g} in the futures",
        ),
    )

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Compare the changes of all futures with those of the real clip."""
        for i, clip in enumerate(real.clips):
            true = changes(clip.frames)
            still, moving = true < STILL, true > MOVING
            made = np.stack(
                [changes(np.concatenate([clip.frames[:1], of[i]])) for of in futures.frames]
            )
            moved = (made[:, still] > MOVES).sum() / len(made)
            stood = (made[:, moving] < STANDS).sum() / len(made)
            sums = self.sums.setdefault((futures.row, "pixels"), ClusteredSums(4))
            sums.add(clip.source, np.array([moved, still.sum(), stood, moving.sum()], np.float64))

    def statistics(self, row: str) -> Mapping[str, tuple[str, SumStatistic]]:
        """Return both shares."""
        del row
        return {
            _STILL_MOVES: ("pixels", lambda s: ratio_of_sums(s[..., :2])),
            _MOVING_STANDS: ("pixels", lambda s: ratio_of_sums(s[..., 2:])),
        }


def require_nature(task: Task) -> NatureModel:
    """Return the task's model.

    Raises:
        UserError: It is not a nature model.
    """
    if not isinstance(task.model, NatureModel):
        raise UserError(
            f"the model {task.model.name} tells no kinds of things that move, which this metric "
            "needs: name weights of a nature model, as landscape"
        )
    return task.model


def changes(frames: Video) -> Float64[np.ndarray, "i j"]:
    """Return the mean absolute change a frame, in levels of 255, as means of small squares.

    Args:
        frames: x0 and what follows it.
    """
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((0, 3))
    side = max(1, round(_CELL * frames.shape[1]))
    pooled = functional.avg_pool2d(torch.from_numpy(change)[None, None], side)[0, 0]
    return pooled.double().numpy()


def _measure(frames: Video, share: Float[Tensor, "k g g"]) -> _Moved:
    """Return the visible motion of each kind in a video."""
    steps = len(frames) - 1
    flow = measure_flow(to_tensor(frames)[None])
    lengths, drifts = [], []
    for own in share:
        v = velocity_of(measure_motion(flow, own[None]).coefficients)
        mass = own.sum().clamp_min(1e-6)
        is_shown = own.mean() >= LEAST_SHARE
        drift = (v[0] * own).sum((1, 2)) / mass
        drifts.append(drift if is_shown else torch.full_like(drift, torch.nan))
        lengths.append(_length(v, own[None])[0])
    scale = PIXELS * steps
    return _Moved(
        scale * torch.stack(lengths).double().numpy(), scale * torch.stack(drifts).double().numpy()
    )


def _length(
    velocity: Float[Tensor, "b 2 g g"], share: Float[Tensor, "b g g"]
) -> Float[Tensor, " b"]:
    """Return the mean length of a velocity over a kind; NaN where there is too little of it."""
    mass = share.sum((1, 2)).clamp_min(1e-6)
    mean = (velocity.norm(dim=1) * share).sum((1, 2)) / mass
    return torch.where(share.mean((1, 2)) >= LEAST_SHARE, mean, torch.nan)


def _correlation(sums: Float64[np.ndarray, "*r 3"]) -> Float64[np.ndarray, "*r"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / np.sqrt(sums[..., 1] * sums[..., 2]))


def _difference(
    statistic: SumStatistic, sums: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    before, after = map(statistic, sums)
    return np.asarray(after - before)
