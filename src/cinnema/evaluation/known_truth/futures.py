"""Coverage and precision of samples, compared with all real futures of the same start."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.decoding import Controls, conditioned, decode_latent
from cinnema.evaluation.known_truth.end_point import require_end_points, require_reader
from cinnema.evaluation.metrics.base import Metric, RealBatch, Task
from cinnema.evaluation.priors import GAUSSIAN, LINEAR, fit_priors
from cinnema.evaluation.protocol import ClipSet, RealClip, Start
from cinnema.evaluation.results import FROZEN, MODEL, REAL, Cells, Column, Row
from cinnema.evaluation.statistics.bootstrap import (
    ClusteredRows,
    hash_of,
    mean,
    ratio,
    resampled,
)
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LatentPrior

_LEAST_FUTURES = 4
_PRIOR_CLIPS = 256
_PRIOR_BATCH = 8

Ends: TypeAlias = Float64[np.ndarray, "k 3"]
"""End points of the hand, one for each future of a start."""


class Futures(Metric):
    """Comparison of the end points of K samples with K true ones of the same start.

    The futures of a start are divided into two halves of K. The model and each baseline draw 2 K
    end points: the first K are compared with the first half, the others with the second. The row
    of real futures compares the two halves, which is the best possible result. The control is left
    out; a model that needs it draws one for each sample. End points are predicted from the last
    frame. Two points match within a radius, chosen such that half of the true end points have a
    match in the other half.

    Args:
        task: The evaluation, of clips with several futures of a start, and with a reader of end
            points.

    Raises:
        UserError: No start has four futures, or the clips have no end points.
    """

    rows = (
        Row(name=GAUSSIAN, kind="baseline", about="z from a Gaussian fitted to training clips"),
        Row(name=LINEAR, kind="baseline", about="z from a Gaussian around a linear map of x0"),
    )

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._model, self._clips, self._seed = task.model, task.clips, task.seed
        self._batch_size, self._order = task.batch_size, task.order
        self._starts = group_futures(task.clips)
        self._k = min(map(len, self._starts.values())) // 2
        self.chosen = frozenset(self._starts)
        self._priors = _training_priors(task)
        self._reader = require_reader(task)
        self._names = (REAL, MODEL, FROZEN, *self._priors)
        length = 6 * self._k * (1 + len(self._names))
        self._ends: ClusteredRows = self.sums.setdefault(("", "ends"), ClusteredRows(length))
        self.columns = _columns(self._reader.config.unit)

    def see_real(self, real: RealBatch) -> None:
        """Read the end points of the chosen starts' samples and true futures."""
        own = self.own(real)
        if own is None:
            return
        with torch.inference_mode():
            rows = self._measure(own.clips)
        for clip, row in zip(own.clips, rows, strict=True):
            self._ends.add(clip.start.key, clip.source, row)

    def _measure(self, clips: Sequence[RealClip]) -> list[NDArray[np.float64]]:
        """Return the true end points of each start, and those of every row of the table."""
        k = self._k
        futures = [
            [self._clips.read(start) for start in self._starts[clip.start.key][: 2 * k]]
            for clip in clips
        ]
        true = [np.stack([np.asarray(c.eta) for c in of]).astype(np.float64) for of in futures]
        read = [self._reader.read(np.stack([clip.frames[-1] for clip in of])) for of in futures]
        ends = {
            REAL: [np.roll(seen, k, axis=0) for seen in read],
            MODEL: self._sampled(clips, prior=None),
            FROZEN: [
                np.repeat(self._reader.read(clip.frames[:1]), 2 * k, axis=0) for clip in clips
            ],
        }
        ends |= {name: self._sampled(clips, prior=p) for name, p in self._priors.items()}
        return [
            np.concatenate([true[i], *(ends[name][i] for name in self._names)]).ravel()
            for i in range(len(clips))
        ]

    def _sampled(self, clips: Sequence[RealClip], *, prior: LatentPrior | None) -> list[Ends]:
        """Return the end points of 2 K samples of the model, or of a prior on z, per picture."""
        num = 2 * self._k
        jobs = [(clip, sample) for clip in clips for sample in range(num)]
        parts = []
        for first in range(0, len(jobs), self._batch_size):
            batch = jobs[first : first + self._batch_size]
            x0 = first_frames(self._model, [clip for clip, _ in batch])
            z = _latents(self._model, batch, x0, prior, self._seed)
            last = [video[-1] for video in decode_latent(self._model, x0, z)]
            parts.append(self._reader.read(np.stack(last)))
        return list(np.concatenate(parts).reshape(len(clips), num, 3))

    def cells(self, row: str) -> Cells:
        """Return shares, distances and relative spread."""
        found = self._found()
        if found is None or row not in self._names:
            return {}
        true, ends, sources, radius = found
        table = np.array(
            [_row(t, o, self._k, radius) for t, o in zip(true, ends[row], strict=True)]
        )
        names = [column.name for column in self.columns]
        cells = {
            name: resampled(table[:, i : i + 1], sources, mean) for i, name in enumerate(names[:4])
        }
        return {**cells, names[4]: resampled(table[:, 4:], sources, ratio)}

    def _found(self) -> tuple[list[Ends], Mapping[str, list[Ends]], list[str], float] | None:
        """Return true ends, ends by row, sources and the radius; None before any clip."""
        table, sources = self._ends.table(self._order)
        if not len(table):
            return None
        blocks = table.reshape(len(table), 1 + len(self._names), 2 * self._k, 3)
        true = list(blocks[:, 0])
        ends = {name: list(blocks[:, 1 + i]) for i, name in enumerate(self._names)}
        k = self._k
        radius = np.median(np.concatenate([_nearest(t, np.roll(t, k, axis=0), k) for t in true]))
        return true, ends, sources, float(radius)

    def notes(self) -> list[str]:
        """Return the radius, the error of the reader, and how the model was conditioned."""
        found = self._found()
        if found is None:
            return []
        true, ends, _, radius = found
        misses = [np.roll(r, self._k, axis=0) - t for r, t in zip(ends[REAL], true, strict=True)]
        error = float(np.linalg.norm(np.concatenate(misses), axis=1).mean())
        unit = self._reader.config.unit
        return [
            f"futures: {self._k} samples are compared with {self._k} true futures of each start; "
            f"the radius is {radius:.3g} {unit}",
            "futures: ends of samples, and of real against real, are read off the last frame, with "
            f"an error of {error:.3g} {unit}",
            f"futures: {_conditioning(self._model)}",
        ]


