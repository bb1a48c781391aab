"""The page and the JSON file beside it."""

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cinnema.core.errors import UserError
from cinnema.evaluation.report import write_report
from cinnema.evaluation.report.page import page
from cinnema.evaluation.results import Evaluation, Row

VOID = {"br", "circle", "img", "line", "meta", "path", "polygon", "rect", "source"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, int | float):
        yield value


def test_a_report_is_a_page_and_its_numbers(evaluation: Evaluation, tmp_path: Path) -> None:
    index = write_report(evaluation, tmp_path / "new" / "report")
    assert index == tmp_path / "new" / "report" / "index.html"
    assert sorted(f.name for f in index.parent.iterdir()) == ["evaluation.json", "index.html"]
    numbers = json.loads((index.parent / "evaluation.json").read_text(encoding="utf-8"))
    assert numbers == json.loads(json.dumps(evaluation.to_dict()))


def test_an_old_report_stays_unless_told(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report(evaluation, tmp_path)
    for name in ("index.html", "evaluation.json"):
        (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match="exists already"):
        write_report(evaluation, tmp_path)
    (tmp_path / "index.html").unlink()
    with pytest.raises(UserError, match=r"evaluation\.json exists already"):
        write_report(evaluation, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["evaluation.json"]
    write_report(evaluation, tmp_path, overwrite=True)
    assert "old" not in {f.read_text(encoding="utf-8") for f in tmp_path.iterdir()}


def test_nothing_is_written_where_a_page_cannot_be_made(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(evaluation: Evaluation) -> str:
        raise RuntimeError

    monkeypatch.setattr("cinnema.evaluation.report.report.as_json", fail)
    with pytest.raises(RuntimeError):
        write_report(evaluation, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_element_is_closed(evaluation: Evaluation) -> None:
    parsed = Page(page(evaluation))
    assert parsed.open == []
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html") == [{"lang": "en"}]


def test_the_page_loads_nothing(evaluation: Evaluation) -> None:
    text = page(evaluation)
    for _, attributes in Page(text).elements:
        for name in ("src", "srcset", "href", "data", "poster", "action"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), attributes
    assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe|<object", text)


def test_all_numbers_of_the_json_are_on_the_page(evaluation: Evaluation) -> None:
    parsed = Page(page(evaluation))
    text = "\n".join(parsed.texts).replace("−", "-").replace("\u202f", "")
    values = evaluation.to_dict()
    shown = {float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)}
    for number in (n for part in ("rows", "curves", "exhibits") for n in numbers_in(values[part])):
        assert any(abs(number - s) <= 0.006 for s in shown), number
    assert "0.231" in text
    assert "-21.32" in text
    assert "1237.5" in text
    (link,) = [a for a in parsed.all("a") if a.get("download")]
    inside = base64.b64decode(str(link["href"]).partition(",")[2])
    assert json.loads(inside) == json.loads(json.dumps(values))


def test_names_are_escaped_everywhere(evaluation: Evaluation) -> None:
    text = page(evaluation)
    for raw in ("<model>", "<first>", "<intervals>"):
        assert raw not in text
    parsed = Page(text)
    joined = "".join(parsed.texts)
    assert "sky <model> & co" in joined
    assert "8 source videos only: <intervals> are rough" in joined
    assert {"x0 & nothing else"} <= {a.get("title") for a in parsed.all("th")}


def test_pictures_say_in_words_what_they_show(evaluation: Evaluation) -> None:
    parsed = Page(page(evaluation))
    alts = [str(a["alt"]) for a in parsed.all("img")]
    assert len(alts) == 4
    assert "best by LPIPS, cINN: 5 frames, moving" in alts
    assert "best by LPIPS, cINN: frames 0, 1, 2, 3, 4" in alts
    plots = [a for a in parsed.all("svg") if a.get("role") == "img"]
    assert len(plots) == 3
    assert all(a.get("aria-label") for a in plots)
    assert all(a.get("aria-hidden") for a in parsed.all("svg") if a.get("role") != "img")


def test_readers_who_want_no_motion_get_none(evaluation: Evaluation) -> None:
    sources = Page(page(evaluation)).all("source")
    assert len(sources) == 2
    assert {a["media"] for a in sources} == {"(prefers-reduced-motion: reduce)"}


def test_an_evaluation_of_next_to_nothing_has_a_page(evaluation: Evaluation) -> None:
    bare = Evaluation(
        weights={}, data={}, protocol={}, settings={}, backbones={}, columns=(),
        rows=(Row(name="cINN", kind="model"),),
    )  # fmt: skip
    text = page(bare)
    assert Page(text).open == []
    assert "<h2>Plots" not in text
    without = dataclasses.replace(evaluation, curves=(), exhibits=(), notes=())
    assert "<figure" not in page(without)
