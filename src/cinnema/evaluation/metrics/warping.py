"""Metrics of warping models: flow and pictures of stage 1, samples and likelihood of both stages.

Flow is compared with the optical flow of the real clip, and some frames with the real ones before
rounding to 8 bits (`cinnema.evaluation.warping_scores`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.core.errors import UserError
from cinnema.evaluation.likelihood import (
    FittedPriors,
    encode_clips,
    fit_priors,
    inversion_errors,
    likelihood_scores,
)
from cinnema.evaluation.metrics.base import Entry, RealBatch, TableMetric, Task
from cinnema.evaluation.priors import GAUSSIAN, LINEAR
from cinnema.evaluation.protocol import ClipSet, RealClip, Start
from cinnema.evaluation.results import FROZEN, MODEL, RECONSTRUCTION, Cells, Column, Row
from cinnema.evaluation.statistics.bootstrap import Estimate, ratio
from cinnema.evaluation.warping_scores import (
    Scores,
    flow_scores,
    motion_scores,
    reconstruction_scores,
    sample_scores,
    with_flow,
)
from cinnema.models.warping.model import WarpingModel
from cinnema.models.warping.stage1 import Stage1
from cinnema.training.latent_pool import LatentPool

WARPED, REAL_FLOW = "x0 warped by the real flow", "optical flow of the real clip"

_ENCODED_AT_ONCE = 32


@dataclass(frozen=True)
class Quantity:
    """A cell that is sum(top) / sum(bottom) over clips, or the mean of `top`.

    Attributes:
        row: Row of the table.
        column: Column of the table.
        top: Name of the numerator among a clip's scores.
        bottom: Name of the denominator; None for the mean.
    """

    row: str
    column: Column
    top: str
    bottom: str | None = None


class ScoreMetric(TableMetric):
    """A table metric whose cells are ratios of sums of named scores.

    Attributes:
        quantities: Its cells.
    """

    quantities: tuple[Quantity, ...]

    def __init__(self, order: Sequence[str], *, chosen: Sequence[str] | None = None) -> None:
        names = {name for q in self.quantities for name in (q.top, q.bottom) if name is not None}
        self._names = sorted(names)
        super().__init__(order, length=len(self._names) + 1)
        self.chosen = None if chosen is None else frozenset(chosen)
        self.columns = tuple(dict.fromkeys(q.column for q in self.quantities))
        self.entries = {(q.row, q.column.name): self.entry(q) for q in self.quantities}

    def entry(self, quantity: Quantity) -> Entry:
        """Return how a cell is computed from the rows of scores."""
        one = len(self._names)
        bottom = one if quantity.bottom is None else self._names.index(quantity.bottom)
        return Entry(ratio, (self._names.index(quantity.top), bottom))

    def add_scores(self, key: str, source: str, scores: Scores) -> None:
        """Add the scores of one clip; a score that is missing is NaN.

        Args:
            key: Name of the clip.
            source: Its source video.
            scores: Its scores.
        """
        self.clips.add(key, source, [*(scores.get(n, math.nan) for n in self._names), 1.0])

    def see_real(self, real: RealBatch) -> None:
        """Measure the clips of a batch."""
        own = self.own(real)
        if own is None:
            return
        for clip, scores in zip(own.clips, self.measure(own.clips), strict=True):
            self.add_scores(clip.start.key, clip.source, scores)

    def measure(self, clips: Sequence[RealClip]) -> Sequence[Scores]:
        """Return the scores of each clip."""
        raise NotImplementedError


_ERROR = Column(
    name="relative flow error", better="lower", group="flow",
    about="sum of absolute errors of the flow that comes back from z, behind the mask, over that "
    "of the true flow; 1 is no motion",
)  # fmt: skip
_SPEED = Column(
    name="speed of the flow", better="real", unit="px a frame", group="flow",
    about="mean displacement from frame to frame",
)  # fmt: skip


class FlowError(ScoreMetric):
    """Relative error of the flow that stage 1 reconstructs; 0 is exact, 1 is no motion.

    Args:
        stage1: Stage 1 in evaluation mode.
        order: Keys of all starts.
        chosen: Keys of the starts that are measured.
    """

    quantities = (
        Quantity(RECONSTRUCTION, _ERROR, "flow_error", "flow_motion"),
        Quantity(REAL_FLOW, _SPEED, "true_speed"),
    )
    rows = (Row(name=REAL_FLOW, kind="real", about="what stage 1 is trained on"),)

    def __init__(
        self, stage1: Stage1, order: Sequence[str], *, chosen: Sequence[str] | None = None
    ) -> None:
        super().__init__(order, chosen=chosen)
        self._stage1 = stage1

    def measure(self, clips: Sequence[RealClip]) -> list[Scores]:
        """Return error, motion and speed of each clip."""
        known = [with_flow(clip) for clip in clips]
        x0 = np.stack([clip.frames[0] for clip in known])
        return flow_scores(self._stage1, x0, np.stack([np.asarray(c.flow) for c in known]))


_LPIPS = Column(
    name="LPIPS of stage 1", better="lower", group="stage 1",
    about="LPIPS of some frames, before they are rounded to 8 bits",
)  # fmt: skip
_SAVED = Column(
    name="LPIPS saved by stage 1", better="higher", group="stage 1",
    about="(LPIPS of the frozen first frame - LPIPS) / LPIPS of the frozen first frame; at most 1",
)  # fmt: skip
_L1 = Column(
    name="L1 of stage 1", better="lower", digits=4, group="stage 1",
    about="mean absolute difference of the same frames, of values in [0, 1]",
)  # fmt: skip
_PSNR = Column(
    name="PSNR of stage 1", better="higher", unit="dB", digits=2, group="stage 1",
    about="peak signal-to-noise ratio of the same frames",
)  # fmt: skip


class Reconstruction(ScoreMetric):
    """How well stage 1 reconstructs clips, beside the frozen first frame and x0 warped.

    Args:
        stage1: Stage 1 in evaluation mode, float32.
        lpips: LPIPS network, on the same device.
        times: Frames that are compared, from 1 to T.
        order: Keys of all starts.
        chosen: Keys of the starts that are measured.
    """

    quantities = (
        *(
            Quantity(row, column, f"{kind}_{name}")
            for column, kind in ((_LPIPS, "lpips"), (_L1, "l1"), (_PSNR, "psnr"))
            for row, name in ((RECONSTRUCTION, "model"), (FROZEN, "frozen"), (WARPED, "warped"))
        ),
        Quantity(RECONSTRUCTION, _SAVED, "lpips_saved", "lpips_frozen"),
        Quantity(WARPED, _SAVED, "lpips_warped_saved", "lpips_frozen"),
    )
    rows = (
        Row(
            name=WARPED,
            kind="baseline",
            sees_real=True,
            about="x0 warped by the optical flow of the real clip: what a perfect flow would give",
        ),
    )

    def __init__(
        self,
        stage1: Stage1,
        lpips: LPIPS,
        *,
        times: Sequence[int],
        order: Sequence[str],
        chosen: Sequence[str] | None = None,
    ) -> None:
        super().__init__(order, chosen=chosen)
        self._stage1, self._lpips, self._times = stage1, lpips, tuple(times)

    def measure(self, clips: Sequence[RealClip]) -> list[Scores]:
        """Return LPIPS, L1 and PSNR of each clip."""
        return [
            reconstruction_scores(self._stage1, self._lpips, with_flow(clip), times=self._times)
            for clip in clips
        ]


_BEST = Column(
    name="LPIPS of the best sample", better="lower", group="samples",
    about="LPIPS of the nearest of K samples, of some frames before they are rounded to 8 bits",
)  # fmt: skip
_MEAN = Column(
    name="LPIPS of all samples", better="lower", group="samples", about="their mean LPIPS",
)  # fmt: skip
_BEST_SAVED, _MEAN_SAVED = (
    Column(
        name=f"LPIPS saved by {which}", better="higher", group="samples",
        about=f"(LPIPS of the frozen first frame - LPIPS of {which}) / LPIPS of the frozen first "
        "frame; at most 1",
    )
    for which in ("the best sample", "all samples")
)  # fmt: skip


class Samples(ScoreMetric):
    """LPIPS of samples of a start: of the best of K, and of all, beside the frozen first frame.

    Args:
        model: The model in evaluation mode, float32.
        lpips: LPIPS network, on the same device.
        num_samples: K.
        times: Frames that are compared, from 1 to T.
        seed: Seed of the samples.
        order: Keys of all starts.
        chosen: Keys of the starts that are measured.
    """

    quantities = (
        Quantity(MODEL, _BEST, "lpips_best"),
        Quantity(MODEL, _MEAN, "lpips_mean"),
        Quantity(FROZEN, _MEAN, "lpips_frozen"),
        Quantity(MODEL, _BEST_SAVED, "best_saved", "lpips_frozen"),
        Quantity(MODEL, _MEAN_SAVED, "mean_saved", "lpips_frozen"),
    )

    def __init__(
        self,
        model: WarpingModel,
        lpips: LPIPS,
        *,
        num_samples: int,
        times: Sequence[int],
        seed: int,
        order: Sequence[str],
        chosen: Sequence[str] | None = None,
    ) -> None:
        super().__init__(order, chosen=chosen)
        self._model, self._lpips, self._times = model, lpips, tuple(times)
        self._num_samples, self._seed = num_samples, seed

    def measure(self, clips: Sequence[RealClip]) -> list[Scores]:
        """Return LPIPS of the best sample, of all, and of the frozen first frame."""
        return [
            sample_scores(
                self._model, self._lpips, clip, num_samples=self._num_samples, times=self._times,
                seed=self._seed,
            )
            for clip in clips
        ]  # fmt: skip


def _motion_column(name: str, about: str, unit: str = "px a frame", digits: int = 3) -> Column:
    return Column(
        name=name, better="real", unit=unit, digits=digits, group="sample motion", about=about
    )


_STILL = "in regions where the optical flow of the real clip is zero; 0 is best"


class SampleMotion(ScoreMetric):
    """How the motions of a start's samples differ, and whether still regions stay still.

    Directions and drifts are those of the mean flow of the region that moves in the real clip.

    Args:
        model: The model in evaluation mode, float32.
        num_samples: K, at least 2.
        seed: Seed of the samples.
        order: Keys of all starts.
        chosen: Keys of the starts that are measured.
    """

    quantities = (
        Quantity(
            MODEL,
            _motion_column(
                "direction deviation", "circular standard deviation over samples; 95 by chance",
                unit="degrees", digits=1,
            ),
            "direction_spread",
        ),
        Quantity(MODEL, _motion_column("drift", "of the region as a whole"), "drift"),
        Quantity(
            MODEL, _motion_column("drift deviation", "its deviation over samples"), "drift_spread"
        ),
        Quantity(
            MODEL, _motion_column("speed of samples", "of the points of the region"), "speed"
        ),
        Quantity(
            MODEL, _motion_column("speed deviation", "its deviation over samples"), "speed_spread"
        ),
        Quantity(
            REAL_FLOW, _motion_column("speed of samples", "of the points of the region"),
            "true_speed",
        ),
        Quantity(MODEL, _motion_column("speed in still regions", _STILL), "still_speed"),
    )  # fmt: skip
    rows = FlowError.rows

    def __init__(
        self,
        model: WarpingModel,
        *,
        num_samples: int,
        seed: int,
        order: Sequence[str],
        chosen: Sequence[str] | None = None,
    ) -> None:
        super().__init__(order, chosen=chosen)
        self._model, self._num_samples, self._seed = model, num_samples, seed

    def measure(self, clips: Sequence[RealClip]) -> list[Scores]:
        """Return directions, drifts and speeds of each clip's samples."""
        return [
            motion_scores(
                self._model, with_flow(clip), num_samples=self._num_samples, seed=self._seed
            )
            for clip in clips
        ]


