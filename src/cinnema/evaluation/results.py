"""The results of an evaluation as a table, with curves and examples, apart from how it is shown.

A table has a row for the model, for each baseline and for each bound beside them, and a column for
each measured quantity. A quantity that could not be measured has the reason in its cell.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cinnema.evaluation.statistics.bootstrap import Estimate, finite

Better = Literal["lower", "higher", "real"]
"""Which values of a column are better: lower ones, higher ones, or those near the real clips'."""

RowKind = Literal["real", "model", "baseline"]

MODEL, REAL = "cINN", "real against real"
FROZEN, RECONSTRUCTION = "frozen first frame", "reconstruction"
"""Names of rows that several metrics fill in."""

_WIDTH = 168
_BETTER = {"lower": "lower", "higher": "higher", "real": "as real"}
_MAX_COLUMNS = 7  # columns of one printed table, at most


@dataclass(frozen=True, kw_only=True)
class Target:
    """The value that a quantity is required to reach.

    Attributes:
        kind: Whether the value may be at most, or has to be at least, `limit`.
        limit: The required value, in the column's unit.
        row: Name of the row that it applies to.

    Example:
        >>> Target(kind="at most", limit=15.0).is_met(Estimate(12.0, 10.0, 16.0, 30, 10))
        True
    """

    kind: Literal["at most", "at least"]
    limit: float
    row: str = MODEL

    def is_met(self, estimate: Estimate) -> bool:
        """Return whether the value reaches the limit, wherever the ends of its interval are."""
        if self.kind == "at most":
            return estimate.value <= self.limit
        return estimate.value >= self.limit

    def __str__(self) -> str:
        return f"{self.kind} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measured quantity.

    Attributes:
        name: Short name, unique in an evaluation: "FVD", "LPIPS (VGG16)".
        better: Which values are better: "lower", "higher" or "real" (near the real clips').
        unit: Its unit, as "dB"; empty for numbers without one.
        digits: Number of digits after the decimal point in tables.
        about: Description: of what, by which network, in which range.
        group: Columns of one group are shown together: "quality".
        target: The value that it is required to reach, if any.
    """

    name: str
    better: Better
    unit: str = ""
    digits: int = 3
    about: str = ""
    group: str = ""
    target: Target | None = None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """The reason why a quantity could not be measured, and how to get it."""

    reason: str


Cell = Estimate | Missing
Cells = Mapping[str, Cell]
"""Cells of a row, by column."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        name: Unique in the table: "cINN", "frozen first frame".
        kind: Whether it is of real clips, of the model, or of a baseline.
        about: Description of the row, in one sentence.
        sees_real: Whether it depends on real frames after the first, as the reconstruction does:
            such a row is a bound, not a competitor.
        cells: Cells by column; columns that do not apply to the row are left out.
        parts: Cells of parts of the clips (labels, sources) by name, if requested.
    """

    name: str
    kind: RowKind
    about: str = ""
    sees_real: bool = False
    cells: Cells = field(default_factory=dict)
    parts: Mapping[str, Cells] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Numbers along an axis, a line for each row of the table: a plot.

    Attributes:
        title: Title of the plot.
        x_label: Label of the horizontal axis: "frame".
        y_label: Label of the vertical axis.
        x: Positions by row.
        y: Values by row, as many as positions.
        low: Lower ends of 95 % intervals by row; rows without an interval are left out.
        high: Upper ends of the intervals.
        style: Whether points are joined to a line.
        diagonal: Whether the line y = x is drawn (in a QQ plot).
        about: Description of the plot, in one sentence.
    """

    title: str
    x_label: str
    y_label: str
    x: Mapping[str, tuple[float, ...]]
    y: Mapping[str, tuple[float, ...]]
    low: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    high: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    style: Literal["line", "points"] = "line"
    diagonal: bool = False
    about: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return labels and numbers as JSON values."""
        lines = {"x": self.x, "y": self.y, "low": self.low, "high": self.high}
        numbers = {
            name: {row: [finite(v) for v in values] for row, values in by_row.items()}
            for name, by_row in lines.items()
        }
        return {"x_label": self.x_label, "y_label": self.y_label} | numbers


@dataclass(frozen=True, kw_only=True)
class Example:
    """A real clip, and its continuations by rows of the table.

    Attributes:
        title: "best", "median" or "worst", and by which score.
        key: Name of the clip.
        videos: x0 and the frames after it by row, the real clip first.
        score: The score by which it was chosen.
        fps: Frames per second at which it is shown.
    """

    title: str
    key: str
    videos: Mapping[str, UInt8[np.ndarray, "t h w 3"]]
    score: float
    fps: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        weights: Name and SHA-256 of the evaluated weights.
        data: Name, split, frame size and SHA-256 of the data.
        protocol: Name of the protocol, and in words which frames are compared.
        settings: Settings of the run, as JSON values.
        backbones: SHA-256 of each network by its title.
        columns: Columns in the order of the table.
        rows: Rows in the order of the table.
        curves: Plots.
        examples: Clips to look at.
        changes: Paired differences to another model of the same clips, by row and then column;
            empty unless one was named.
        notes: Sentences that a reader of the numbers must know.
        seconds: Duration of the evaluation.
    """

    weights: Mapping[str, str]
    data: Mapping[str, str]
    protocol: Mapping[str, str]
    settings: Mapping[str, Any]
    backbones: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = ()
    examples: tuple[Example, ...] = ()
    changes: Mapping[str, Cells] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures as JSON values; NaN becomes None."""
        column_of = {c.name: c for c in self.columns}

        def values(row: str, cells: Cells) -> dict[str, Any]:
            return {name: _plain(cell, column_of[name], row) for name, cell in cells.items()}

        return {
            "weights": dict(self.weights),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "settings": dict(self.settings),
            "backbones": dict(self.backbones),
            "columns": {
                c.name: {"group": c.group, "better": c.better, "unit": c.unit, "about": c.about}
                for c in self.columns
            },
            "rows": {
                row.name: {
                    "kind": row.kind,
                    "about": row.about,
                    "sees_real": row.sees_real,
                    "values": values(row.name, row.cells),
                    **({"parts": {p: values("", c) for p, c in row.parts.items()}}
                       if row.parts else {}),
                }
                for row in self.rows
            },
            **({"changes": {row: values("", c) for row, c in self.changes.items()}}
               if self.changes else {}),
            "curves": {curve.title: curve.to_dict() for curve in self.curves},
            "examples": {
                e.title: {"clip": e.key, "score": finite(e.score)} for e in self.examples
            },
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }  # fmt: skip

    def numbers(self) -> list[dict[str, Any]]:
        """Return every number with its column, row and unit as JSON values, column by column."""
        return [
            {"what": column.name, "of": row.name, "unit": column.unit}
            | _plain(row.cells[column.name], column, row.name)
            for column in self.columns
            for row in self.rows
            if column.name in row.cells
        ]


def _plain(cell: Cell, column: Column, row: str) -> dict[str, Any]:
    if isinstance(cell, Missing):
        return {"missing": cell.reason}
    if column.target is None or column.target.row != row:
        return cell.to_dict()
    return cell.to_dict() | {"target": str(column.target), "is_met": column.target.is_met(cell)}


def as_text(evaluation: Evaluation) -> str:
    """Return the tables for a terminal: value, number of clips and sources, 95 % interval.

    Args:
        evaluation: The results.
    """
    text = io.StringIO()
    # In a notebook, rich would show the text itself and write nothing.
    console = Console(file=text, width=_WIDTH, markup=False, color_system=None, force_jupyter=False)
    for title, columns in _groups(evaluation.columns):
        shown = [c for c in columns if _is_known(evaluation.rows, c)]
        if shown:
            console.print(f"\n{title}", _table(shown, evaluation.rows), sep="\n")
    for row, cells in evaluation.changes.items():
        base = evaluation.settings.get("against", "the other model")
        console.print(f"\n{row}: change from {base}", _changes(cells, evaluation), sep="\n")
    for line in _targets(evaluation):
        console.print(f"required {line}")
    for name, reason in _missing(evaluation).items():
        console.print(f"missing  {name}: {reason}")
    for note in evaluation.notes:
        console.print(f"note     {note}")
    protocol = f"{evaluation.protocol['name']}: {evaluation.protocol['about']}"
    console.print(f"protocol {protocol}")
    console.print(f"Measured in {evaluation.seconds:.0f} s.")
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def _groups(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    for group in dict.fromkeys(column.group for column in columns):
        members = [column for column in columns if column.group == group]
        for first in range(0, len(members), _MAX_COLUMNS):
            yield group, members[first : first + _MAX_COLUMNS]


def _is_known(rows: Sequence[Row], column: Column) -> bool:
    cells = (row.cells.get(column.name) for row in rows)
    return any(cell is not None and not isinstance(cell, Missing) for cell in cells)


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(_head(column), justify="right")
    for row in rows:
        if any(column.name in row.cells for column in columns):
            table.add_row(row.name, *(_text(row.cells.get(c.name), c) for c in columns))
            for part, cells in row.parts.items():
                if any(column.name in cells for column in columns):
                    table.add_row(f"  {part}", *(_text(cells.get(c.name), c) for c in columns))
    return table


def _changes(cells: Cells, evaluation: Evaluation) -> Table:
    table = Table(box=SIMPLE_HEAD)
    known = [column for column in evaluation.columns if column.name in cells]
    for column in known:
        table.add_column(_head(column), justify="right")
    table.add_row(*(_text(cells[c.name], c, sign="+") for c in known))
    return table


def _head(column: Column) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.name}{unit}\n{_BETTER[column.better]}"


def _text(cell: Cell | None, column: Column, *, sign: str = "") -> str:
    if cell is None:
        return ""
    if isinstance(cell, Missing):
        return "missing"
    form = f"{sign}.{column.digits}f"
    number = "-" if math.isnan(cell.value) else f"{cell.value:{form}}"
    counts = f"n {cell.num_clips}/{cell.num_sources}"
    if cell.low is None or cell.high is None:
        return f"{number}  {counts}"
    return f"{number}  {counts}\n{cell.low:{form}} to {cell.high:{form}}"


def _targets(evaluation: Evaluation) -> Iterator[str]:
    rows = {row.name: row.cells for row in evaluation.rows}
    for column in evaluation.columns:
        target = column.target
        cell = None if target is None else rows.get(target.row, {}).get(column.name)
        if target is not None and isinstance(cell, Estimate):
            unit = f" {column.unit}" if column.unit else ""
            value = "-" if math.isnan(cell.value) else f"{cell.value:.{column.digits}f}"
            met = "met" if target.is_met(cell) else "not met"
            yield f"{column.name}, {target.row}: {target}{unit}: {met} ({value})"


def _missing(evaluation: Evaluation) -> dict[str, str]:
    """Each reason once, under the names of all of its columns."""
    columns: dict[str, list[str]] = {}
    for row in evaluation.rows:
        for name, cell in row.cells.items():
            if isinstance(cell, Missing) and name not in columns.setdefault(cell.reason, []):
                columns[cell.reason].append(name)
    return {", ".join(names): reason for reason, names in columns.items()}
