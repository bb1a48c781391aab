"""All that is kept of the features of one set of clips, and distances with intervals from it.

Nothing here grows with the number of clips but one hash for each source video. Intervals come
from a Poisson bootstrap of whole source videos (`cinnema.evaluation.statistics.resampling`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cinnema.evaluation.scores import Estimate
from cinnema.evaluation.statistics.gaussian import (
    Extrapolation,
    GaussianStatistics,
    extrapolate,
    frechet_distance,
)
from cinnema.evaluation.statistics.kernel import kernel_estimate
from cinnema.evaluation.statistics.resampling import poisson_weights
from cinnema.evaluation.statistics.samples import FeatureSample, hash_of

_SHELLS = 8
"""Parts into which clips fall at random; distances of their unions are extrapolated."""

_KEPT = 2048
"""Features kept for what needs them singly."""

_REPLICATE_BYTES = 64 << 20
_MIN_REPLICATES, _MAX_REPLICATES = 8, 100
_FEW = 40
"""Below so many replicates their deviation gives the interval: quantiles would be single draws."""


class FeatureSummary:
    """What is kept of a set of clips: Gaussians of it, of its resamples and parts, and a sample.

    Args:
        dim: d, length of a feature. About 8 d^2 (1 + shells + replicates) bytes are taken; the
            replicates are 100, fewer for long features (within 64 MB, but at least 8).
        num_shells: Parts that are extrapolated; 0 where that is not asked for.

    Example:
        >>> summary = FeatureSummary(2)
        >>> summary.add(["a/0", "b/0"], ["a", "b"], torch.eye(2))
        >>> summary.num_clips, summary.num_sources
        (2, 2)
    """

    def __init__(self, dim: int, *, num_shells: int = _SHELLS) -> None:
        fitting = _REPLICATE_BYTES // (8 * dim**2)
        num_replicates = min(_MAX_REPLICATES, max(_MIN_REPLICATES, fitting))
        self.whole = GaussianStatistics(dim)
        self.replicates = [GaussianStatistics(dim) for _ in range(num_replicates)]
        self.shells = [GaussianStatistics(dim) for _ in range(num_shells)]
        self.sample = FeatureSample(_KEPT)
        self.source_of: dict[str, str] = {}
        self._sources: set[int] = set()

    @property
    def num_clips(self) -> int:
        """How many rows were added."""
        return int(self.whole.count)

    @property
    def num_sources(self) -> int:
        """Of how many source videos they are."""
        return len(self._sources)

    def add(
        self, keys: Sequence[str], sources: Sequence[str], features: Float[Tensor, "n d"]
    ) -> None:
        """Take clips in.

        Args:
            keys: A name for each clip, unique in this set; clips of another set that show what
                came of the same start have the same one.
            sources: The source video of each.
            features: A row for each.
        """
        rows = features.detach().to("cpu", torch.float64)
        self.whole.add(rows)
        weights = torch.from_numpy(
            np.stack([poisson_weights(source, len(self.replicates)) for source in sources])
        )
        for number, replicate in enumerate(self.replicates):
            replicate.add(rows, weights[:, number])
        parts = torch.tensor([hash_of(key) % max(1, len(self.shells)) for key in keys])
        for number, shell in enumerate(self.shells):
            shell.add(rows[parts == number])
        self._sources |= {hash_of(source) for source in sources}
        self.source_of |= dict(zip(keys, sources, strict=True))
        self._keep(FeatureSample(_KEPT), keys, features)

    def merge(self, other: "FeatureSummary") -> None:
        """Take in all that another process has seen."""
        self.whole.merge(other.whole)
        for mine, theirs in zip(self.replicates, other.replicates, strict=True):
            mine.merge(theirs)
        for mine, theirs in zip(self.shells, other.shells, strict=True):
            mine.merge(theirs)
        self._sources |= other._sources
        self.source_of |= other.source_of
        self.sample.merge(other.sample)
        self._forget()

    def _keep(self, offered: FeatureSample, keys: Sequence[str], features: Tensor) -> None:
        offered.add(keys, features)
        self.sample.merge(offered)
        self._forget()

    def _forget(self) -> None:
        """Names are kept for the sample only."""
        if len(self.source_of) > len(self.sample):
            self.source_of = {key: self.source_of[key] for key in self.sample.keys}


def frechet_estimate(first: FeatureSummary, second: FeatureSummary) -> Estimate:
    """Return the Frechet distance with a 95 % interval over other source videos like these.

    A resample has fewer different clips than the whole, so its distance is larger by a bias that
    is not the whole's; the deviations of the resamples from their median are therefore put around
    the estimate. None with fewer than three sources.

    Args:
        first: One set.
        second: The other.

    Raises:
        UserError: A set has fewer than two clips, or the features' lengths differ.
    """
    value = frechet_distance(first.whole, second.whole)
    pairs = zip(first.replicates, second.replicates, strict=True)
    usable = [(a, b) for a, b in pairs if min(a.count, b.count) >= 2]
    low = high = None
    num_sources = min(first.num_sources, second.num_sources)
    if num_sources > 2 and len(usable) > 1:
        draws = np.array([frechet_distance(a, b) for a, b in usable])
        below, above = _deviations(draws)
        low, high = max(0.0, value + below), value + above
    fewest = min(first.num_clips, second.num_clips)
    return Estimate(value, low, high, num_clips=fewest, num_scenes=num_sources)


def _deviations(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the 95 % interval, as seen from its middle."""
    if len(draws) < _FEW:
        return -1.96 * float(draws.std(ddof=1)), 1.96 * float(draws.std(ddof=1))
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
    return float(low - middle), float(high - middle)


def frechet_at_infinity(first: FeatureSummary, second: FeatureSummary) -> Extrapolation:
    """Return the Frechet distance extrapolated to infinitely many clips on both sides.

    Args:
        first: One set.
        second: The other, about as large.
    """
    counts, distances = [], []
    for size in (_SHELLS // 4, _SHELLS // 2, _SHELLS):  # quarters, halves, the whole
        parts = [
            (_union(first.shells[i : i + size]), _union(second.shells[i : i + size]))
            for i in range(0, _SHELLS, size)
        ]
        usable = [(a, b) for a, b in parts if min(a.count, b.count) >= 2]
        if usable:
            counts.append(sum(min(a.count, b.count) for a, b in usable) / len(usable))
            distances.append(sum(frechet_distance(a, b) for a, b in usable) / len(usable))
    return extrapolate(counts, distances)


def _union(parts: Sequence[GaussianStatistics]) -> GaussianStatistics:
    union = GaussianStatistics(parts[0].dim)
    for part in parts:
        union.merge(part)
    return union


def kernel_of(first: FeatureSummary, second: FeatureSummary) -> Estimate:
    """Return the kernel distance between the kept samples of two sets, with its interval.

    Raises:
        UserError: There are fewer than 2 clips on a side.
    """
    names = sorted({*first.source_of.values(), *second.source_of.values()})
    number = {name: position for position, name in enumerate(names)}
    clusters = [
        torch.tensor([number[s.source_of[key]] for key in s.sample.keys]) for s in (first, second)
    ]
    return kernel_estimate(first.sample.features, second.sample.features, *clusters)
