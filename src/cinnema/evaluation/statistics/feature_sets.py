"""Statistics of the features of a set of clips, and distances with intervals computed from them.

Memory does not grow with the number of clips, except for one hash for each source video. Intervals
resample source videos with the Poisson weights of `cinnema.evaluation.statistics.bootstrap`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from cinnema.evaluation.statistics.bootstrap import Estimate, hash_of, poisson_weights
from cinnema.evaluation.statistics.distances import (
    Extrapolation,
    GaussianStatistics,
    extrapolate,
    frechet_distance,
)

_SHELLS = 8
"""Number of random parts of a set; distances of unions of parts are extrapolated."""

_KEPT = 2048
"""Largest number of features kept for statistics that need the features of single clips."""

_REPLICATE_BYTES = 64 << 20
_MIN_REPLICATES, _MAX_REPLICATES = 8, 100
_FEW = 40
"""Below this number of replicates the interval is taken from their standard deviation."""


class FeatureSample:
    """The features of the k keys with the smallest hashes.

    Which rows are kept depends on their keys alone: not on the order, the batches or the number of
    processes. A key that occurs twice is kept once.

    Args:
        size: k, the largest number of rows that are kept.

    Example:
        >>> sample = FeatureSample(size=2)
        >>> sample.add(["a", "b", "c"], torch.arange(3.0)[:, None])
        >>> len(sample)
        2
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of rows that are kept."""
        return len(self._rows)

    @property
    def keys(self) -> list[str]:
        """The keys of the rows, in the order of their hashes."""
        return sorted(self._rows, key=hash_of)

    @property
    def features(self) -> Float[Tensor, "n d"]:
        """The rows in the order of `keys`, float32; shape (0, 0) where there are none."""
        return self.rows(self.keys)

    def rows(self, keys: Sequence[str]) -> Float[Tensor, "n d"]:
        """Return the rows of some keys, in their order; shape (0, 0) for no keys.

        Args:
            keys: Keys of rows that are kept.
        """
        rows = [self._rows[key] for key in keys]
        return torch.stack(rows) if rows else torch.empty(0, 0)

    def add(self, keys: Sequence[str], features: Float[Tensor, "n d"]) -> None:
        """Add rows; those with the smallest hashes are kept.

        Args:
            keys: A name for each row, unique among the rows of all processes.
            features: The rows.
        """
        rows = features.detach().float().cpu()
        self._rows |= {key: row.clone() for key, row in zip(keys, rows, strict=True)}
        self._drop()

    def merge(self, other: "FeatureSample") -> None:
        """Add the rows that another object has kept."""
        self._rows |= other._rows
        self._drop()

    def _drop(self) -> None:
        if len(self._rows) > self.size:
            self._rows = {key: self._rows[key] for key in self.keys[: self.size]}


class FeatureSummary:
    """Gaussians of a set of clips, of its resamples and of its parts, and a sample of its features.

    Args:
        dim: Length d of a feature. About 8 d^2 (1 + shells + replicates) bytes of memory; there
            are 100 replicates, fewer for long features (within 64 MB, but at least 8).
        num_shells: Number of parts for the extrapolation; 0 for no extrapolation.

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
        self._sources: set[int] = set()

    @property
    def num_clips(self) -> int:
        """Number of rows that were added."""
        return int(self.whole.count)

    @property
    def num_sources(self) -> int:
        """Number of source videos that the clips are cut from."""
        return len(self._sources)

    def add(
        self, keys: Sequence[str], sources: Sequence[str], features: Float[Tensor, "n d"]
    ) -> None:
        """Add clips.

        Args:
            keys: A name for each clip, unique in this set; clips of different sets that continue
                the same start have the same key.
            sources: The source video of each clip.
            features: A row for each clip.
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
        self.sample.add(keys, features)

    def merge(self, other: "FeatureSummary") -> None:
        """Add the clips that another process has seen."""
        self.whole.merge(other.whole)
        for mine, theirs in zip(self.replicates, other.replicates, strict=True):
            mine.merge(theirs)
        for mine, theirs in zip(self.shells, other.shells, strict=True):
            mine.merge(theirs)
        self._sources |= other._sources
        self.sample.merge(other.sample)


def frechet_estimate(first: FeatureSummary, second: FeatureSummary) -> Estimate:
    """Return the Frechet distance with a 95 % interval from resampling source videos.

    A resample has fewer different clips than the whole set, so its distance is biased upwards by
    another amount; the deviations of the resamples from their median are therefore put around the
    estimate. With fewer than three sources there is no interval.

    Args:
        first: One set.
        second: The other set.

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
    return Estimate(value, low, high, num_clips=fewest, num_sources=num_sources)


def _deviations(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the 95 % interval relative to its middle."""
    if len(draws) < _FEW:
        return -1.96 * float(draws.std(ddof=1)), 1.96 * float(draws.std(ddof=1))
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
    return float(low - middle), float(high - middle)


def frechet_at_infinity(first: FeatureSummary, second: FeatureSummary) -> Extrapolation:
    """Return the Frechet distance extrapolated to infinitely many clips on both sides.

    Args:
        first: One set.
        second: The other set, of about the same size.
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
