"""An evaluation as one self-contained HTML page: style, plots and pictures are embedded."""

import base64
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from cinnema import __version__
from cinnema.evaluation.report.animations import (
    Frames,
    animated_webp,
    data_uri,
    still_webp,
    strip_frames,
    strip_png,
)
from cinnema.evaluation.report.markup import Markup, element, joined
from cinnema.evaluation.report.plots import Look, banded_rows, looks_of, plot
from cinnema.evaluation.report.tables import by_kind, results_section, shown
from cinnema.evaluation.results import Curve, Evaluation, Example
from cinnema.evaluation.statistics.bootstrap import Estimate

_LEGEND = (
    "Below each number: its 95 % interval over other source videos like these, and n, clips/source "
    "videos. Bold is the best of the rows that do not see the real clip; rows marked * do."
)


def page(evaluation: Evaluation) -> str:
    """Return the page.

    Args:
        evaluation: The results.
    """
    looks = looks_of(by_kind(evaluation.rows))
    body = [
        _header(evaluation),
        element(
            "main",
            _notes(evaluation.notes),
            _section("Numbers", element("p", _LEGEND, class_="small"), results_section(evaluation)),
            _plots(evaluation, looks),
            _exhibits(evaluation),
            _definitions(evaluation),
            _provenance(evaluation),
        ),
        element("footer", f"Made by cinnema {__version__}. ", _download(evaluation)),
    ]
    style = (files(__package__) / "report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"Evaluation of {evaluation.weights.get('name', 'a model')}"),
        element("style", Markup(style)),
    )
    return "<!DOCTYPE html>\n" + element("html", head, element("body", *body), lang="en") + "\n"


