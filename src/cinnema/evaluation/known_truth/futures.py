"""Whether samples reach the futures that a start really has, and no others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import draws, encoded, first_frames
from cinnema.evaluation.known_truth.clips import (
    Etas,
    KnownClip,
    Progress,
    batches,
    developed,
    say_nothing,
    told,
)
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.known_truth.results import Number, TaskResult
from cinnema.evaluation.statistics.bootstrap import Estimate, hash_of, mean, ratio, resampled
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import GaussianPrior, LatentPrior, LinearGaussianPrior

REAL, MODEL, FROZEN, GAUSSIAN, LINEAR = (
    "real against real", "model", "frozen first frame", "Gaussian prior", "linear-Gaussian prior",
)  # fmt: skip

Ends: TypeAlias = Float64[np.ndarray, "k 3"]
"""Where the hand ends in some futures of a start."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the end points of K samples lie among K true ones, averaged over starts.

    Attributes:
        covered: Share of true end points that have a sample within the radius.
        precise: Share of samples that have a true end point within it.
        to_sample: Mean distance of a true end point to the nearest sample.
        to_real: Mean distance of a sample to the nearest true end point.
        spread: Mean distance of two samples over that of two true end points: 1 is as diverse.
    """

    covered: Estimate
    precise: Estimate
    to_sample: Estimate
    to_real: Estimate
    spread: Estimate


@dataclass(frozen=True, kw_only=True)
class FuturesResult(TaskResult):
    """How well samples cover the true futures.

    Attributes:
        rows: By contestant; the real one is the ceiling.
        radius: Of reach.
        num_futures: K, futures on each side.
        unit: Of distances.
        reader: Mean distance of what the reader says of real last frames to the truth.
        drawn: How the model was told what to do.
    """

    title: ClassVar[str] = "Futures of one picture"

    rows: Mapping[str, Reach]
    radius: float
    num_futures: int
    unit: str
    reader: float
    drawn: str

    def numbers(self) -> Sequence[Number]:
        """Return shares and distances."""
        kinds = (
            ("share of true ends within reach of a sample", "covered", "", 2),
            ("share of samples within reach of a true end", "precise", "", 2),
            ("distance of a true end to the nearest sample", "to_sample", self.unit, 3),
            ("distance of a sample to the nearest true end", "to_real", self.unit, 3),
            ("distance of two samples, of that of two true ends", "spread", "", 2),
        )
        return [
            Number(what=what, of=of, estimate=getattr(reach, name), unit=unit, digits=digits)
            for what, name, unit, digits in kinds
            for of, reach in self.rows.items()
        ]

    def notes(self) -> Sequence[str]:
        """Return what reach is, and how the model was told."""
        return [
            f"{self.num_futures} samples beside {self.num_futures} true futures of each start; "
            f"reach is {self.radius:.3g} {self.unit}: half of the true ends have another half's "
            "within it",
            f"ends of samples, and of real against real, are read off the last frame; the reader "
            f"itself misses by {self.reader:.3g} {self.unit}",
            self.drawn,
        ]


@torch.inference_mode()
def fit_priors(
    model: VideoModel, clips: Sequence[KnownClip], *, seed: int, progress: Progress = say_nothing
) -> dict[str, LatentPrior]:
    """Fit the priors on z that a flow has to beat.

    Latents are drawn from q(z | X), as the flow was trained on; what the flow is told is x0.

    Args:
        model: In evaluation mode.
        clips: Of the training, of two sources at least.
        seed: Of the draws.
        progress: Told how many are encoded.

    Raises:
        UserError: They are of one source.
    """
    z, c = [], []
    for batch in batches(clips, 8, text="encoding training clips", progress=progress):
        z.append(encoded(model, batch, seed=seed).double().cpu())
        x0 = first_frames(model, batch)
        c.append(told(model, x0, _drawn_etas(model, batch, seed=seed, sample=0)).double().cpu())
    names = sorted({clip.source for clip in clips})
    groups = torch.tensor([names.index(clip.source) for clip in clips])
    latents, conditions = torch.cat(z), torch.cat(c)
    return {
        GAUSSIAN: GaussianPrior.fit(latents, conditions),
        LINEAR: LinearGaussianPrior.fit(latents, conditions, groups=groups),
    }


@torch.inference_mode()
def measure_futures(
    model: VideoModel,
    clips: Sequence[KnownClip],
    reader: EndPointReader,
    *,
    priors: Mapping[str, LatentPrior] | None = None,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = say_nothing,
) -> FuturesResult:
    """Compare where samples end with where the true futures of the same picture end.

    The futures of a start are cut in two halves of K. Everybody gives 2 K end points, which are
    held against the true ones: the first K against the first half, the others against the second.
    Real against real gives each half for the other.

    Args:
        model: In evaluation mode. The control is left out; of one that cannot do without, each
            sample draws its own.
        clips: With several futures of a start, each from its first frame.
        reader: Of end points.
        priors: On z, by name, from `fit_priors`.
        seed: Of all draws.
        batch_size: Clips at once.
        progress: Told how many samples are decoded.

    Raises:
        UserError: No start has four futures; the clips have no end points.
    """
    starts = group_futures(clips)
    fewest = min(map(len, starts))
    k = fewest // 2
    starts = [futures[: 2 * k] for futures in starts]
    first = [futures[0] for futures in starts]
    sampled = partial(_sampled, model, first, reader, num=2 * k, seed=seed, batch_size=batch_size,
                      progress=progress)  # fmt: skip
    ends = {
        REAL: _real_ends(starts, reader, k),
        MODEL: sampled(prior=None),
        FROZEN: [np.repeat(reader.read(clip.frames[:1]), 2 * k, axis=0) for clip in first],
    }
    for name, prior in (priors or {}).items():
        ends[name] = sampled(prior=prior)
    true = [_true_ends(futures) for futures in starts]
    radius = float(np.median(np.concatenate([_nearest(t, np.roll(t, k, axis=0), k) for t in true])))
    sources = [clip.source for clip in first]
    misses = np.concatenate(
        [np.linalg.norm(np.roll(r, k, axis=0) - t, axis=1)
         for r, t in zip(ends[REAL], true, strict=True)]
    )  # fmt: skip
    return FuturesResult(
        rows={name: _reach(true, own, k, radius, sources) for name, own in ends.items()},
        radius=radius,
        num_futures=k,
        unit=reader.config.unit,
        reader=float(misses.mean()),
        drawn=_how(model),
    )


def group_futures(clips: Sequence[KnownClip]) -> list[list[KnownClip]]:
    """Return the futures of each start that has four or more.

    Args:
        clips: With end points.

    Raises:
        UserError: No start has so many; the clips have no end points.
    """
    by_start: dict[str, list[KnownClip]] = {}
    for clip in clips:
        if clip.eta is None or len(clip.eta) != 3:
            raise UserError(
                "these clips do not say where an end effector is: name data of a robot, as "
                "`cinnema data simulate push` makes them"
            )
        if clip.future_of is not None:
            by_start.setdefault(clip.future_of, []).append(clip)
    starts = [futures for futures in by_start.values() if len(futures) >= 4]
    if not starts:
        raise UserError(
            "no start has 4 futures or more, which are needed to hold samples and real ones "
            "against real ones: simulate with --futures 8"
        )
    return starts


def _true_ends(futures: Sequence[KnownClip]) -> Ends:
    ends = [clip.eta for clip in futures if clip.eta is not None]
    return np.stack(ends).astype(np.float64)


def _real_ends(starts: Sequence[Sequence[KnownClip]], reader: EndPointReader, k: int) -> list[Ends]:
    """What the reader says of the real last frames, each half in the other's place."""
    read = [reader.read(np.stack([clip.frames[-1] for clip in futures])) for futures in starts]
    return [np.roll(ends, k, axis=0) for ends in read]