_NLL = Column(
    name="negative log-likelihood", better="lower", unit="nats a dimension", group="likelihood",
    about="held-out -log p(z | x0) over the length of z, of samples of q(z | X); may be negative",
)  # fmt: skip
_LESS = tuple(
    Column(
        name=f"flow less {name}", better="lower", unit="nats a dimension", group="likelihood",
        about=f"difference of the flow's to the {name}'s on the same samples: below 0, or the flow "
        "adds nothing",
    )
    for name in (GAUSSIAN, LINEAR)
)  # fmt: skip
_INVERSION = tuple(
    Column(
        name=f"inversion error of {name}", better="lower", digits=7, group="likelihood",
        about=f"largest absolute error of {name} after the flow's round trip, float32",
    )
    for name in ("nu", "z")
)  # fmt: skip


class Likelihood(ScoreMetric):
    """Held-out likelihood of z under the flow and under two priors fitted to training clips.

    Args:
        model: The model in evaluation mode, float32.
        priors: Priors from `fit_warping_priors`.
        seed: Seed of all draws.
        order: Keys of all starts.
        chosen: Keys of the starts that are measured.
    """

    quantities = (
        Quantity(MODEL, _NLL, "flow"),
        Quantity(GAUSSIAN, _NLL, "gaussian"),
        Quantity(LINEAR, _NLL, "linear"),
        Quantity(MODEL, _LESS[0], "less_gaussian"),
        Quantity(MODEL, _LESS[1], "less_linear"),
    )
    rows = (
        Row(name=GAUSSIAN, kind="baseline", about="a Gaussian that ignores x0"),
        Row(name=LINEAR, kind="baseline", about="a Gaussian around a linear map of x0's features"),
    )

    def __init__(
        self,
        model: WarpingModel,
        priors: FittedPriors,
        *,
        seed: int,
        order: Sequence[str],
        chosen: Sequence[str],
    ) -> None:
        super().__init__(order, chosen=chosen)
        self._model, self._seed, self._priors = model, seed, priors
        self._keys = list(chosen)
        self._noise = model.config.stage1.noise
        self._pools: Pools = self.sums.setdefault(("", "latents"), Pools())
        self._inversion: tuple[float, float] = (math.nan, math.nan)
        self.columns = (*self.columns, *_INVERSION)

    def see_real(self, real: RealBatch) -> None:
        """Encode the clips of a batch."""
        own = self.own(real)
        if own is not None:
            self._pools.add(own.keys, own.sources, encode_clips(self._model.stage1, own.clips))

    def cells_of(self, row: str, keys: Sequence[str]) -> Cells:
        """Return likelihoods, their differences, and with all clips the errors of inversion."""
        self._compute()
        cells = super().cells_of(row, keys)
        if row != MODEL or len(keys) < len(self._order):
            return cells
        num_clips, num_sources = len(self._pools), self._pools.num_sources
        errors = {
            column.name: Estimate(error, None, None, num_clips, num_sources)
            for column, error in zip(_INVERSION, self._inversion, strict=True)
        }
        return {**cells, **errors}

    def _compute(self) -> None:
        """Compute the scores of all clips at once: the same for any batches they came in."""
        if len(self.clips) == len(self._pools):
            return
        keys, sources, pool = self._pools.joined(self._keys)
        scores = likelihood_scores(
            self._model, self._priors, pool, noise=self._noise, seed=self._seed + 1
        )
        for key, source, of_clip in zip(keys, sources, scores, strict=True):
            self.add_scores(key, source, of_clip)
        self._inversion = inversion_errors(
            self._model, pool, noise=self._noise, seed=self._seed + 2
        )


