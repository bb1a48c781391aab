"""The tables of a report, one for each group of columns; a row for the model and each baseline."""

import math
from collections.abc import Sequence

from cinnema.evaluation.report.markup import Markup, element, joined
from cinnema.evaluation.results import Cell, Column, Evaluation, Missing, Row
from cinnema.evaluation.statistics.bootstrap import Estimate

_KINDS = ("real", "model", "baseline")
_ARROWS = {
    "lower": ("↓", "lower is better"),
    "higher": ("↑", "higher is better"),
    "real": ("≈", "near the real row is better"),
}
_NARROW_SPACE = "\u202f"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Footnotes:
    """Numbered reasons of empty cells, each listed once."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def number_of(self, reason: str) -> int:
        """Return the number of a reason, adding it if it is new."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return self._reasons.index(reason) + 1

    def to_markup(self) -> Markup:
        """Return the list of all reasons; empty markup if there are none."""
        if not self._reasons:
            return Markup()
        items = [
            element("li", reason, id=f"missing-{i}") for i, reason in enumerate(self._reasons, 1)
        ]
        return element("ol", *items, class_="footnotes")


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """Return rows sorted by kind: real clips, models, baselines."""
    return sorted(rows, key=lambda row: _KINDS.index(row.kind))


def results_section(evaluation: Evaluation) -> Markup:
    """Return all tables, the reasons of empty cells, and the quantities that were not measured.

    Args:
        evaluation: The results.
    """
    rows = by_kind(evaluation.rows)
    measured = [c for c in evaluation.columns if _is_measured(c, rows)]
    footnotes = Footnotes()
    tables = [
        _table(group, [c for c in measured if c.group == group], rows, footnotes)
        for group in dict.fromkeys(column.group for column in measured)
    ]
    return joined(
        [
            element("div", *tables, class_="tables"),
            footnotes.to_markup(),
            _not_measured(evaluation.columns, rows),
        ]
    )


def best_rows(column: Column, rows: Sequence[Row]) -> set[str]:
    """Return the names of the rows with the best displayed number; several if they tie.

    Real rows, and rows that see the real clip, are not candidates. With fewer than two candidates
    no row is the best.

    Args:
        column: The compared quantity.
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
    """Return a number as text: a true minus, thousands set apart, "–" where it is undefined.

    A nonzero number that would round to zero is shown as a power of ten.

    Args:
        value: The number.
        digits: Number of digits after the decimal point.
        like: Number whose notation is used; defaults to `value`.

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
) -> Markup:
    present = [row for row in rows if any(column.name in row.cells for column in columns)]
    best = {column.name: best_rows(column, present) for column in columns}
    heads = [element("td"), *(_head(column) for column in columns)]
    bodies = []
    for kind in _KINDS:
        lines = [_line(r, columns, best, footnotes) for r in present if r.kind == kind]
        if lines:
            bodies.append(element("tbody", *lines, class_=f"kind-{kind}"))
    caption = element("caption", group[:1].upper() + group[1:] if group else "All measures")
    table = element("table", caption, element("thead", element("tr", *heads)), *bodies)
    label = f"Table: {group or 'all measures'}"
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _head(column: Column) -> Markup:
    arrow, meaning = _ARROWS[column.better]
    sign = element("abbr", arrow, title=meaning, aria_label=meaning, class_="arrow")
    unit = element("span", column.unit, class_="unit") if column.unit else ""
    return element(
        "th", element("span", column.name, "\u00a0", sign), unit, scope="col",
        title=column.about or None,
    )  # fmt: skip


def _line(
    row: Row, columns: Sequence[Column], best: dict[str, set[str]], footnotes: Footnotes
) -> Markup:
    mark = element("abbr", "*", title="sees the real clip", class_="sees") if row.sees_real else ""
    head = element("th", row.name, mark, scope="row", title=row.about or None)
    cells = [
        _cell(row.cells.get(c.name), c, footnotes, is_best=row.name in best[c.name])
        for c in columns
    ]
    return element("tr", head, *cells)


def _cell(cell: Cell | None, column: Column, footnotes: Footnotes, *, is_best: bool) -> Markup:
    if cell is None:
        return element("td", class_="none")
    if isinstance(cell, Missing):
        number = footnotes.number_of(cell.reason)
        link = element("a", str(number), href=f"#missing-{number}")
        dash = element("abbr", "–", title=cell.reason)
        return element("td", dash, element("sup", link), class_="missing")
    value = shown(cell.value, column.digits)
    low, high = (shown(end, column.digits, like=cell.value) for end in (cell.low, cell.high))
    parts = [element("strong" if is_best else "span", value, class_="value")]
    if "–" not in (low, high):
        interval = joined([element("span", low), " to ", element("span", high)])
        parts.append(element("span", interval, class_="range"))
    told = f"{cell.num_clips} clips of {cell.num_sources} source videos"
    n = f"n {cell.num_clips}/{cell.num_sources}"
    parts.append(element("span", n, class_="n", title=told))
    return element("td", *parts, class_="best" if is_best else None)


def _not_measured(columns: Sequence[Column], rows: Sequence[Row]) -> Markup:
    """Columns without any number, with the reasons."""
    by_reason: dict[str, list[str]] = {}
    for column in columns:
        if not _is_measured(column, rows):
            cells = [row.cells.get(column.name) for row in rows]
            reasons = [c.reason for c in cells if isinstance(c, Missing)] or ["no row has it"]
            by_reason.setdefault("; ".join(dict.fromkeys(reasons)), []).append(column.name)
    if not by_reason:
        return Markup()
    terms = [
        element("div", element("dt", ", ".join(names)), element("dd", reason))
        for reason, names in by_reason.items()
    ]
    return joined([element("h3", "Not measured"), element("dl", *terms, class_="facts missing")])
