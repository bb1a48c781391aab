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
from cinnema.evaluation.results import Evaluation, Row, Target

VOID = {"br", "img", "meta", "source"}


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

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


@pytest.fixture(scope="module")
def text(evaluation: Evaluation) -> str:
    return page(evaluation)


@pytest.fixture(scope="module")
def parsed(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def plain(evaluation: Evaluation) -> Evaluation:
    return dataclasses.replace(evaluation, curves=())


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, int | float):
        yield value


def test_a_report_is_a_page_and_its_numbers(plain: Evaluation, tmp_path: Path) -> None:
    index = write_report(plain, tmp_path / "new" / "report")
    assert index == tmp_path / "new" / "report" / "index.html"
    assert sorted(f.name for f in index.parent.iterdir()) == ["evaluation.json", "index.html"]
    numbers = json.loads((index.parent / "evaluation.json").read_text(encoding="utf-8"))
    assert numbers == json.loads(json.dumps(plain.to_dict()))


def test_an_old_report_is_replaced_only_with_overwrite(plain: Evaluation, tmp_path: Path) -> None:
    write_report(plain, tmp_path)
    for name in ("index.html", "evaluation.json"):
        (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match="exists already"):
        write_report(plain, tmp_path)
    (tmp_path / "index.html").unlink()
    with pytest.raises(UserError, match=r"evaluation\.json exists already"):
        write_report(plain, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["evaluation.json"]
    write_report(plain, tmp_path, overwrite=True)
    assert "old" not in {f.read_text(encoding="utf-8") for f in tmp_path.iterdir()}


def test_nothing_is_written_where_a_page_cannot_be_made(
    plain: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(evaluation: Evaluation) -> str:
        raise RuntimeError

    monkeypatch.setattr("cinnema.evaluation.report.as_json", fail)
    with pytest.raises(RuntimeError):
        write_report(plain, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_element_is_closed(parsed: Page) -> None:
    assert parsed.open == []
    assert len(parsed.all("h1")) == 1
    assert parsed.all("html") == [{"lang": "en"}]


def test_the_page_loads_nothing(text: str, parsed: Page) -> None:
    for _, attributes in parsed.elements:
        for name in ("src", "srcset", "href", "data", "poster", "action"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), attributes
    assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe|<object", text)


def test_all_numbers_of_the_json_are_on_the_page(evaluation: Evaluation, parsed: Page) -> None:
    text = "\n".join(parsed.texts).replace("−", "-").replace("\u202f", "")
    values = evaluation.to_dict()
    shown = {float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text)}
    for number in (n for part in ("rows", "curves", "examples") for n in numbers_in(values[part])):
        assert any(abs(number - s) <= 0.006 for s in shown), number
    for number in ("0.231", "-21.32", "1237.5"):
        assert number in text
    (link,) = [a for a in parsed.all("a") if a.get("download")]
    inside = base64.b64decode(str(link["href"]).partition(",")[2])
    assert json.loads(inside) == json.loads(json.dumps(values))


def test_names_are_escaped_everywhere(text: str, parsed: Page) -> None:
    for raw in ("<model>", "<first>", "<intervals>"):
        assert raw not in text
    joined = "".join(parsed.texts)
    assert "sky <model> & co" in joined
    assert "8 source videos only: <intervals> are rough" in joined
    assert "x0 & nothing else" in {a.get("title") for a in parsed.all("th")}


def test_images_have_descriptions(parsed: Page) -> None:
    alts = [str(a["alt"]) for a in parsed.all("img")]
    assert len(alts) == 3 + 4
    assert "LPIPS against frame, of cINN, frozen <first> frame" in alts
    assert "best by LPIPS, cINN: 5 frames, moving" in alts
    assert "best by LPIPS, cINN: frames 0, 1, 2, 3, 4" in alts


def test_images_follow_the_theme_and_the_wish_for_no_motion(parsed: Page) -> None:
    media = [a["media"] for a in parsed.all("source")]
    assert media == ["(prefers-color-scheme: dark)"] * 3 + ["(prefers-reduced-motion: reduce)"] * 2


def test_a_cell_shows_number_interval_and_counts(text: str) -> None:
    line = re.search(r"<tr><th[^>]*>frozen &lt;first&gt; frame</th>.*?</tr>", text, re.DOTALL)
    assert line is not None
    words = re.sub(r"<[^>]*>", " ", line[0])
    assert re.search(r"0\.265\s+0\.255 to 0\.275\s+n 23/8", words)
    assert re.search(r"20\.10\s+n 24/8", words)
    assert "23 clips of 8 source videos" in line[0]


def test_reasons_of_missing_numbers_are_in_the_cell_and_below(text: str) -> None:
    assert '<abbr title="12 clips are too few to extrapolate">–</abbr>' in text
    assert '<li id="missing-1">12 clips are too few to extrapolate</li>' in text
    assert "<dt>FID</dt><dd>no Inception file: give its folder with --backbones</dd>" in text
    assert text.count("no Inception file") == 1


def test_changes_and_required_values_are_on_the_page(evaluation: Evaluation) -> None:
    lpips, *others = evaluation.columns
    strict = dataclasses.replace(lpips, target=Target(kind="at most", limit=0.2))
    changed = dataclasses.replace(
        evaluation,
        columns=(strict, *others),
        changes={"cINN": {"LPIPS": evaluation.rows[1].cells["LPIPS"]}},
        settings={"against": "old.safetensors"},
        curves=(),
    )
    text = page(changed)
    assert "cINN: change from old.safetensors" in text
    assert "LPIPS, cINN: 0.231, required at most 0.2" in text
    assert '<span class="not-met">not met</span>' in text


def test_an_evaluation_of_next_to_nothing_has_a_page(evaluation: Evaluation) -> None:
    bare = Evaluation(
        weights={}, data={}, protocol={}, settings={}, backbones={}, columns=(),
        rows=(Row(name="cINN", kind="model"),),
    )  # fmt: skip
    text = page(bare)
    assert Page(text).open == []
    assert "<h2>Plots" not in text
    without = dataclasses.replace(evaluation, curves=(), examples=(), notes=())
    assert "<figure" not in page(without)
