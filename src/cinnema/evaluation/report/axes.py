"""Axes of plots: maps values to SVG coordinates, with ticks at round numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)  # the last one in case rounding moved an end


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis.

    Attributes:
        low: Value at the start of the axis.
        high: Value at its end.
        start: SVG coordinate of `low`.
        end: SVG coordinate of `high`; smaller than `start` where the axis points up.
        ticks: Round numbers from `low` to `high`.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def place(self, number: float) -> float:
        """Return the coordinate of a value."""
        return self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start)

    def labels(self) -> tuple[str, ...]:
        """Return the ticks as text, with as many digits as their step needs."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = next(d for d in range(16) if math.isclose(step, round(step, d), rel_tol=1e-6))
        return tuple(f"{tick:,.{digits}f}".replace("-", "−") for tick in self.ticks)


def make_axis(
    numbers: Iterable[float], *, start: float, end: float, most: int = 6, margin: float = 0.04
) -> Axis:
    """Return an axis that covers all numbers.

    It starts at 0 if all numbers are positive and the smallest is near 0, so that differences are
    shown in proportion.

    Args:
        numbers: Values to cover; those that are not finite are ignored.
        start: Coordinate of its start.
        end: Coordinate of its end.
        most: Largest number of ticks.
        margin: Margin at both ends, as a share of the range; it does not cross 0.
    """
    finite = [n for n in numbers if math.isfinite(n)] or [0.0, 1.0]
    whole = all(float(n).is_integer() for n in finite)
    low, high = min(finite), max(finite)
    if 0 <= low < 0.4 * high:
        low = 0.0
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # all the same
        spread = abs(high) / 10 or 1.0
        low, high = low - spread, high + spread
    room = (high - low) * margin
    low, high = low - room * (low != 0), high + room * (high != 0)
    ticks = round_ticks(low, high, most=most, whole=whole)
    return Axis(low=low, high=high, start=start, end=end, ticks=ticks)


def round_ticks(
    low: float, high: float, *, most: int = 6, whole: bool = False
) -> tuple[float, ...]:
    """Return multiples of 1, 2, 2.5 or 5 times a power of ten from `low` to `high`.

    Args:
        low: Smallest tick possible.
        high: Largest tick possible, above `low`.
        most: Largest number of ticks, at least 2.
        whole: Whether all ticks must be integers, as for frame numbers.

    Example:
        >>> round_ticks(0.0, 1.1)
        (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * power for factor in _STEPS]
    for step in [s for s in steps if s.is_integer()] or [1.0] if whole else steps:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return tuple(round(number * step, 12) + 0.0 for number in range(first, last + 1))
