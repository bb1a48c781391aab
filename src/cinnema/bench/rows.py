"""What a section of the bench returns: rows of measured values, and cases that take turns."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

Case: TypeAlias = Callable[[], object]
"""Does the work once."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        runs: How often each case runs, beside the warm-up.
        quick: Whether cases are small, only to see that they run.
    """

    runs: int = 5
    quick: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity of one case.

    Attributes:
        name: What was measured, unique in its section.
        unit: Unit of the values, such as "s", "frames/s", "GB" or "dB".
        values: One value a run, in the order of the runs; none if the case could not run.
        baseline: The row that this one is compared with; None for none. Rows of one comparison
            must have taken turns.
        processor: Seconds of processor time of each run, of all threads; empty where it says
            nothing.
        note: A remark, or why the case could not run.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    baseline: "Row | None" = None
    processor: tuple[float, ...] = ()
    note: str = ""

    @property
    def median(self) -> float | None:
        """Median of the values; None without values."""
        return statistics.median(self.values) if self.values else None

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the baseline: the median of the ratios of single runs.

        Of durations this is baseline / value, of anything else value / baseline.
        """
        other = self.baseline
        if other is None or not self.values or not other.values:
            return None
        pairs = zip(self.values, other.values, strict=True)
        return statistics.median(
            before / now if self.unit == "s" else now / before for now, before in pairs
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON values; what it lacks is left out."""
        values: dict[str, Any] = {"name": self.name, "unit": self.unit, "median": self.median}
        values["values"] = list(self.values)
        if self.processor:
            values["processor"] = statistics.median(self.processor)
        if self.baseline is not None:
            values |= {"baseline": self.baseline.name, "ratio": self.ratio}
        return values | ({"note": self.note} if self.note else {})


Section: TypeAlias = Callable[[Settings], Iterator[Row]]
"""A section of the bench: yields its rows as soon as they are measured."""


@dataclass
class Cost:
    """What the runs of one case took.

    Attributes:
        wall: Seconds of each run.
        processor: Seconds of processor time of each run, of all threads of this process.
    """

    wall: tuple[float, ...] = ()
    processor: tuple[float, ...] = ()

    def add(self, case: Case) -> None:
        """Run the case once."""
        wall, processor = time.perf_counter(), time.process_time()
        case()
        self.wall += (time.perf_counter() - wall,)
        self.processor += (time.process_time() - processor,)


def alternate(cases: Mapping[str, Case], *, runs: int, warm_up: int = 1) -> dict[str, Cost]:
    """Run cases in turns, so that other programs on the machine affect all of them alike.

    Args:
        cases: The cases, by name.
        runs: How often each of them runs, at least 1.
        warm_up: How often each runs before that, unmeasured.

    Example:
        >>> costs = alternate({"sum": lambda: sum(range(1000))}, runs=3)
        >>> len(costs["sum"].wall)
        3
    """
    costs = {name: Cost() for name in cases}
    for turn in range(warm_up + runs):
        for name, case in cases.items():
            if turn < warm_up:
                case()
            else:
                costs[name].add(case)
    return costs


def durations(
    cases: Mapping[str, Case], *, runs: int, warm_up: int = 1, baseline: str | None = None
) -> Iterator[Row]:
    """Run cases in turns, and yield a row of seconds for each.

    Args:
        cases: The cases, by name.
        runs: As in `alternate`.
        warm_up: As in `alternate`.
        baseline: Name of the case that the others are compared with.
    """
    costs = alternate(cases, runs=runs, warm_up=warm_up)
    rows = {
        name: Row(name=name, unit="s", values=cost.wall, processor=cost.processor)
        for name, cost in costs.items()
    }
    base = None if baseline is None else rows[baseline]
    for name, row in rows.items():
        yield row if name == baseline else replace(row, baseline=base)