def as_json(evaluation: Evaluation) -> str:
    """Return the numbers of an evaluation as JSON text.

    Args:
        evaluation: The results.
    """
    return json.dumps(evaluation.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _section(title: str, *content: str, class_: str | None = None) -> Markup:
    return element("section", element("h2", title), *content, class_=class_)


def _header(evaluation: Evaluation) -> Markup:
    data, protocol = evaluation.data, evaluation.protocol
    split = f" ({data['split']})" if "split" in data else ""
    facts = {
        "Data": data.get("name", "–") + split,
        "Clips": _sample_size(evaluation),
        "Protocol": protocol.get("name", "–"),
        "Took": _duration(evaluation.seconds),
    }
    return element(
        "header",
        element("p", "Evaluation", class_="eyebrow"),
        element("h1", evaluation.weights.get("name", "a model")),
        element("p", protocol["about"], class_="lead") if "about" in protocol else "",
        _facts(facts, class_="key"),
    )


def _sample_size(evaluation: Evaluation) -> str:
    """The largest numbers of clips and of source videos behind a number."""
    cells = [cell for row in evaluation.rows for cell in row.cells.values()]
    sizes = [(c.num_clips, c.num_sources) for c in cells if isinstance(c, Estimate)]
    clips, sources = max(sizes, default=(0, 0))
    return f"{clips} of {sources} source videos"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _facts(facts: Mapping[str, str], *, class_: str | None = None) -> Markup:
    pairs = [
        element("div", element("dt", name), element("dd", value)) for name, value in facts.items()
    ]
    return element("dl", *pairs, class_=" ".join(filter(None, ("facts", class_))))


def _notes(notes: tuple[str, ...]) -> Markup:
    if not notes:
        return Markup()
    items = [element("li", note) for note in notes]
    title = element("h2", "Before you read the numbers")
    return element("aside", title, element("ul", *items), class_="notes")


def _plots(evaluation: Evaluation, looks: Mapping[str, Look]) -> Markup:
    if not evaluation.curves:
        return Markup()
    figures = [
        element(
            "figure",
            element("figcaption", element("h3", curve.title)),
            plot(curve, looks),
            _told_below(curve, looks),
            _numbers_of(curve),
        )
        for curve in evaluation.curves
    ]
    return _section("Plots", element("div", *figures, class_="plots"))


def _told_below(curve: Curve, looks: Mapping[str, Look]) -> Markup:
    sentences = [curve.about[:1].upper() + curve.about[1:]] if curve.about else []
    banded = banded_rows(curve, looks)
    if banded:
        whose = "" if len(banded) == len(curve.low) else f" of {', '.join(banded)}"
        sentences.append(f"Bands are 95 % intervals{whose}")
    if not sentences:
        return Markup()
    return element("p", ". ".join(s.removesuffix(".") for s in sentences) + ".", class_="small")


def _numbers_of(curve: Curve) -> Markup:
    """The values of a plot as a table, for accessibility."""
    banded = [name for name in curve.y if name in curve.low and name in curve.high]
    names = ["row", curve.x_label, curve.y_label, *(["95 %"] if banded else [])]
    heads = [element("th", name, scope="col") for name in names]
    lines = []
    for name, ys in curve.y.items():
        for i, (x, y) in enumerate(zip(curve.x[name], ys, strict=True)):
            cells = [element("th", name, scope="row"), _number(x), _number(y)]
            if name in banded:
                ends = joined([_plain(curve.low[name][i]), " to ", _plain(curve.high[name][i])])
                cells.append(element("td", ends))
            elif banded:
                cells.append(element("td"))
            lines.append(element("tr", *cells))
    table = element(
        "table",
        element("caption", curve.title, class_="hidden"),
        element("thead", element("tr", *heads)),
        element("tbody", *lines),
    )
    box = element("div", table, class_="scroll numbers", tabindex="0")
    return element("details", element("summary", "Numbers"), box)


def _number(value: float) -> Markup:
    return element("td", _plain(value))


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "–"


def _exhibits(evaluation: Evaluation) -> Markup:
    if not evaluation.examples:
        return Markup()
    return _section("To look at", *map(_exhibit, evaluation.examples))


def _exhibit(exhibit: Example) -> Markup:
    length = len(next(iter(exhibit.videos.values())))
    times = [f"t = {i}" if i == 0 else str(i) for i in strip_frames(length)]
    scale = element("div", *(element("span", t) for t in times), class_="times", aria_hidden="true")
    head = element("div", element("span"), element("span"), scale, class_="clip head")
    clips = [_clip(name, video, exhibit) for name, video in exhibit.videos.items()]
    score = element("span", f"{shown(exhibit.score, 3)} · {exhibit.key}", class_="small")
    title = element("h3", exhibit.title[:1].upper() + exhibit.title[1:], " ", score)
    return element("article", title, head, *clips, class_="exhibit")


def _clip(name: str, video: Frames, exhibit: Example) -> Markup:
    height, width = video.shape[1:3]
    label = f"{exhibit.title}, {name}"
    moving = element(
        "picture",
        element(
            "source", media="(prefers-reduced-motion: reduce)",
            srcset=data_uri(still_webp(video), "image/webp"), type="image/webp",
        ),
        element(
            "img", src=data_uri(animated_webp(video, fps=exhibit.fps), "image/webp"),
            alt=f"{label}: {len(video)} frames, moving", width=width, height=height,
        ),
    )  # fmt: skip
    times = ", ".join(map(str, strip_frames(len(video))))
    strip = element(
        "img", src=data_uri(strip_png(video), "image/png"), alt=f"{label}: frames {times}",
        class_="strip",
    )  # fmt: skip
    return element("div", element("span", name, class_="who"), moving, strip, class_="clip")


def _definitions(evaluation: Evaluation) -> Markup:
    rows = {row.name: row.about for row in evaluation.rows if row.about}
    columns = {column.name: column.about for column in evaluation.columns if column.about}
    parts = []
    if rows:
        parts += [element("h3", "Rows"), _facts(rows, class_="wide")]
    if columns:
        parts += [element("h3", "Measures"), _facts(columns, class_="wide")]
    return _section("What is what", *parts) if parts else Markup()


def _provenance(evaluation: Evaluation) -> Markup:
    parts = []
    for title, values in (
        ("Weights", evaluation.weights),
        ("Data", evaluation.data),
        ("Protocol", evaluation.protocol),
        ("Settings", evaluation.settings),
        ("Backbones, SHA-256", evaluation.backbones),
    ):
        if values:
            texts = {name.replace("_", " "): _text(value) for name, value in values.items()}
            class_ = "wide" if values is evaluation.protocol else "wide mono"
            parts += [element("h3", title), _facts(texts, class_=class_)]
    return _section("How it was measured", *parts)


def _text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _download(evaluation: Evaluation) -> Markup:
    content = base64.b64encode(as_json(evaluation).encode()).decode("ascii")
    uri = f"data:application/json;base64,{content}"
    return element("a", "The same numbers as JSON", href=uri, download="evaluation.json")
