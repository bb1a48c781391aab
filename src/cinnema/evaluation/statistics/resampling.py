"""Sums that resample themselves: intervals over source videos without keeping a single clip.

A Poisson bootstrap of whole source videos: in replicate b every clip of a source counts Poisson(1)
times, drawn from the source's name and b alone. So nothing is kept but one sum for each replicate,
the result depends on neither order nor number of processes, and measurements of the same sources
are resampled together, which is right for comparing them.

Source: Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson
frequencies" (2006).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cinnema.evaluation.scores import Estimate
from cinnema.evaluation.statistics.samples import hash_of

_NUM_REPLICATES = 1000

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From sums of shape (..., length) to numbers of shape (...)."""


class ClusteredSums:
    """The sum of a vector over clips, and over the clips of each resample.

    Args:
        length: Of the vector. 8 KB are taken for each entry.

    Example:
        >>> sums = ClusteredSums(2)
        >>> for source, value in [("a", 1.0), ("a", 2.0), ("b", 3.0)]:
        ...     sums.add(source, [value, 1.0])
        >>> sums.estimate(ratio).value
        2.0
    """

    def __init__(self, length: int) -> None:
        self.whole: Float64[np.ndarray, " n"] = np.zeros(length)
        self.replicates: Float64[np.ndarray, "r n"] = np.zeros((_NUM_REPLICATES, length))
        self.num_clips = 0
        self._sources: set[int] = set()

    @property
    def num_sources(self) -> int:
        """Of how many source videos the clips are."""
        return len(self._sources)

    def add(self, source: str, values: Sequence[float] | Float64[np.ndarray, " n"]) -> None:
        """Take a clip in.

        Args:
            source: Its source video.
            values: What is summed.
        """
        vector = np.asarray(values, dtype=np.float64)
        self.whole += vector
        self.replicates += poisson_weights(source, _NUM_REPLICATES)[:, None] * vector
        self.num_clips += 1
        self._sources.add(hash_of(source))

    def merge(self, other: "ClusteredSums") -> None:
        """Take in all that another process has seen."""
        self.whole = self.whole + other.whole
        self.replicates = self.replicates + other.replicates
        self.num_clips += other.num_clips
        self._sources |= other._sources

    def estimate(self, statistic: Statistic) -> Estimate:
        """Return a statistic of the sums, with its 95 % interval over other sources like these.

        Args:
            statistic: Of the sums; NaN where it is not defined.
        """
        return joint_estimate([self], lambda parts: statistic(parts[0]))


def joint_estimate(
    parts: Sequence[ClusteredSums],
    statistic: Callable[[Sequence[NDArray[np.float64]]], NDArray[np.float64]],
) -> Estimate:
    """Return a statistic of several sums over the same clips, with its interval.

    The percentile interval; none with fewer than three sources.

    Args:
        parts: The sums, at least one.
        statistic: From one array of sums for each part.
    """
    value = float(statistic([part.whole for part in parts]))
    fewest = min(parts, key=lambda part: part.num_clips)
    low = high = None
    if fewest.num_sources > 2:
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = statistic([part.replicates for part in parts])
        draws = draws[np.isfinite(draws)]
        if len(draws) > 1:
            low, high = map(float, np.quantile(draws, [0.025, 0.975]))
    return Estimate(value, low, high, num_clips=fewest.num_clips, num_scenes=fewest.num_sources)


def ratio(sums: Float64[np.ndarray, "*r 2"]) -> Float64[np.ndarray, "*r"]:
    """Return the first sum over the second: a mean, where the second counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


@lru_cache(maxsize=1024)
def poisson_weights(source: str, num: int) -> Float64[np.ndarray, " n"]:
    """Return how often the clips of a source count in each replicate; not to be changed.

    Args:
        source: Its name.
        num: Of replicates; the first ones are the same for every number.
    """
    generator = np.random.Generator(np.random.Philox(key=hash_of(source)))
    weights = generator.poisson(1.0, num).astype(np.float64)
    weights.flags.writeable = False
    return weights