class Pools:
    """Encoded clips by key."""

    def __init__(self) -> None:
        self._clips: dict[str, tuple[str, LatentPool]] = {}

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._clips)

    @property
    def num_sources(self) -> int:
        """Number of source videos."""
        return len({source for source, _ in self._clips.values()})

    def add(self, keys: Sequence[str], sources: Sequence[str], pool: LatentPool) -> None:
        """Add clips.

        Args:
            keys: Name of each clip.
            sources: Source video of each clip.
            pool: The encoded clips.
        """
        for i, (key, source) in enumerate(zip(keys, sources, strict=True)):
            row = {name: tensor[i : i + 1] for name, tensor in vars(pool).items()}
            self._clips[key] = (source, LatentPool(**row))

    def merge(self, other: "Pools") -> None:
        """Add the clips of another process."""
        self._clips |= other._clips

    def joined(self, order: Sequence[str]) -> tuple[list[str], list[str], LatentPool]:
        """Return keys, sources and encoded clips in an order of keys."""
        keys = [key for key in order if key in self._clips]
        found = [self._clips[key] for key in keys]
        return keys, [source for source, _ in found], LatentPool.joined([pool for _, pool in found])


def fit_warping_priors(model: WarpingModel, clips: ClipSet, *, num: int, seed: int) -> FittedPriors:
    """Fit the priors that the flow has to beat to clips of each training source.

    Args:
        model: The model in evaluation mode, float32.
        clips: Training clips, of two sources at least.
        num: Largest number of clips of a source.
        seed: Seed of the noise on z.

    Raises:
        UserError: There are fewer than two sources.
    """
    keys = set(first_of_each(clips.starts, num))
    starts = [start for start in clips.starts if start.key in keys]
    sources = list(dict.fromkeys(start.source for start in starts))
    if len(sources) < 2:
        raise UserError(
            f"at least 2 training sources are needed to fit the priors, got {len(sources)}: give "
            "more clips"
        )
    pools = [
        encode_clips(model.stage1, [clips.read(start) for start in batch])
        for batch in clips.batches(starts, size=_ENCODED_AT_ONCE)
    ]
    groups = torch.tensor([sources.index(start.source) for start in starts])
    noise = model.config.stage1.noise
    return fit_priors(LatentPool.joined(pools), groups, noise=noise, seed=seed)


def first_of_each(starts: Sequence[Start], num: int) -> list[str]:
    """Return the keys of the first starts of each source, at most `num` of one."""
    counts: dict[str, int] = {}
    chosen = []
    for start in starts:
        counts[start.source] = counts.get(start.source, 0) + 1
        if counts[start.source] <= num:
            chosen.append(start.key)
    return chosen


def require_warping(task: Task) -> WarpingModel:
    """Return the task's model if it is a warping model.

    Raises:
        UserError: It is another kind of model.
    """
    if not isinstance(task.model, WarpingModel):
        raise UserError(
            f"the model {task.model.name} does not warp x0 by a flow, which this metric needs: "
            "name weights such as drift"
        )
    return task.model
