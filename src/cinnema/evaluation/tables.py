"""An evaluation as text: a table for each group of columns, with n beside every number."""

import io
import math
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cinnema.evaluation.results import Cell, Column, Evaluation, Missing, Row

_WIDTH = 168
_BETTER = {"lower": "lower", "higher": "higher", "real": "as real"}
_COLUMNS = 7  # beside each other; more make a second table


def as_text(evaluation: Evaluation) -> str:
    """Return tables for a terminal: number, 95 % interval, clips of source videos.

    Args:
        evaluation: What was found.
    """
    console = Console(file=io.StringIO(), width=_WIDTH, markup=False, color_system=None)
    for title, columns in _tables(evaluation.columns):
        shown = [c for c in columns if _is_known(evaluation.rows, c)]
        if shown:
            console.print(_table(title, shown, evaluation.rows))
    for name, reason in _missing(evaluation).items():
        console.print(f"missing  {name}: {reason}")
    for note in evaluation.notes:
        console.print(f"note     {note}")
    protocol = f"{evaluation.protocol['name']}: {evaluation.protocol['about']}"
    console.print(f"protocol {protocol}")
    console.print(f"Measured in {evaluation.seconds:.0f} s.")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _tables(columns: Sequence[Column]) -> Iterator[tuple[str, list[Column]]]:
    for group in dict.fromkeys(column.group for column in columns):
        members = [column for column in columns if column.group == group]
        for first in range(0, len(members), _COLUMNS):
            yield group, members[first : first + _COLUMNS]


def _is_known(rows: Sequence[Row], column: Column) -> bool:
    cells = (row.cells.get(column.name) for row in rows)
    return any(cell is not None and not isinstance(cell, Missing) for cell in cells)


def _table(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for column in columns:
        unit = f" ({column.unit})" if column.unit else ""
        head = f"{column.name}{unit}\n{_BETTER[column.better]}"
        table.add_column(head, justify="right")
    for row in rows:
        cells = [row.cells.get(column.name) for column in columns]
        if any(cell is not None for cell in cells):
            texts = [_text(cell, column) for cell, column in zip(cells, columns, strict=True)]
            table.add_row(row.name, *texts)
    return table


def _text(cell: Cell | None, column: Column) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Missing):
        return "missing"
    number = "-" if math.isnan(cell.value) else f"{cell.value:.{column.digits}f}"
    counts = f"n {cell.num_clips}/{cell.num_sources}"
    if cell.low is None or cell.high is None:
        return f"{number}  {counts}"
    interval = f"{cell.low:.{column.digits}f} to {cell.high:.{column.digits}f}"
    return f"{number}  {counts}\n{interval}"


def _missing(evaluation: Evaluation) -> dict[str, str]:
    """Each reason once for all columns and rows that it stands in."""
    columns: dict[str, list[str]] = {}
    for row in evaluation.rows:
        for name, cell in row.cells.items():
            if isinstance(cell, Missing) and name not in columns.setdefault(cell.reason, []):
                columns[cell.reason].append(name)
    return {", ".join(names): reason for reason, names in columns.items()}
