"""The tables of a report: rows down, columns across, one table for each group of columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cinnema.evaluation.results import Cell, Column, Missing, Row, RowKind
from cinnema.evaluation.statistics.bootstrap import Estimate

KINDS: tuple[RowKind, ...] = ("real", "model", "baseline")

_NARROW_SPACE = "\u202f"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class CellView:
    """What a cell of the page shows.

    Attributes:
        value: The number as text; empty for a cell that does not apply.
        low: Lower end of the interval as text; empty without one.
        high: Upper end.
        counts: Numbers of clips and of source videos.
        footnote: Number of the footnote that says why there is no number; 0 for none.
        is_best: Whether it is the best of its column.
    """

    value: str = ""
    low: str = ""
    high: str = ""
    counts: tuple[int, int] = (0, 0)
    footnote: int = 0
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class RowView:
    """A row of a table.

    Attributes:
        name: Its name.
        about: What it is.
        sees_real: Whether it uses real frames after the first.
        is_part: Whether it is of a part of the clips.
        cells: Its cells, one for each column.
    """

    name: str
    about: str = ""
    sees_real: bool = False
    is_part: bool = False
    cells: Sequence[CellView]


@dataclass(frozen=True, kw_only=True)
class TableView:
    """A table of the page.

    Attributes:
        title: Its title.
        columns: Its columns.
        bodies: Its rows by kind: real, model, baseline.
    """

    title: str
    columns: Sequence[Column]
    bodies: Sequence[tuple[RowKind, Sequence[RowView]]]


@dataclass
class Footnotes:
    """Reasons of missing numbers, each once, numbered from 1."""

    reasons: list[str] = field(default_factory=list)

    def number_of(self, reason: str) -> int:
        """Return the number of a reason, a new one if the reason is new."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason) + 1


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """Return rows in the order real, model, baseline."""
    return sorted(rows, key=lambda row: KINDS.index(row.kind))


def tables_of(
    columns: Sequence[Column], rows: Sequence[Row], footnotes: Footnotes
) -> list[TableView]:
    """Return a table for each group of columns with a number.

    Args:
        columns: All columns.
        rows: All rows.
        footnotes: Takes the reasons of missing numbers.
    """
    measured = [column for column in columns if _is_measured(column, rows)]
    return [
        _table(group, [c for c in measured if c.group == group], by_kind(rows), footnotes)
        for group in dict.fromkeys(column.group for column in measured)
    ]


def not_measured(columns: Sequence[Column], rows: Sequence[Row]) -> dict[str, str]:
    """Return the columns without any number, by the reason: names of columns."""
    by_reason: dict[str, list[str]] = {}
    for column in columns:
        if not _is_measured(column, rows):
            cells = [row.cells.get(column.name) for row in rows]
            reasons = [c.reason for c in cells if isinstance(c, Missing)] or ["no row has it"]
            by_reason.setdefault("; ".join(dict.fromkeys(reasons)), []).append(column.name)
    return {reason: ", ".join(names) for reason, names in by_reason.items()}


def best_rows(column: Column, rows: Sequence[Row]) -> set[str]:
    """Return the names of the rows with the best number as shown; several if they are equal.

    Real rows, and those that see the real clip, do not compete. Among fewer than two rows none is
    the best.

    Args:
        column: The column.
        rows: Rows of the table.
    """
    values = {
        row.name: cell.value
        for row in rows
        if row.kind != "real" and not row.sees_real
        and isinstance(cell := row.cells.get(column.name), Estimate)
        and math.isfinite(cell.value)
    }  # fmt: skip
    target = _real_value(column, rows) if column.better == "real" else None
    if len(values) < 2 or (column.better == "real" and target is None):
        return set()
    if target is not None:
        losses = {name: abs(value - target) for name, value in values.items()}
    else:
        sign = 1 if column.better == "lower" else -1
        losses = {name: sign * value for name, value in values.items()}
    least = round(min(losses.values()), column.digits)
    return {name for name, loss in losses.items() if round(loss, column.digits) == least}


def shown(value: float | None, digits: int, *, like: float | None = None) -> str:
    """Return a number as text: a true minus, thousands separated, "–" where it is undefined.

    A number that would be shown as zero but is not is written with a power of ten.

    Args:
        value: The number.
        digits: Number of digits after the decimal point.
        like: A number whose notation is used; defaults to `value`.

    Example:
        >>> shown(-1234.56, 1)
        '−1 234.6'
    """
    if value is None or not math.isfinite(value):
        return "–"
    model = value if like is None else like
    if value and model and abs(model) < 0.5 * 10**-digits:
        factor, power = f"{value:.1e}".split("e")
        text = f"{factor}·10{str(int(power)).translate(_RAISED)}"
    else:
        text = f"{value:,.{digits}f}".replace(",", _NARROW_SPACE)
    is_zero = not any(digit in text for digit in "123456789")
    return text.lstrip("-") if is_zero else text.replace("-", "−")


def _is_measured(column: Column, rows: Sequence[Row]) -> bool:
    return any(isinstance(row.cells.get(column.name), Estimate) for row in rows)


def _real_value(column: Column, rows: Sequence[Row]) -> float | None:
    for row in rows:
        cell = row.cells.get(column.name)
        if row.kind == "real" and isinstance(cell, Estimate) and math.isfinite(cell.value):
            return cell.value
    return None


def _table(
    group: str, columns: Sequence[Column], rows: Sequence[Row], footnotes: Footnotes
) -> TableView:
    present = [row for row in rows if any(column.name in row.cells for column in columns)]
    best = {column.name: best_rows(column, present) for column in columns}
    bodies = []
    for kind in KINDS:
        views = [
            view
            for row in present
            if row.kind == kind
            for view in _row_views(row, columns, best, footnotes)
        ]
        if views:
            bodies.append((kind, views))
    title = group[:1].upper() + group[1:] if group else "All metrics"
    return TableView(title=title, columns=columns, bodies=bodies)


def _row_views(
    row: Row, columns: Sequence[Column], best: dict[str, set[str]], footnotes: Footnotes
) -> list[RowView]:
    """Return the view of a row, and below it those of its parts."""
    cells = [
        cell_view(row.cells.get(c.name), c, footnotes, is_best=row.name in best[c.name])
        for c in columns
    ]
    views = [RowView(name=row.name, about=row.about, sees_real=row.sees_real, cells=cells)]
    for part, values in row.parts.items():
        if any(column.name in values for column in columns):
            of_part = [cell_view(values.get(c.name), c, footnotes) for c in columns]
            views.append(RowView(name=part, is_part=True, cells=of_part))
    return views


def cell_view(
    cell: Cell | None, column: Column, footnotes: Footnotes, *, is_best: bool = False
) -> CellView:
    """Return what a cell shows.

    Args:
        cell: The cell; None if the column does not apply.
        column: Its column.
        footnotes: Takes the reason of a missing number.
        is_best: Whether it is the best of its column.
    """
    if cell is None:
        return CellView()
    if isinstance(cell, Missing):
        return CellView(value="–", footnote=footnotes.number_of(cell.reason))
    low, high = (shown(end, column.digits, like=cell.value) for end in (cell.low, cell.high))
    has_interval = "–" not in (low, high)
    return CellView(
        value=shown(cell.value, column.digits),
        low=low if has_interval else "",
        high=high if has_interval else "",
        counts=(cell.num_clips, cell.num_sources),
        is_best=is_best,
    )
