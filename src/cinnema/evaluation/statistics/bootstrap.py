"""Confidence intervals by resampling whole source videos (a cluster bootstrap).

Clips of one source video resemble each other and are not independent observations, so whole source
videos are resampled, each with all of its clips. Intervals are 95 % percentile intervals; with
fewer than three source videos there is none.

Two forms differ in how the resamples are drawn:

- `ClusteredSums` keeps one sum for each resample, for streamed clips that are not kept.
  Each source counts Poisson(1) times in a resample, drawn from its name alone, so the result
  depends neither on the order of clips nor on the number of processes, and measurements of the
  same sources are resampled together, which is right for comparing them. Source: Hanley and
  MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies" (2006).
- `resampled` takes a table of all clips and any statistic of it (a median, a correlation); as many
  sources as there are get drawn with replacement.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
MIN_SOURCES = 3
"""Fewest source videos with an interval: of two there are only three different resamples."""

Rows: TypeAlias = Float64[np.ndarray, "n d"]
"""Measured numbers, one row for each clip."""

Statistic: TypeAlias = Callable[[Rows], float]
"""From rows of clips to one number; NaN where it is undefined."""

SumStatistic: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From sums of shape (..., length) to numbers of shape (...); NaN where undefined."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval.

    Attributes:
        value: The number; NaN where it is undefined.
        low: Lower end of the interval; None where there is no interval.
        high: Upper end of the interval; None where there is no interval.
        num_clips: Number of clips that were measured.
        num_sources: Number of source videos that the clips are cut from.
    """

    value: float
    low: float | None
    high: float | None
    num_clips: int
    num_sources: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; numbers that are not finite become None."""
        return {
            "value": finite(self.value),
            "low": finite(self.low),
            "high": finite(self.high),
            "num_clips": self.num_clips,
            "num_sources": self.num_sources,
        }


class ClusteredSums:
    """The sum of a vector over clips, and over the clips of each resample.

    Args:
        length: Length of the vector. Each entry takes 8 KB of memory.

    Example:
        >>> sums = ClusteredSums(2)
        >>> for source, value in [("a", 1.0), ("a", 2.0), ("b", 3.0)]:
        ...     sums.add(source, [value, 1.0])
        >>> sums.ratio().value
        2.0
    """

    def __init__(self, length: int) -> None:
        self.whole: Float64[np.ndarray, " n"] = np.zeros(length)
        self.replicates: Float64[np.ndarray, "r n"] = np.zeros((NUM_RESAMPLES, length))
        self.num_clips = 0
        self._sources: set[int] = set()

    @property
    def num_sources(self) -> int:
        """Number of source videos that the clips are cut from."""
        return len(self._sources)

    def add(self, source: str, values: Sequence[float] | Float64[np.ndarray, " n"]) -> None:
        """Add the vector of one clip.

        Args:
            source: Name of the clip's source video.
            values: The vector.
        """
        vector = np.asarray(values, dtype=np.float64)
        self.whole += vector
        self.replicates += poisson_weights(source, NUM_RESAMPLES)[:, None] * vector
        self.num_clips += 1
        self._sources.add(hash_of(source))

    def merge(self, other: "ClusteredSums") -> None:
        """Add the sums of another process."""
        self.whole = self.whole + other.whole
        self.replicates = self.replicates + other.replicates
        self.num_clips += other.num_clips
        self._sources |= other._sources

    def estimate(self, statistic: SumStatistic) -> Estimate:
        """Return a statistic of the sums with its interval.

        Args:
            statistic: Maps sums to a number.
        """
        return joint_estimate([self], lambda parts: statistic(parts[0]))

    def ratio(self) -> Estimate:
        """Return the first sum over the second with its interval: a mean where that counts."""
        return self.estimate(ratio_of_sums)


def joint_estimate(
    parts: Sequence[ClusteredSums],
    statistic: Callable[[Sequence[NDArray[np.float64]]], NDArray[np.float64]],
) -> Estimate:
    """Return a statistic of several sums over the same clips, with its interval.

    Args:
        parts: The sums, at least one.
        statistic: Maps one array of sums for each part to numbers.
    """
    value = float(statistic([part.whole for part in parts]))
    fewest = min(parts, key=lambda part: part.num_clips)
    low = high = None
    if fewest.num_sources >= MIN_SOURCES:
        with np.errstate(invalid="ignore", divide="ignore"):
            low, high = _percentiles(statistic([part.replicates for part in parts]))
    return Estimate(value, low, high, num_clips=fewest.num_clips, num_sources=fewest.num_sources)


class ClusteredRows:
    """A table with a row of numbers for each clip, for statistics that sums cannot give.

    Args:
        length: Number of columns.

    Example:
        >>> rows = ClusteredRows(1)
        >>> for key, source, value in [("a/0", "a", 1.0), ("a/1", "a", 2.0), ("b/0", "b", 6.0)]:
        ...     rows.add(key, source, [value])
        >>> rows.estimate(median, order=["a/0", "a/1", "b/0"], columns=[0]).value
        2.0
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._rows: dict[str, tuple[str, NDArray[np.float64]]] = {}

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._rows)

    def add(
        self, key: str, source: str, values: Sequence[float] | Float64[np.ndarray, " n"]
    ) -> None:
        """Add the row of one clip.

        Args:
            key: Name of the clip, unique among all clips of any process.
            source: Name of its source video.
            values: The row; NaN for what could not be measured.
        """
        self._rows[key] = (source, np.asarray(values, dtype=np.float64))

    def merge(self, other: "ClusteredRows") -> None:
        """Add the rows of another process."""
        self._rows |= other._rows

    def table(self, order: Sequence[str]) -> tuple[Rows, list[str]]:
        """Return the rows and their sources in an order of keys; keys without a row are skipped."""
        found = [self._rows[key] for key in order if key in self._rows]
        rows = np.array([row for _, row in found], dtype=np.float64)
        return rows.reshape(-1, self.length), [source for source, _ in found]

    def estimate(
        self, statistic: Statistic, *, order: Sequence[str], columns: Sequence[int]
    ) -> Estimate:
        """Return a statistic of the rows with its interval.

        Args:
            statistic: Maps rows to a number.
            order: Keys of the rows to use, in the order in which they are added up; another order
                changes the result by rounding only.
            columns: Indices of the columns that are passed to the statistic. Rows with a NaN in one
                of them are left out.
        """
        rows, sources = self.table(order)
        return resampled(rows[:, list(columns)], sources, statistic)


