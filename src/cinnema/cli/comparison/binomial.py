"""Exact binomial confidence intervals and tests of a share of choices."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_HALVINGS = 60  # bisections, more than double precision needs


@dataclass(frozen=True)
class Share:
    """A share of choices, with its interval and p-value.

    Attributes:
        chosen: Number of choices in favour.
        total: Number of choices.
        value: The share, in [0, 1]; NaN without choices.
        low: Lower end of the exact 95 % interval (Clopper and Pearson).
        high: Upper end of the interval.
        p: Two-sided p-value: probability of a share at least as far from one half by chance.
    """

    chosen: int
    total: int
    value: float
    low: float
    high: float
    p: float


def share_of(chosen: int, total: int, *, confidence: float = 0.95) -> Share:
    """Return a share with its exact interval: P(X >= chosen; low) = P(X <= chosen; high) = 2.5 %.

    Coverage is at least the nominal one; choices are assumed to be independent.

    Args:
        chosen: Number of choices in favour, from 0 to `total`.
        total: Number of choices.
        confidence: Nominal coverage of the interval, in (0, 1).

    Source:
        C. Clopper, E. Pearson, "The use of confidence or fiducial limits illustrated in the case
        of the binomial", Biometrika 26, 1934.

    Example:
        >>> share = share_of(8, 10)
        >>> round(share.low, 4), round(share.high, 4), round(share.p, 4)
        (0.4439, 0.9748, 0.1094)
    """
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if chosen > 0:
        low = _crossing(lambda p: _probability(chosen, total, total, p) > tail)
    if chosen < total:
        high = _crossing(lambda p: _probability(0, chosen, total, p) < tail)
    least = min(_probability(0, chosen, total, 0.5), _probability(chosen, total, total, 0.5))
    value = chosen / total if total else math.nan
    return Share(chosen, total, value, low, high, p=min(1.0, 2 * least))


def _crossing(is_above: Callable[[float], bool]) -> float:
    """Return the smallest p in [0, 1] for which a monotone predicate holds."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return (low + high) / 2


def _probability(first: int, last: int, total: int, p: float) -> float:
    """P(first <= X <= last) of a binomial X, p strictly between 0 and 1."""
    log_p, log_q = math.log(p), math.log1p(-p)
    return math.fsum(
        math.exp(
            math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
            + k * log_p + (total - k) * log_q
        )
        for k in range(first, last + 1)
    )  # fmt: skip
