"""Any number of a table of clips, with an interval over other sources like these."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64

from cinnema.evaluation.scores import Estimate

_NUM_RESAMPLES = 1000

Rows: TypeAlias = Float64[np.ndarray, "n d"]
Statistic: TypeAlias = Callable[[Rows], float]


def resampled(
    rows: Rows, sources: Sequence[str], statistic: Statistic, *, seed: int = 0
) -> Estimate:
    """Return a statistic of rows, with its 95 % percentile interval from resampling whole sources.

    Clips of one source are no independent witnesses, so sources are drawn with replacement, with
    all their rows. With fewer than three sources there is no interval. Rows that hold a NaN are
    left out: something could not be measured there.

    Args:
        rows: What was measured on each clip.
        sources: Of each row.
        statistic: Of rows; NaN where it is not defined.
        seed: Of the resampling.

    Example:
        >>> rows = np.array([[1.0], [2.0], [3.0]])
        >>> resampled(rows, ["a", "a", "b"], mean).value
        2.0
    """
    known = np.isfinite(rows).all(axis=1)
    rows, names = rows[known], [s for s, k in zip(sources, known, strict=True) if k]
    members = [np.flatnonzero(np.array(names) == name) for name in sorted(set(names))]
    value = statistic(rows) if len(rows) else float("nan")
    low = high = None
    if len(members) > 2:
        generator = np.random.default_rng(seed)
        draws = generator.integers(len(members), size=(_NUM_RESAMPLES, len(members)))
        values = np.array([statistic(rows[_joined(members, draw)]) for draw in draws])
        values = values[np.isfinite(values)]
        if len(values) > 1:
            low, high = map(float, np.quantile(values, [0.025, 0.975]))
    return Estimate(value, low, high, num_clips=len(rows), num_scenes=len(members))


def mean(rows: Rows) -> float:
    """Return the mean of the first column."""
    return float(rows[:, 0].mean())


def median(rows: Rows) -> float:
    """Return the median of the first column."""
    return float(np.median(rows[:, 0]))


def ratio(rows: Rows) -> float:
    """Return the sum of the first column over that of the second; NaN over nothing."""
    top, bottom = rows[:, 0].sum(), rows[:, 1].sum()
    return float(top / bottom) if bottom else float("nan")


def correlation(rows: Rows) -> float:
    """Return Pearson's correlation of the first two columns; NaN where one does not vary."""
    a, b = (rows[:, i] - rows[:, i].mean() for i in range(2))
    power = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / power if power > 1e-12 else float("nan")


def share_below(limit: float) -> Statistic:
    """Return a statistic: the share of rows whose first column is below a limit."""

    def share(rows: Rows) -> float:
        return float((rows[:, 0] < limit).mean())

    return share


def _joined(members: Sequence[np.ndarray], draw: np.ndarray) -> np.ndarray:
    return np.concatenate([members[i] for i in draw])
