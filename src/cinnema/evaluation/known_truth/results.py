"""What a measurement of a task found: numbers with intervals, and what was asked of them."""

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cinnema.evaluation.statistics.bootstrap import Estimate

_WIDTH = 140


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What a number has to reach.

    Attributes:
        way: Whether it may be at most, or has to be at least, `limit`.
        limit: In the number's unit.

    Example:
        >>> Aim(way="at most", limit=15.0).is_met(Estimate(12.0, 10.0, 16.0, 30, 10))
        True
    """

    way: Literal["at most", "at least"]
    limit: float

    def is_met(self, estimate: Estimate) -> bool:
        """Say whether the number itself reaches it, wherever the ends of its interval are."""
        if self.way == "at most":
            return estimate.value <= self.limit
        return estimate.value >= self.limit


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number of a measurement.

    Attributes:
        what: Of what: "error of the end point".
        of: Of whom: the model, a baseline beside it, or a bound.
        estimate: The number and its interval; NaN where there was nothing to measure.
        unit: Of it; empty where there is none.
        digits: Shown behind the point.
        aim: What it has to reach; None for baselines, bounds and what is only told.
    """

    what: str
    of: str
    estimate: Estimate
    unit: str = ""
    digits: int = 3
    aim: Aim | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; NaN becomes None."""
        e = self.estimate
        values: dict[str, Any] = {
            "what": self.what,
            "of": self.of,
            "unit": self.unit,
        } | e.to_dict()
        if self.aim is not None:
            aim = f"{self.aim.way} {self.aim.limit:g}"
            values |= {"aim": aim, "is_met": self.aim.is_met(e)}
        return values


class TaskResult(ABC):
    """All numbers of one task.

    Attributes:
        title: Of the table.
    """

    title: ClassVar[str]

    @abstractmethod
    def numbers(self) -> Sequence[Number]:
        """Return the numbers in the order of the table."""

    def notes(self) -> Sequence[str]:
        """Return sentences that a reader of the numbers must know."""
        return ()


def as_text(result: TaskResult) -> str:
    """Return a table for a terminal: number, 95 % interval, clips of source videos, aim.

    Args:
        result: What was found.
    """
    table = Table(title=result.title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("of", no_wrap=True)
    for name in ("number", "95 % interval", "clips/sources", "asked", ""):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for number in result.numbers():
        unit = f" ({number.unit})" if number.unit else ""
        head = f"{number.what}{unit}"
        table.add_row("" if head == before else head, number.of, *_cells(number))
        before = head
    console = Console(file=io.StringIO(), width=_WIDTH, markup=False, color_system=None)
    console.print(table)
    for note in result.notes():
        console.print(f"note     {note}")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _cells(number: Number) -> tuple[str, str, str, str, str]:
    e, digits = number.estimate, number.digits
    value = "-" if math.isnan(e.value) else f"{e.value:.{digits}f}"
    interval = ""
    if e.low is not None and e.high is not None:
        interval = f"{e.low:.{digits}f} to {e.high:.{digits}f}"
    aim = "" if number.aim is None else f"{number.aim.way} {number.aim.limit:g}"
    met = "" if number.aim is None else ("met" if number.aim.is_met(e) else "not met")
    return value, interval, f"{e.num_clips}/{e.num_sources}", aim, met