def _columns(unit: str) -> tuple[Column, ...]:
    return (
        Column(
            name="true ends with a sample near", better="higher", digits=2, group="futures",
            about="share of true end points that have a sample within the radius, in [0, 1]",
        ),
        Column(
            name="samples with a true end near", better="higher", digits=2, group="futures",
            about="share of samples that have a true end point within the radius, in [0, 1]",
        ),
        Column(
            name="distance to the nearest sample", better="lower", unit=unit, group="futures",
            about="mean distance of a true end point to the nearest sample",
        ),
        Column(
            name="distance to the nearest true end", better="lower", unit=unit, group="futures",
            about="mean distance of a sample to the nearest true end point",
        ),
        Column(
            name="relative spread", better="real", digits=2, group="futures",
            about="mean distance of two samples over that of two true end points; 1 is as diverse",
        ),
    )  # fmt: skip


def group_futures(clips: ClipSet) -> dict[str, list[Start]]:
    """Return the futures of each start that has four or more, by the key of the first of them.

    Args:
        clips: Clips with end points.

    Raises:
        UserError: No start has four futures, or the clips have no end points.
    """
    require_end_points(clips)
    by_name: dict[str, list[Start]] = {}
    for start in clips.starts:
        name = clips.shared_start(start)
        if name is not None:
            by_name.setdefault(name, []).append(start)
    groups = {of[0].key: of for of in by_name.values() if len(of) >= _LEAST_FUTURES}
    if not groups:
        raise UserError(
            f"no start has {_LEAST_FUTURES} futures or more, which are needed to compare samples "
            "and real ones with real ones: simulate with --futures 8"
        )
    return groups


