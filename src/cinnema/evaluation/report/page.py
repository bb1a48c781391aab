"""An evaluation as one HTML page that loads nothing: style, plots and pictures are in it."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from cinnema import __version__
from cinnema.core.text import plural
from cinnema.evaluation.report.clips import (
    animated_webp,
    data_uri,
    still_webp,
    strip_frames,
    strip_png,
)
from cinnema.evaluation.report.plots import Style, banded_rows, draw, shown_rows, styles_of
from cinnema.evaluation.report.tables import (
    Footnotes,
    by_kind,
    cell_view,
    not_measured,
    shown,
    tables_of,
)
from cinnema.evaluation.results import Curve, Evaluation, Example
from cinnema.evaluation.statistics.bootstrap import Estimate

_ARROWS = {
    "lower": ("↓", "lower is better"),
    "higher": ("↑", "higher is better"),
    "real": ("≈", "values near the real row are better"),
}


def page(evaluation: Evaluation) -> str:
    """Return the page.

    Args:
        evaluation: What was measured.
    """
    footnotes, styles = Footnotes(), styles_of(by_kind(evaluation.rows))
    tables = tables_of(evaluation.columns, evaluation.rows, footnotes)
    return _template().render(
        evaluation=evaluation,
        style=(files(__package__) / "report.css").read_text(encoding="utf-8"),
        version=__version__,
        arrows=_ARROWS,
        key_facts=_key_facts(evaluation),
        tables=tables,
        changes=list(_changes(evaluation, footnotes)),
        footnotes=footnotes.reasons,
        targets=list(_targets(evaluation)),
        not_measured=not_measured(evaluation.columns, evaluation.rows),
        plots=[_plot(curve, styles) for curve in evaluation.curves],
        examples=[_example(example) for example in evaluation.examples],
        definitions=_definitions(evaluation),
        provenance=list(_provenance(evaluation)),
        json_uri=data_uri(as_json(evaluation).encode(), "application/json"),
    )


def as_json(evaluation: Evaluation) -> str:
    """Return the numbers of an evaluation as JSON text.

    Args:
        evaluation: What was measured.
    """
    return json.dumps(evaluation.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["upper_first"] = lambda text: text[:1].upper() + text[1:]
    source = (files(__package__) / "page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)


def _key_facts(evaluation: Evaluation) -> dict[str, str]:
    data = evaluation.data
    split = f" ({data['split']})" if "split" in data else ""
    cells = [cell for row in evaluation.rows for cell in row.cells.values()]
    counts = [(c.num_clips, c.num_sources) for c in cells if isinstance(c, Estimate)]
    clips, sources = max(counts, default=(0, 0))
    return {
        "Data": data.get("name", "–") + split,
        "Clips": f"{clips} of {plural(sources, 'source video')}",
        "Protocol": evaluation.protocol.get("name", "–"),
        "Took": _duration(evaluation.seconds),
    }


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _changes(evaluation: Evaluation, footnotes: Footnotes) -> Iterator[dict[str, Any]]:
    """Yield the paired differences of each row, with their columns."""
    for row, cells in evaluation.changes.items():
        columns = [c for c in evaluation.columns if c.name in cells]
        views = [cell_view(cells[c.name], c, footnotes) for c in columns]
        yield {"row": row, "cells": list(zip(columns, views, strict=True))}


def _targets(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield each required value, and whether it is reached."""
    rows = {row.name: row.cells for row in evaluation.rows}
    for column in evaluation.columns:
        target = column.target
        cell = None if target is None else rows.get(target.row, {}).get(column.name)
        if target is not None and isinstance(cell, Estimate):
            yield {
                "name": f"{column.name}, {target.row}",
                "asked": f"{target} {column.unit}".strip(),
                "value": shown(cell.value, column.digits),
                "is_met": target.is_met(cell),
            }


def _plot(curve: Curve, styles: Mapping[str, Style]) -> dict[str, Any]:
    names = shown_rows(curve, styles)
    svgs = {
        theme: data_uri(draw(curve, styles, theme=theme).encode(), "image/svg+xml")
        for theme in ("light", "dark")
    }
    return {
        "title": curve.title,
        "svgs": svgs,
        "alt": f"{curve.y_label} against {curve.x_label}, of {', '.join(names) or 'nothing'}",
        "about": _about(curve, styles),
        "heads": ["row", curve.x_label, curve.y_label, "95 %"],
        "lines": list(_lines(curve)),
    }


def _about(curve: Curve, styles: Mapping[str, Style]) -> str:
    sentences = [curve.about[:1].upper() + curve.about[1:]] if curve.about else []
    banded = banded_rows(curve, styles)
    if banded:
        whose = "" if len(banded) == len(curve.low) else f" of {', '.join(banded)}"
        sentences.append(f"Bands are 95 % intervals{whose}")
    return "".join(f"{sentence.removesuffix('.')}. " for sentence in sentences).strip()


def _lines(curve: Curve) -> Iterator[tuple[str, str, str, str]]:
    """Yield row, x, y and interval of every point, for those who cannot see the plot."""
    for name, ys in curve.y.items():
        ends = [""] * len(ys)
        if name in curve.low and name in curve.high:
            band = zip(curve.low[name], curve.high[name], strict=True)
            ends = [f"{_plain(low)} to {_plain(high)}" for low, high in band]
        for x, y, interval in zip(curve.x[name], ys, ends, strict=True):
            yield name, _plain(x), _plain(y), interval


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "–"


def _example(example: Example) -> dict[str, Any]:
    length = len(next(iter(example.videos.values())))
    frames = strip_frames(length)
    clips = [
        {
            "row": name,
            "label": f"{example.title}, {name}",
            "num_frames": len(video),
            "height": video.shape[1],
            "width": video.shape[2],
            "still": data_uri(still_webp(video), "image/webp"),
            "animation": data_uri(animated_webp(video, fps=example.fps), "image/webp"),
            "strip": data_uri(strip_png(video), "image/png"),
        }
        for name, video in example.videos.items()
    ]
    return {
        "title": example.title,
        "score": f"{shown(example.score, 3)} · {example.key}",
        "frames": frames,
        "clips": clips,
    }


def _definitions(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    return {
        "Rows": {row.name: row.about for row in evaluation.rows if row.about},
        "Columns": {column.name: column.about for column in evaluation.columns if column.about},
    }


def _provenance(evaluation: Evaluation) -> Iterator[tuple[str, dict[str, str]]]:
    for title, values in (
        ("Weights", evaluation.weights),
        ("Data", evaluation.data),
        ("Protocol", evaluation.protocol),
        ("Settings", evaluation.settings),
        ("Networks, SHA-256", evaluation.backbones),
    ):
        if values:
            yield title, {name.replace("_", " "): _text(value) for name, value in values.items()}


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
