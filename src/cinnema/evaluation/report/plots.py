"""Plots of curves by matplotlib, as SVG for a light and for a dark page."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cinnema.evaluation.results import Curve, Row, RowKind

Theme = Literal["light", "dark"]

_SIZE = (4.9, 3.4)  # inches
_MAX_WITH_MARKERS = 10  # points of a line
_MAX_BANDS = 3
_DASHES = ((7, 3), (2, 2), (9, 2, 2, 2), (5, 2))
_MARKERS = "osD^v"
_TEXT = {"light": "#1d1f21", "dark": "#e4e3df"}
_MUTED = {"light": "#656a70", "dark": "#989da3"}
_RULE = {"light": "#dcdad5", "dark": "#34383c"}
_MODELS = {"light": ("#c23b22", "#b3478c", "#8a5a00"), "dark": ("#ff8163", "#e88cc4", "#e0b050")}
_HUES = {
    "light": (
        "#2f6db3", "#2b8a6e", "#8a6bbf", "#b07d12", "#4d9bbd", "#6d8a2f", "#a2627f", "#7d7168",
    ),
    "dark": (
        "#7db2ee", "#63c9a8", "#b8a0ea", "#dcb352", "#84cbe8", "#abcb66", "#dd9db9", "#b8aca2",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a row is drawn in all plots; dash and marker tell rows apart without colour.

    Attributes:
        kind: Kind of the row.
        number: Number of the row among those of its kind.
    """

    kind: RowKind
    number: int

    def colour(self, theme: Theme) -> str:
        """Return the colour on a page of a theme."""
        if self.kind == "real":
            return _TEXT[theme]
        colours = _MODELS[theme] if self.kind == "model" else _HUES[theme]
        return colours[self.number % len(colours)]

    @property
    def dash(self) -> Sequence[float]:
        """Lengths of dashes and gaps in points; empty for a solid line."""
        if self.kind == "model":
            return ()
        return (1, 2) if self.kind == "real" else _DASHES[self.number % len(_DASHES)]

    @property
    def marker(self) -> str:
        """Marker of single points."""
        if self.kind == "baseline":
            return _MARKERS[1 + self.number % (len(_MARKERS) - 1)]
        return "x" if self.kind == "real" else _MARKERS[0]


def styles_of(rows: Sequence[Row]) -> dict[str, Style]:
    """Return a style for each row, by name.

    Args:
        rows: Rows of the table.
    """
    counts: dict[RowKind, int] = {"real": 0, "model": 0, "baseline": 0}
    styles = {}
    for row in rows:
        styles[row.name] = Style(row.kind, counts[row.kind])
        counts[row.kind] += 1
    return styles


def draw(curve: Curve, styles: Mapping[str, Style], *, theme: Theme) -> str:
    """Return a plot with its legend as SVG text, on a transparent ground.

    Args:
        curve: What to plot; rows without a finite number are left out.
        styles: Styles from `styles_of`; a row without one is drawn as real clips are.
        theme: Whether the page is light or dark.
    """
    ink = dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), _MUTED[theme])
    options: dict[Any, Any] = {
        "svg.hashsalt": "cinnema",
        "svg.fonttype": "path",
        "font.size": 8,
        "text.color": _TEXT[theme],
        "axes.edgecolor": _MUTED[theme],
        **ink,
    }
    with mpl.rc_context(options):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        _decorate(axes, curve, theme)
        names = shown_rows(curve, styles)
        for name in names:
            _add(axes, curve, name, styles, theme)
        if _starts_at_zero(curve) and not curve.diagonal:
            axes.set_ylim(bottom=0)
        if names:
            figure.legend(
                loc="outside lower left", ncols=2, frameon=False, fontsize=7, handlelength=3
            )
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def shown_rows(curve: Curve, styles: Mapping[str, Style]) -> list[str]:
    """Return the rows of a curve that have a finite number, in the order of the table."""
    order = list(styles)
    known = [name for name in curve.y if any(map(math.isfinite, curve.y[name]))]
    return sorted(known, key=lambda name: order.index(name) if name in styles else -1)


def banded_rows(curve: Curve, styles: Mapping[str, Style]) -> list[str]:
    """Return the rows whose intervals are drawn: all, or of many only those of models.

    Args:
        curve: The curve.
        styles: Styles of rows.
    """
    names = [name for name in curve.y if name in curve.low and name in curve.high]
    if len(names) <= _MAX_BANDS:
        return names
    return [name for name in names if name in styles and styles[name].kind == "model"]


def _decorate(axes: Axes, curve: Curve, theme: Theme) -> None:
    axes.set_xlabel(curve.x_label)
    axes.set_ylabel(curve.y_label)
    axes.grid(axis="y", color=_RULE[theme], linewidth=0.7)
    axes.set_axisbelow(b=True)
    axes.spines[["top", "right", "left"]].set_visible(b=False)
    axes.tick_params(axis="y", length=0)
    if curve.diagonal:
        axes.axline((0, 0), slope=1, color=_MUTED[theme], linewidth=0.8)


def _starts_at_zero(curve: Curve) -> bool:
    """Return whether the numbers are positive and reach far down towards 0."""
    numbers = [y for values in curve.y.values() for y in values if math.isfinite(y)]
    return bool(numbers) and 0 <= min(numbers) < 0.4 * max(numbers)


def _add(axes: Axes, curve: Curve, name: str, styles: Mapping[str, Style], theme: Theme) -> None:
    style = styles.get(name, Style("real", 0))
    x, y, colour = curve.x[name], curve.y[name], style.colour(theme)
    is_model, order = style.kind == "model", 3.0 if style.kind == "model" else 2.0
    if name in banded_rows(curve, styles):
        axes.fill_between(
            x, curve.low[name], curve.high[name], color=colour, alpha=0.13, linewidth=0
        )
    is_line = curve.style == "line"
    has_markers = not is_line or len(x) <= _MAX_WITH_MARKERS
    (line,) = axes.plot(
        x,
        y,
        label=name,
        color=colour,
        marker=style.marker if has_markers else "",
        markersize=5 if len(x) <= _MAX_WITH_MARKERS else 2.5,
        linestyle="-" if is_line else "",
        linewidth=2.2 if is_model else 1.3,
        zorder=order,
    )
    if is_line and style.dash:
        line.set_dashes(style.dash)
