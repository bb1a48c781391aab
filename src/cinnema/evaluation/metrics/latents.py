"""The flow on held-out latents: likelihood, inversion, whiteness of nu, colour of x0 in nu."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import (
    StandardLatent,
    condition,
    draws,
    encoded,
    first_frames,
)
from cinnema.evaluation.likelihood import negative_log_likelihood
from cinnema.evaluation.metrics.base import Metric, RealBatch, Task, changed_ratio
from cinnema.evaluation.priors import BlockPrior, described
from cinnema.evaluation.results import MODEL, Cell, Cells, Column, Curve, Missing
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, Estimate, hash_of
from cinnema.evaluation.statistics.feature_sets import FeatureSample
from cinnema.models.flow.priors import LinearGaussianPrior

_KEPT = 2048
_NUM_FOLDS = 4
_PROBABILITIES = (np.arange(64) + 0.5) / 64
_MIN_SOURCES = 2 * _NUM_FOLDS  # for a probe that leaves sources out

BITS, INVERSION, KS = "bits a dimension", "inversion error", "nu off normal"
COLOUR_OF_NU, COLOUR_OF_Z = "colour from nu", "colour from z"


class Latents(Metric):
    """Likelihood, inversion error and whiteness of the flow on latents of real clips.

    Latents are drawn from q(z | X), as the flow was trained on, one draw for each clip.

    Args:
        task: The evaluation; its priors are what the flow has to beat.
    """

    columns = (
        Column(
            name=BITS,
            better="lower",
            group="latents",
            about="held-out -log2 p(z | x0, eta) over the length of z, or of the part of it that "
            "the flow maps and x0 shows; a density, so it may be negative",
        ),
        Column(
            name=INVERSION,
            better="lower",
            digits=7,
            group="latents",
            about="largest absolute error of z to nu and back, and of nu to z and back, float32",
        ),
        Column(
            name=KS,
            better="lower",
            group="latents",
            about="Kolmogorov-Smirnov distance of all entries of nu to N(0, 1); 0 is white",
        ),
        Column(
            name=COLOUR_OF_NU,
            better="lower",
            digits=2,
            group="latents",
            about="R^2 of a ridge regression of x0's mean colour on nu, on source videos left out "
            "of the fit; 0 or less: nu does not contain it",
        ),
        Column(
            name=COLOUR_OF_Z,
            better="lower",
            digits=2,
            group="latents",
            about="the same regression on z, from which the flow has not removed x0",
        ),
    )

    def __init__(self, task: Task) -> None:
        super().__init__()
        self._model, self._seed = task.model, task.seed
        priors = {} if task.training is None else task.training.priors
        self._densities: dict[str, Callable[..., Tensor]] = {
            StandardLatent.name: BlockPrior(self._model).log_prob,
            **{row: prior.log_prob for row, prior in priors.items()},
        }

    @torch.inference_mode()
    def see_real(self, real: RealBatch) -> None:
        """Add the latents of real clips."""
        model = self._model
        x0 = first_frames(model, real.clips)
        c = condition(model, real.clips, x0)
        z = encoded(model, real.clips, seed=self._seed)
        nu, _ = model.to_residual(z, c)
        known = described(model, c).cpu()
        self._add_bits(MODEL, real, z, partial(model.log_prob, c=c), known)
        exact = c.double().cpu()
        for row, log_prob in self._densities.items():
            self._add_bits(row, real, z.double().cpu(), partial(log_prob, c=exact), known)
        drawn = draws(model, real.clips, seed=self._seed, purpose="inversion").to(nu)
        errors = torch.stack(
            [
                (model.to_latent(nu, c)[0] - z).abs().amax(dim=1),
                (model.to_residual(model.to_latent(drawn, c)[0], c)[0] - drawn).abs().amax(dim=1),
            ]
        ).amax(dim=0)
        largest = self.sums.setdefault((MODEL, INVERSION), Largest())
        sample = self.sums.setdefault((MODEL, "nu"), FeatureSample(_KEPT))
        colour, end = x0.mean(dim=(2, 3)), model.flow_dim
        own = nu[:, :end].cpu().masked_fill(~known, math.nan)
        sample.add(_named(real), torch.cat([own, z[:, :end].to(own), colour.to(own)], dim=1))
        for source, error in zip(real.sources, errors.tolist(), strict=True):
            largest.add(source, error)

    def _add_bits(
        self,
        row: str,
        real: RealBatch,
        z: Tensor,
        log_prob: Callable[[Tensor], Tensor],
        known: Tensor,
    ) -> None:
        sums = self.sums.setdefault((row, BITS), ClusteredSums(2))
        nats = negative_log_likelihood(log_prob, [z], dim=known.sum(1))[0].double()
        for source, value in zip(real.sources, (nats / math.log(2)).tolist(), strict=True):
            if math.isfinite(value):  # else x0 shows nothing that moves
                sums.add(source, [value, 1.0])

    def cells(self, row: str) -> Cells:
        """Return the bits of all rows, and the other columns of the model."""
        bits = self.sums.get((row, BITS))
        cells: dict[str, Cell] = {} if bits is None else {BITS: bits.ratio()}
        if row != MODEL or (row, "nu") not in self.sums:
            return cells
        counts = {"num_clips": bits.num_clips, "num_sources": bits.num_sources} if bits else {}
        nu, z, colour, groups = self._rows()
        known = nu[nu.isfinite()]
        if not len(known):
            nothing = Missing(reason="x0 of these clips shows nothing that moves: give others")
            return {column.name: nothing for column in self.columns}
        return cells | {
            INVERSION: self.sums[row, INVERSION].estimate(),
            KS: Estimate(distance_to_normal(known), None, None, **counts),
            COLOUR_OF_NU: probe(_completed(nu), colour, groups),
            COLOUR_OF_Z: probe(z, colour, groups),
        }

    def changes(self, row: str, before: Metric) -> Mapping[str, Estimate]:
        """Return the paired difference of the bits to those of another model."""
        change = changed_ratio(self, before, (row, BITS))
        return {} if change is None else {BITS: change}

    def _rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what was kept: nu, z, the colour of x0, and the number of the source.

        nu is NaN where it describes nothing that x0 shows.
        """
        sample, dim = self.sums[MODEL, "nu"], self._model.flow_dim
        nu, z, colour = sample.features.double().split([dim, dim, 3], dim=1)
        sources = [key.rpartition("\n")[0] for key in sample.keys]
        numbers = {name: number for number, name in enumerate(sorted(set(sources), key=hash_of))}
        return nu, z, colour, torch.tensor([numbers[s] for s in sources])

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield the quantiles of nu against those of a normal distribution."""
        del rows
        if (MODEL, "nu") not in self.sums:
            return
        nu = self._rows()[0]
        nu = nu[nu.isfinite()]
        p = torch.from_numpy(_PROBABILITIES)
        normal = math.sqrt(2) * torch.erfinv(2 * p - 1)
        observed = np.quantile(nu.numpy(), _PROBABILITIES)
        yield Curve(
            title="Quantiles of nu",
            x_label="of N(0, 1)",
            y_label="of nu",
            x={MODEL: tuple(normal.tolist())},
            y={MODEL: tuple(map(float, observed))},
            style="points",
            diagonal=True,
            about="held-out clips, all entries of nu together; on the line nu is standard normal",
        )


@dataclass
class Largest:
    """The largest of some numbers, with the numbers of clips and sources."""

    value: float = float("-inf")
    num_clips: int = 0

    def __post_init__(self) -> None:
        self._sources: set[int] = set()

    def add(self, source: str, value: float) -> None:
        """Add the number of a clip."""
        self.value = max(self.value, value)
        self.num_clips += 1
        self._sources.add(hash_of(source))

    def merge(self, other: "Largest") -> None:
        """Add the numbers of another process."""
        self.value = max(self.value, other.value)
        self.num_clips += other.num_clips
        self._sources |= other._sources

    def estimate(self) -> Estimate:
        """Return the largest number."""
        return Estimate(self.value, None, None, self.num_clips, len(self._sources))


def _completed(nu: Float[Tensor, "n z"]) -> Float[Tensor, "n z"]:
    """Replace what describes nothing by noise: it is the flow's answer to a constant."""
    noise = torch.randn(nu.shape, generator=torch.Generator().manual_seed(0)).to(nu)
    return torch.where(nu.isfinite(), nu, noise)


