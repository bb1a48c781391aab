"""A training at a glance: every number of its record against the clips seen, as one SVG file."""

import math
from collections.abc import Sequence
from pathlib import Path

from cinnema.core.files import atomic_path
from cinnema.evaluation.report.axes import Axis, make_axis
from cinnema.evaluation.report.markup import Markup, element
from cinnema.training.metrics_log import MetricsLog

_WIDTH, _HEIGHT, _COLUMNS = 300.0, 190.0, 3
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 34.0, 28.0
_HEAD = 34.0
_DIGIT = 6.0  # width of one at the size of the ticks' labels

_STYLE = """
svg { color-scheme: light dark; --ink: #1b1f24; --soft: #6b7280; --line: #1f6feb; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e8eb; --soft: #9aa3ad; --line: #6cb0ff; } }
text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.title { font-weight: 600; font-size: 13px; fill: var(--ink); }
.grid { stroke: var(--soft); stroke-opacity: .25; }
.curve { stroke: var(--line); stroke-width: 1.5; fill: none; stroke-linejoin: round; }
.last { fill: var(--line); }
"""

Points = Sequence[tuple[float, float]]


def draw_summary(folder: Path) -> Path | None:
    """Draw `summary.svg` from the `metrics.jsonl` of a run.

    Args:
        folder: Of the run.

    Returns:
        The file; None where nothing has been recorded.

    Raises:
        UserError: The file cannot be written.
    """
    lines = list(MetricsLog(folder / "metrics.jsonl").lines())
    names = [name for line in lines for name in line if name not in ("clips", "seconds")]
    curves = {name: _points(lines, name) for name in dict.fromkeys(names)}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    last = lines[-1]
    hours = last["seconds"] / 3600
    pace = last["clips"] / max(last["seconds"], 1e-9)
    title = f"{folder.name}: {last['clips']:,} clips in {hours:.2f} h, {pace:.1f} clips/s"
    path = folder / "summary.svg"
    with atomic_path(path, overwrite=True) as part:
        part.write_text(_page(title, curves), encoding="utf-8")
    return path


def _points(lines: Sequence[dict[str, float | None]], name: str) -> Points:
    pairs = ((line["clips"], line.get(name)) for line in lines)
    return [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(y)]


def _page(title: str, curves: dict[str, Points]) -> str:
    rows = math.ceil(len(curves) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _HEAD + rows * _HEIGHT
    end = max(x for points in curves.values() for x, _ in points)
    panels = [
        element(
            "g",
            _panel(name, points, end=end),
            transform=f"translate({i % _COLUMNS * _WIDTH:g} {_HEAD + i // _COLUMNS * _HEIGHT:g})",
        )
        for i, (name, points) in enumerate(curves.items())
    ]
    return element(
        "svg",
        element("style", Markup(_STYLE)),
        element("text", title, class_="title", x=10.0, y=20.0),
        *panels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
    )


def _panel(name: str, points: Points, *, end: float) -> Markup:
    y = make_axis([y for _, y in points], start=_HEIGHT - _BOTTOM, end=_TOP, most=4)
    x = make_axis([0.0, end], start=_LEFT, end=_WIDTH - _RIGHT, most=4, margin=0.0)
    places = [f"{x.place(a):.1f} {y.place(b):.1f}" for a, b in points]
    last_x, last_y = points[-1]
    return element(
        "g",
        *_frame(x, y),
        element("text", name, class_="title", x=_LEFT, y=_TOP - 12),
        element(
            "text", f"{last_y:.4g}", class_="last", x=x.end, y=_TOP - 12, text_anchor="end"
        ),
        element("path", class_="curve", d="M" + "L".join(places)),
        element("circle", class_="last", cx=x.place(last_x), cy=y.place(last_y), r=2.5),
    )  # fmt: skip


def _frame(x: Axis, y: Axis) -> list[Markup]:
    parts = []
    for tick, text in zip(y.ticks, y.labels(), strict=True):
        place = y.place(tick)
        parts.append(element("line", class_="grid", x1=x.start, x2=x.end, y1=place, y2=place))
        parts.append(element("text", text, x=x.start - 6, y=place + 4, text_anchor="end"))
    for tick, text in zip(x.ticks, x.labels(), strict=True):
        place = min(x.place(tick), x.end - _DIGIT)
        parts.append(element("text", text, x=place, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle"))
    return parts