def _sampled(
    model: VideoModel,
    clips: Sequence[KnownClip],
    reader: EndPointReader,
    *,
    prior: LatentPrior | None,
    num: int,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> list[Ends]:
    """Where samples of the model, or of a prior on its z, end: `num` of each clip's picture."""
    jobs = [(clip, sample) for clip in clips for sample in range(num)]
    text = "sampling futures" if prior is None else "sampling futures of a simple prior"
    parts = []
    for batch in batches(jobs, batch_size, text=text, progress=progress):
        chosen = [clip for clip, _ in batch]
        x0 = first_frames(model, chosen)
        z = _latents(model, batch, x0, prior, seed)
        last = [video[-1] for video in developed(model, x0, z)]
        parts.append(reader.read(np.stack(last)))
    return list(np.concatenate(parts).reshape(len(clips), num, 3))


def _latents(
    model: VideoModel,
    jobs: Sequence[tuple[KnownClip, int]],
    x0: Float[Tensor, "b 3 h w"],
    prior: LatentPrior | None,
    seed: int,
) -> Float[Tensor, "b z"]:
    etas: Etas | None = None
    rows = [_drawn_etas(model, [clip], seed=seed, sample=sample) for clip, sample in jobs]
    if rows[0] is not None:
        etas = [row[0] for row in rows if row is not None]
    c = told(model, x0, etas)
    if prior is None:
        nu = [draws(model, [clip], seed=seed, purpose=f"future {n}") for clip, n in jobs]
        return model.to_latent(torch.cat(nu).to(x0), c)[0]
    exact = c.double().cpu()
    parts = [
        prior.sample(exact[i : i + 1], generator=_generator(clip, seed, sample))
        for i, (clip, sample) in enumerate(jobs)
    ]
    return torch.cat(parts).to(x0)


def _drawn_etas(
    model: VideoModel, clips: Sequence[KnownClip], *, seed: int, sample: int
) -> list[Tensor] | None:
    """Controls for a model that cannot do without; None for others."""
    if model.control is None or model.control.optional:
        return None
    drawn = [model.draw_eta(generator=_generator(clip, seed, sample)) for clip in clips]
    return [eta for eta in drawn if eta is not None]


def _generator(clip: KnownClip, seed: int, sample: int) -> torch.Generator:
    number = hash_of(f"{seed}/futures {sample}/{clip.start.key}")
    return torch.Generator().manual_seed(number % 2**63)


def _how(model: VideoModel) -> str:
    if model.control is None:
        return "the model is told x0 alone"
    if model.control.optional:
        return f"the model is told no {model.control.name}: nu decides everything"
    return f"the model cannot do without the {model.control.name}: each sample draws its own"


def _nearest(ends: Ends, others: Ends, k: int) -> NDArray[np.float64]:
    """Distance of each end to the nearest of the others, half by half."""
    apart = np.linalg.norm(ends[:, None] - others[None], axis=-1)
    return np.concatenate([apart[:k, :k].min(axis=1), apart[k:, k:].min(axis=1)])


def _reach(
    true: Sequence[Ends], own: Sequence[Ends], k: int, radius: float, sources: Sequence[str]
) -> Reach:
    rows = np.array([_row(t, o, k, radius) for t, o in zip(true, own, strict=True)])

    def averaged(column: int) -> Estimate:
        return resampled(rows[:, column : column + 1], sources, mean)

    return Reach(
        covered=averaged(0),
        precise=averaged(1),
        to_sample=averaged(2),
        to_real=averaged(3),
        spread=resampled(rows[:, 4:], sources, ratio),
    )


def _row(true: Ends, own: Ends, k: int, radius: float) -> list[float]:
    to_sample, to_real = _nearest(true, own, k), _nearest(own, true, k)
    return [
        float((to_sample <= radius).mean()),
        float((to_real <= radius).mean()),
        float(to_sample.mean()),
        float(to_real.mean()),
        _spread(own),
        _spread(true),
    ]


def _spread(ends: Ends) -> float:
    """Mean distance of two of them."""
    pairs = list(combinations(range(len(ends)), 2))
    return float(np.mean([np.linalg.norm(ends[i] - ends[j]) for i, j in pairs]))