@torch.inference_mode()
def _training_priors(task: Task) -> dict[str, LatentPrior]:
    """Fit the priors on z that a flow has to beat, where there are training clips.

    Latents are drawn from q(z | X), as the flow was trained on; the condition is x0.
    """
    if task.training_clips is None:
        return {}
    model, starts = task.model, list(task.training_clips.starts)
    if len(starts) > _PRIOR_CLIPS:
        chosen = sorted(starts, key=lambda start: hash_of(start.key))[:_PRIOR_CLIPS]
        starts = sorted(chosen, key=lambda start: start.key)
    z, c = [], []
    for first in range(0, len(starts), _PRIOR_BATCH):
        clips = [task.training_clips.read(s) for s in starts[first : first + _PRIOR_BATCH]]
        z.append(encoded(model, clips, seed=task.seed).double().cpu())
        etas = _drawn_controls(model, clips, seed=task.seed, sample=0)
        c.append(conditioned(model, first_frames(model, clips), etas).double().cpu())
        task.progress(
            "encoding training clips", min(first + _PRIOR_BATCH, len(starts)), len(starts)
        )
    names = sorted({start.source for start in starts})
    groups = torch.tensor([names.index(start.source) for start in starts])
    latents, conditions = torch.cat(z), torch.cat(c)
    return fit_priors(model, latents, conditions, groups)


def _latents(
    model: VideoModel,
    jobs: Sequence[tuple[RealClip, int]],
    x0: Float[Tensor, "b 3 h w"],
    prior: LatentPrior | None,
    seed: int,
) -> Float[Tensor, "b z"]:
    etas: Controls | None = None
    rows = [_drawn_controls(model, [clip], seed=seed, sample=sample) for clip, sample in jobs]
    if rows[0] is not None:
        etas = [row[0] for row in rows if row is not None]
    c = conditioned(model, x0, etas)
    if prior is None:
        nu = [draws(model, [clip], seed=seed, purpose=f"future {n}") for clip, n in jobs]
        return model.to_latent(torch.cat(nu).to(x0), c)[0]
    exact = c.double().cpu()
    parts = [
        prior.sample(exact[i : i + 1], generator=_generator(clip, seed, sample))
        for i, (clip, sample) in enumerate(jobs)
    ]
    return torch.cat(parts).to(x0)


def _drawn_controls(
    model: VideoModel, clips: Sequence[RealClip], *, seed: int, sample: int
) -> list[Tensor] | None:
    """Draw controls for a model that needs one; None for other models."""
    if model.control is None or model.control.optional:
        return None
    drawn = [model.draw_eta(generator=_generator(clip, seed, sample)) for clip in clips]
    return [eta for eta in drawn if eta is not None]


def _generator(clip: RealClip, seed: int, sample: int) -> torch.Generator:
    number = hash_of(f"{seed}/futures {sample}/{clip.start.key}")
    return torch.Generator().manual_seed(number % 2**63)


def _conditioning(model: VideoModel) -> str:
    if model.control is None:
        return "the model is conditioned on x0 alone"
    if model.control.optional:
        return f"the model is used without the {model.control.name}: nu determines the motion"
    return f"the model needs the {model.control.name}: each sample draws its own"


def _nearest(ends: Ends, others: Ends, k: int) -> NDArray[np.float64]:
    """Return the distance of each end to the nearest of the others, half by half."""
    apart = np.linalg.norm(ends[:, None] - others[None], axis=-1)
    return np.concatenate([apart[:k, :k].min(axis=1), apart[k:, k:].min(axis=1)])


def _row(true: Ends, own: Ends, k: int, radius: float) -> list[float]:
    """Return shares, distances, and the mean distances of two of each side."""
    to_sample, to_real = _nearest(true, own, k), _nearest(own, true, k)
    return [
        float((to_sample <= radius).mean()),
        float((to_real <= radius).mean()),
        float(to_sample.mean()),
        float(to_real.mean()),
        _mean_distance(own),
        _mean_distance(true),
    ]


def _mean_distance(ends: Ends) -> float:
    """Return the mean distance of two of the points."""
    pairs = list(combinations(range(len(ends)), 2))
    return float(np.mean([np.linalg.norm(ends[i] - ends[j]) for i, j in pairs]))
