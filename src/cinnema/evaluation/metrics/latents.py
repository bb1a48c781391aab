"""The flow itself: held-out likelihood, inversion, whiteness of nu, and what nu tells of x0."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import condition, draws, encoded, first_frames
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch
from cinnema.evaluation.results import Cell, Column, Curve, Missing
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, Estimate, hash_of
from cinnema.evaluation.statistics.feature_sets import FeatureSample
from cinnema.models.base import VideoModel
from cinnema.models.flow.priors import LatentPrior, LinearGaussianPrior

_KEPT = 2048
_NUM_FOLDS = 4
_PROBABILITIES = tuple((i + 0.5) / 64 for i in range(64))
_MIN_SOURCES = 2 * _NUM_FOLDS  # below, a probe that leaves sources out says nothing

BITS, INVERSION, KS = "bits a dimension", "inversion error", "nu off normal"
COLOUR_OF_NU, COLOUR_OF_Z = "colour from nu", "colour from z"


class Latents(Metric):
    """What the flow makes of the real clips' latents.

    Latents are drawn from q(z | X), as the flow was trained on, one draw a clip.

    Args:
        model: In evaluation mode.
        row: The model's row.
        priors: What the flow has to beat, by row.
        seed: Of the draws.
    """

    columns = (
        Column(
            name=BITS,
            better="lower",
            group="latents",
            about="held-out -log2 p(z | x0, eta) over the length of z; a density, so it may be "
            "below 0",
        ),
        Column(
            name=INVERSION,
            better="lower",
            digits=7,
            group="latents",
            about="largest error of z to nu and back, and of nu to z and back, float32",
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
            about="R^2 of x0's mean colour, read off nu by ridge regression on other source "
            "videos; 0 or less: nu is free of it",
        ),
        Column(
            name=COLOUR_OF_Z,
            better="lower",
            digits=2,
            group="latents",
            about="the same read off z, before the flow has taken x0 out",
        ),
    )

    def __init__(
        self, model: VideoModel, *, row: str, priors: Mapping[str, LatentPrior], seed: int
    ) -> None:
        super().__init__()
        self._model, self._row, self._priors, self._seed = model, row, priors, seed

    @torch.inference_mode()
    def see_real(self, real: RealBatch) -> None:
        """Take in the latents of real clips."""
        model = self._model
        x0 = first_frames(model, real.clips)
        c = condition(model, real.clips, x0)
        z = encoded(model, real.clips, seed=self._seed)
        nu, log_det = model.to_residual(z, c)
        self._add_bits(self._row, real, _normal_log_prob(nu) + log_det.double().cpu())
        for row, prior in self._priors.items():
            self._add_bits(row, real, prior.log_prob(z.double().cpu(), c.double().cpu()))
        drawn = draws(model, real.clips, seed=self._seed, purpose="inversion").to(nu)
        errors = torch.stack(
            [
                (model.to_latent(nu, c)[0] - z).abs().amax(dim=1),
                (model.to_residual(model.to_latent(drawn, c)[0], c)[0] - drawn).abs().amax(dim=1),
            ]
        ).amax(dim=0)
        largest = self.sums.setdefault((self._row, INVERSION), Largest())
        sample = self.sums.setdefault((self._row, "nu"), FeatureSample(_KEPT))
        colour = x0.mean(dim=(2, 3))
        sample.add(_named(real), torch.cat([nu, z, colour.to(nu)], dim=1))
        for source, error in zip(real.sources, errors.tolist(), strict=True):
            largest.add(source, error)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Look away: only real clips have latents."""

    def _add_bits(self, row: str, real: RealBatch, log_prob: Tensor) -> None:
        sums = self.sums.setdefault((row, BITS), ClusteredSums(2))
        bits = -log_prob.double() / (self._model.z_dim * math.log(2))
        for source, value in zip(real.sources, bits.tolist(), strict=True):
            sums.add(source, [value, 1.0])

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the bits of all priors, and the rest of the model."""
        bits = self.sums.get((row, BITS))
        cells: dict[str, Cell] = {} if bits is None else {BITS: bits.ratio()}
        if row != self._row or (row, "nu") not in self.sums:
            return cells
        counts = {"num_clips": bits.num_clips, "num_sources": bits.num_sources} if bits else {}
        nu, z, colour, groups = self._rows()
        return cells | {
            INVERSION: self.sums[row, INVERSION].estimate(),
            KS: Estimate(_off_normal(nu), None, None, **counts),
            COLOUR_OF_NU: _probe(nu, colour, groups),
            COLOUR_OF_Z: _probe(z, colour, groups),
        }

    def _rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What was kept: nu, z, the colour of x0, and the number of the source."""
        sample, dim = self.sums[self._row, "nu"], self._model.z_dim
        nu, z, colour = sample.features.double().split([dim, dim, 3], dim=1)
        sources = [key.rpartition("\n")[0] for key in sample.keys]
        numbers = {name: number for number, name in enumerate(sorted(set(sources), key=hash_of))}
        return nu, z, colour, torch.tensor([numbers[s] for s in sources])

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield the quantiles of nu beside those of a normal."""
        del rows
        if (self._row, "nu") not in self.sums:
            return
        nu = self._rows()[0].flatten()
        p = torch.tensor(_PROBABILITIES, dtype=torch.float64)
        normal = math.sqrt(2) * torch.erfinv(2 * p - 1)
        # numpy's quantile has no limit on the number of values, torch's has.
        seen = np.quantile(nu.numpy(), p.numpy())
        yield Curve(
            title="Quantiles of nu",
            x_label="of N(0, 1)",
            y_label="of nu",
            x={self._row: tuple(normal.tolist())},
            y={self._row: tuple(map(float, seen))},
            style="points",
            diagonal=True,
            about="held-out clips, all entries of nu together; on the line nu is white",
        )


@dataclass
class Largest:
    """The largest of numbers, and of how many clips and sources."""

    value: float = float("-inf")
    num_clips: int = 0

    def __post_init__(self) -> None:
        self._sources: set[int] = set()

    def add(self, source: str, value: float) -> None:
        """Take a clip's number in."""
        self.value = max(self.value, value)
        self.num_clips += 1
        self._sources.add(hash_of(source))

    def merge(self, other: "Largest") -> None:
        """Take in all that another process has seen."""
        self.value = max(self.value, other.value)
        self.num_clips += other.num_clips
        self._sources |= other._sources

    def estimate(self) -> Estimate:
        """Return the largest number."""
        return Estimate(self.value, None, None, self.num_clips, len(self._sources))


class StandardNormal:
    """N(0, I), as a prior."""

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of each latent, in nats; c is not used."""
        del c
        return _normal_log_prob(z)

    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b z"]:
        """Not to be asked for: the length of z is not known here."""
        raise NotImplementedError


def _normal_log_prob(z: Tensor) -> Tensor:
    z = z.double().cpu()
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=1)


def _named(real: RealBatch) -> list[str]:
    return [f"{s}\n{k}" for s, k in zip(real.sources, real.keys, strict=True)]


def _off_normal(nu: Float[Tensor, "n z"]) -> float:
    """Largest gap between the cumulative distribution of all entries and the normal one."""
    x = nu.flatten().sort().values
    normal = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    steps = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return float(torch.maximum(steps[1:] - normal, normal - steps[:-1]).max())


def _probe(x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], groups: Int[Tensor, " n"]) -> Any:  # noqa: ANN401 - a Cell, which is a union the checker takes apart slowly
    """R^2 of y from x on sources that the regression has not seen."""
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
