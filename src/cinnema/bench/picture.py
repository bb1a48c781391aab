"""A picture of a bench: bars of the medians, with whiskers from the least value to the largest."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cinnema.core.files import atomic_path

_WIDTH, _BAR, _HEAD = 7.0, 0.19, 0.65  # inches: of the figure, of a row, around a panel
_COLOUR, _COMPARED = "#8fa6bd", "#2f6db3"

_Row: TypeAlias = Mapping[str, Any]


def draw_report(report: Mapping[str, Any], path: str | Path) -> Path:
    """Draw a panel for each section and unit of a report, and write it, replacing what is there.

    Rows that are compared with another one are dark and say how many times as fast they are.

    Args:
        report: From `cinnema.bench.report.run_sections`, or read from its JSON file.
        path: A file that ends in .svg or .png.

    Raises:
        UserError: The file cannot be written.
    """
    panels = _panels(report)
    heights = [_HEAD + _BAR * len(rows) for _, _, rows in panels]
    options: dict[Any, Any] = {
        "svg.hashsalt": "cinnema",
        "svg.fonttype": "none",
        "font.size": 7,
    }
    with mpl.rc_context(options):
        figure = Figure(figsize=(_WIDTH, sum(heights) + 0.3), layout="constrained")
        machine = report["machine"]
        figure.suptitle(f"{machine['processor']}, {machine['cores']} cores, {report['date'][:10]}")
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for one, (title, unit, rows) in zip(axes, panels, strict=True):
            _add_bars(one, rows)
            one.set_title(title, loc="left", fontsize=8)
            one.set_xlabel(unit, labelpad=1)
        with atomic_path(path, overwrite=True) as partial:
            metadata = {"Date": None} if Path(path).suffix == ".svg" else None
            figure.savefig(partial, format=Path(path).suffix[1:], dpi=110, metadata=metadata)
    return Path(path)


def _panels(report: Mapping[str, Any]) -> list[tuple[str, str, list[_Row]]]:
    """Return title, unit and rows of each panel; rows without values are left out."""
    panels = []
    for section in report["sections"].values():
        rows = [row for row in section["rows"] if row["values"]]
        for unit in dict.fromkeys(row["unit"] for row in rows):
            same = [row for row in rows if row["unit"] == unit]
            panels.append((section["title"], unit, same))
    return panels


def _add_bars(axes: Axes, rows: Sequence[_Row]) -> None:
    names = [row["name"] for row in rows]
    medians = [statistics.median(row["values"]) for row in rows]
    whiskers = [
        [m - min(row["values"]) for m, row in zip(medians, rows, strict=True)],
        [max(row["values"]) - m for m, row in zip(medians, rows, strict=True)],
    ]
    colours = [_COMPARED if "ratio" in row else _COLOUR for row in rows]
    bars = axes.barh(names, medians, xerr=whiskers, color=colours, height=0.7)
    axes.bar_label(bars, [_label(row) for row in rows], padding=3, fontsize=6)
    axes.invert_yaxis()
    axes.margins(x=0.16, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)


def _label(row: _Row) -> str:
    ratio = "" if row.get("ratio") is None else f"  ({row['ratio']:.2f})"
    return f"{statistics.median(row['values']):.3g}{ratio}"