def _named(real: RealBatch) -> list[str]:
    return [f"{s}\n{k}" for s, k in zip(real.sources, real.keys, strict=True)]


def distance_to_normal(nu: Float[Tensor, "*n"]) -> float:
    """Return the Kolmogorov-Smirnov distance of all entries to N(0, 1), in [0, 1]."""
    x = nu.flatten().sort().values
    normal = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    steps = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return float(torch.maximum(steps[1:] - normal, normal - steps[:-1]).max())


def probe(x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], groups: Int[Tensor, " n"]) -> Cell:
    """Return R^2 of a ridge regression of y on x, on sources that are left out of its fit.

    Args:
        x: Regressors.
        y: Targets.
        groups: Number of each row's source; too few give a reason in place of the number.
    """
    if len(groups.unique()) < _MIN_SOURCES:
        return Missing(reason=f"a probe needs {_MIN_SOURCES} source videos: give more")
    folds = groups % _NUM_FOLDS
    errors, spread = 0.0, 0.0
    for fold in range(_NUM_FOLDS):
        out = folds == fold
        try:
            fitted = LinearGaussianPrior.fit(y[~out], x[~out], groups=groups[~out])
        except UserError as error:
            return Missing(reason=str(error))
        predicted = fitted.sample(x[out], temperature=0.0)
        errors += float((y[out] - predicted).square().sum())
        spread += float((y[out] - y[~out].mean(dim=0)).square().sum())
    value = 1 - errors / spread if spread else float("nan")
    return Estimate(value, None, None, len(x), len(groups.unique()))
