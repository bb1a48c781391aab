"""Plots as inline SVG. The style sheet gives the colours, so that they follow light and dark."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cinnema.evaluation.report.axes import Axis, make_axis
from cinnema.evaluation.report.labels import Label, spread_labels
from cinnema.evaluation.report.markup import Markup, element, joined
from cinnema.evaluation.results import Curve, Row

_WIDTH, _HEIGHT = 440.0, 300.0
_TOP, _RIGHT, _BOTTOM = 26.0, 14.0, 40.0
_DIGIT = 6.6  # width of a digit in the labels of ticks, in SVG units

_NUM_HUES = 8  # hues for baselines in the style sheet
_NUM_MODEL_HUES = 3
_DASHES = ("7 3", "2 3", "9 3 2 3", "5 2")
_MARKERS = ("circle", "square", "diamond", "triangle", "cross")
_MOST_POINTS_WITH_MARKERS = 10
_MOST_BANDS = 3


@dataclass(frozen=True)
class Look:
    """Style of a row in all plots: hue, dash and marker; dash and marker suffice without colour.

    Attributes:
        hue: CSS class in the style sheet.
        dash: SVG dash pattern of lines; empty for solid lines.
        marker: Kind of the marker of points.
    """

    hue: str
    dash: str
    marker: str


def looks_of(rows: Sequence[Row]) -> dict[str, Look]:
    """Return a style for each row: solid, thick lines for models, text colour for real clips.

    Args:
        rows: Rows of the table.
    """
    looks = {}
    counts = {"real": 0, "model": 0, "baseline": 0}
    for row in rows:
        i = counts[row.kind]
        counts[row.kind] += 1
        if row.kind == "real":
            looks[row.name] = Look("hue-real", "1 3", "cross")
        elif row.kind == "model":
            looks[row.name] = Look(f"hue-model{i % _NUM_MODEL_HUES}", "", "circle")
        else:
            dash, marker = _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)]
            looks[row.name] = Look(f"hue{i % _NUM_HUES}", dash, marker)
    return looks


def plot(curve: Curve, looks: Mapping[str, Look]) -> Markup:
    """Return a plot with its legend.

    Args:
        curve: The curves to plot; rows without a number are left out.
        looks: Styles by row, from `looks_of`; a curve that is no row of the table is drawn like
            real clips.
    """
    names = [name for name in curve.y if any(map(math.isfinite, curve.y[name]))]
    names.sort(key=lambda name: list(looks).index(name) if name in looks else -1)
    axes = _axes(curve, names, banded_rows(curve, looks))
    labels = _direct_labels(curve, names, axes)
    parts = [_frame(curve, *axes)]
    for name in reversed(names):  # the first rows last, on top
        parts.append(_series(curve, name, looks, axes))
    parts.extend(_label(label, _look(looks, label.text)) for label in labels)
    svg = element(
        "svg", *parts, class_="plot", viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", role="img",
        aria_label=_description(curve, names),
    )  # fmt: skip
    legend = Markup() if labels else _legend(curve, names, looks)
    return joined([svg, legend])


def banded_rows(curve: Curve, looks: Mapping[str, Look]) -> list[str]:
    """Return the rows whose intervals are drawn: all, or with many rows those of models only.

    Args:
        curve: The curves to plot.
        looks: Styles by row.
    """
    names = [name for name in curve.y if name in curve.low and name in curve.high]
    if len(names) <= _MOST_BANDS:
        return names
    return [name for name in names if _look(looks, name).hue.startswith("hue-model")]


def _look(looks: Mapping[str, Look], name: str) -> Look:
    return looks.get(name, Look("hue-real", "1 3", "cross"))


def _axes(curve: Curve, names: Sequence[str], banded: Sequence[str]) -> tuple[Axis, Axis]:
    xs = [x for name in names for x in curve.x[name]]
    ys = [y for name in names for y in curve.y[name]]
    ys += [y for name in banded for ends in (curve.low, curve.high) for y in ends[name]]
    if curve.diagonal:
        xs = ys = xs + ys
    bottom = _HEIGHT - _BOTTOM
    margin = 0.04 if curve.style == "line" else 0.08
    y_axis = make_axis(ys, start=bottom, end=_TOP, most=5, margin=margin)
    left = 12 + _DIGIT * max(map(len, y_axis.labels()))
    x_margin = margin if curve.style == "points" else 0.0
    x_axis = make_axis(xs, start=left, end=_WIDTH - _RIGHT, most=7, margin=x_margin)
    return x_axis, y_axis


def _frame(curve: Curve, x_axis: Axis, y_axis: Axis) -> Markup:
    """Grid, ticks and names of the axes."""
    left, right, bottom = x_axis.start, x_axis.end, y_axis.start
    parts = []
    for tick, text in zip(y_axis.ticks, y_axis.labels(), strict=True):
        y = y_axis.place(tick)
        parts.append(element("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        parts.append(element("text", text, x=left - 7, y=y + 4, text_anchor="end"))
    for tick, text in zip(x_axis.ticks, x_axis.labels(), strict=True):
        x = x_axis.place(tick)
        parts.append(element("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 4))
        parts.append(element("text", text, x=x, y=bottom + 17, text_anchor="middle"))
    parts.append(element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
    if curve.diagonal:
        low, high = max(x_axis.low, y_axis.low), min(x_axis.high, y_axis.high)
        parts.append(_path([(low, low), (high, high)], (x_axis, y_axis), class_="diagonal"))
    parts.append(
        element("text", curve.x_label, class_="name", x=right, y=_HEIGHT - 5, text_anchor="end")
    )
    parts.append(element("text", curve.y_label, class_="name", x=0.0, y=12.0))
    return element("g", *parts, class_="frame")


def _series(curve: Curve, name: str, looks: Mapping[str, Look], axes: tuple[Axis, Axis]) -> Markup:
    look = _look(looks, name)
    x, y = curve.x[name], curve.y[name]
    points = [point for point in zip(x, y, strict=True) if all(map(math.isfinite, point))]
    parts = []
    if name in banded_rows(curve, looks):
        parts.append(_band(x, curve.low[name], curve.high[name], axes))
    if curve.style == "line":
        dash = look.dash or None
        parts.extend(_path(run, axes, class_="line", stroke_dasharray=dash) for run in _runs(x, y))
    if curve.style == "points" or len(points) <= _MOST_POINTS_WITH_MARKERS:
        size = 4.0 if len(points) <= _MOST_POINTS_WITH_MARKERS else 2.0
        places = [(axes[0].place(px), axes[1].place(py)) for px, py in points]
        parts.extend(_marker(look.marker, *place, size) for place in places)
    return element("g", *parts, class_=f"series {look.hue}")


def _runs(x: Sequence[float], y: Sequence[float]) -> Iterator[list[tuple[float, float]]]:
    """Parts of a line between its gaps."""
    run: list[tuple[float, float]] = []
    for point in zip(x, y, strict=True):
        if all(map(math.isfinite, point)):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _band(
    x: Sequence[float], low: Sequence[float], high: Sequence[float], axes: tuple[Axis, Axis]
) -> Markup:
    ends = zip(x, low, high, strict=True)
    known = [each for each in ends if all(map(math.isfinite, each))]
    outline = [(px, py) for px, _, py in known] + [(px, py) for px, py, _ in reversed(known)]
    return _path(outline, axes, class_="band") if known else Markup()


def _path(
    points: Sequence[tuple[float, float]],
    axes: tuple[Axis, Axis],
    *,
    class_: str,
    stroke_dasharray: str | None = None,
) -> Markup:
    places = [f"{axes[0].place(x):.1f} {axes[1].place(y):.1f}" for x, y in points]
    return element(
        "path", class_=class_, d="M" + "L".join(places), stroke_dasharray=stroke_dasharray
    )


def _marker(kind: str, x: float, y: float, size: float) -> Markup:
    """A marker; all kinds look equally large."""
    if kind == "circle":
        return element("circle", class_="marker", cx=x, cy=y, r=size)
    outline = {
        "square": "M-.9-.9h1.8v1.8h-1.8z",
        "diamond": "M0-1.25 1.25 0 0 1.25-1.25 0z",
        "triangle": "M0-1.2 1.15.85h-2.3z",
        "cross": "M-1-1 1 1M-1 1 1-1",
    }[kind]
    class_ = "marker open" if kind == "cross" else "marker"
    transform = f"translate({x:.1f} {y:.1f}) scale({size:g})"
    return element("path", class_=class_, d=outline, transform=transform)


def _direct_labels(
    curve: Curve, names: Sequence[str], axes: tuple[Axis, Axis]
) -> tuple[Label, ...]:
    """Names beside the points, where each row has a single one."""
    if curve.style != "points" or any(len(curve.y[name]) != 1 for name in names):
        return ()
    places = {
        name: (axes[0].place(curve.x[name][0]), axes[1].place(curve.y[name][0])) for name in names
    }
    return spread_labels(
        places, left=axes[0].start, right=axes[0].end, top=axes[1].end, bottom=axes[1].start
    )


def _label(label: Label, look: Look) -> Markup:
    class_ = f"label {look.hue}"
    return element(
        "text", label.text, class_=class_, x=label.x, y=label.y, text_anchor=label.anchor
    )


def _legend(curve: Curve, names: Sequence[str], looks: Mapping[str, Look]) -> Markup:
    if not names:
        return element("p", "No number to plot.", class_="small")
    items = []
    for name in names:
        look = _look(looks, name)
        sample = [element("path", class_="line", d="M1 6H27", stroke_dasharray=look.dash or None)]
        shows_marker = curve.style == "points" or len(curve.y[name]) <= _MOST_POINTS_WITH_MARKERS
        if curve.style == "points":
            sample = []
        if shows_marker:
            sample.append(_marker(look.marker, 14.0, 6.0, 4.0))
        svg = element(
            "svg", *sample, viewBox="0 0 28 12", width=28, height=12, aria_hidden="true",
            class_=f"series {look.hue}",
        )  # fmt: skip
        items.append(element("li", svg, name))
    return element("ul", *items, class_="legend")


def _description(curve: Curve, names: Sequence[str]) -> str:
    rows = ", ".join(names) or "nothing"
    return f"{curve.title}: {curve.y_label} against {curve.x_label}, of {rows}"