def resampled(
    rows: Rows, sources: Sequence[str], statistic: Statistic, *, seed: int = 0
) -> Estimate:
    """Return a statistic of a table of clips with its interval.

    Args:
        rows: Measured numbers, one row for each clip. Rows that contain a NaN (something could not
            be measured there) are left out.
        sources: Name of each row's source video.
        statistic: Maps rows to a number.
        seed: Seed of the resampling.

    Example:
        >>> rows = np.array([[1.0], [2.0], [3.0]])
        >>> resampled(rows, ["a", "a", "b"], mean).value
        2.0
    """
    known = np.isfinite(rows).all(axis=1)
    rows, names = rows[known], [s for s, k in zip(sources, known, strict=True) if k]
    members = [np.flatnonzero(np.array(names) == name) for name in sorted(set(names))]
    value = statistic(rows) if len(rows) else math.nan
    low = high = None
    if len(members) >= MIN_SOURCES:
        generator = np.random.default_rng(seed)
        draws = generator.integers(len(members), size=(NUM_RESAMPLES, len(members)))
        values = [statistic(rows[np.concatenate([members[i] for i in draw])]) for draw in draws]
        low, high = _percentiles(np.array(values))
    return Estimate(value, low, high, num_clips=len(rows), num_sources=len(members))


def _percentiles(draws: NDArray[np.float64]) -> tuple[float, float] | tuple[None, None]:
    """Return the 2.5 % and 97.5 % quantiles of the resamples in which the number is defined."""
    draws = draws[np.isfinite(draws)]
    if len(draws) < 2:
        return None, None
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def ratio_of_sums(sums: Float64[np.ndarray, "*r 2"]) -> Float64[np.ndarray, "*r"]:
    """Return the first sum over the second: a mean where the second counts clips."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def mean(rows: Rows) -> float:
    """Return the mean of the first column."""
    return float(rows[:, 0].mean())


def median(rows: Rows) -> float:
    """Return the median of the first column."""
    return float(np.median(rows[:, 0]))


def ratio(rows: Rows) -> float:
    """Return the sum of the first column over that of the second; NaN where the latter is 0."""
    top, bottom = rows[:, 0].sum(), rows[:, 1].sum()
    return float(top / bottom) if bottom else math.nan


def correlation(rows: Rows) -> float:
    """Return Pearson's correlation of the first two columns; NaN where one is constant."""
    a, b = (rows[:, i] - rows[:, i].mean() for i in range(2))
    power = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / power if power > 1e-12 else math.nan


def share_below(limit: float) -> Statistic:
    """Return the statistic "share of rows whose first column is below `limit`", in [0, 1]."""

    def share(rows: Rows) -> float:
        return float((rows[:, 0] < limit).mean())

    return share


@lru_cache(maxsize=1024)
def poisson_weights(source: str, num: int) -> Float64[np.ndarray, " n"]:
    """Return how often the clips of a source count in each resample; a read-only array.

    Args:
        source: Name of the source video.
        num: Number of resamples; the first ones are the same for every number.
    """
    generator = np.random.Generator(np.random.Philox(key=hash_of(source)))
    weights = generator.poisson(1.0, num).astype(np.float64)
    weights.flags.writeable = False
    return weights


def hash_of(key: str) -> int:
    """Return 64 bits that depend on a text alone, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def finite(value: float | None) -> float | None:
    """Return a number as JSON can hold it: None in place of NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None
