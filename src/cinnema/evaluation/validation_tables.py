"""Breakdowns as text tables."""

import io
import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cinnema.evaluation.scores import Breakdown, Metric
from cinnema.evaluation.statistics.bootstrap import Estimate

_WIDTH = 140


def as_text(breakdown: Breakdown) -> str:
    """Return a breakdown as a table: textures with intervals, and below each its scenes.

    Args:
        breakdown: What was measured.
    """
    table = Table(title=breakdown.title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("clips", justify="right")
    table.add_column("scenes", justify="right")
    for measure in breakdown.measures:
        table.add_column(measure.name, justify="right")
    for texture, row in breakdown.textures.items():
        _add_row(table, texture, row, breakdown.measures, style="bold")
        for scene, scene_row in breakdown.scenes.items():
            if breakdown.texture_of[scene] == texture:
                _add_row(table, f"  {scene}", scene_row, breakdown.measures)
    console = Console(file=io.StringIO(), width=_WIDTH, markup=False, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _add_row(
    table: Table,
    name: str,
    row: dict[str, Estimate],
    measures: tuple[Metric, ...],
    *,
    style: str = "",
) -> None:
    widest = max(row.values(), key=lambda e: e.num_clips)
    cells = [_cell(row[measure.name], measure) for measure in measures]
    table.add_row(name, str(widest.num_clips), str(widest.num_sources), *cells, style=style)


def _cell(estimate: Estimate, measure: Metric) -> str:
    if math.isnan(estimate.value):
        return "-"
    text = f"{estimate.value:.{measure.digits}f}"
    if measure.shows_interval and estimate.low is not None and estimate.high is not None:
        text += f" ({estimate.low:.{measure.digits}f} to {estimate.high:.{measure.digits}f})"
    return text
