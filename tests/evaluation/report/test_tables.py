"""Tables: what stands in which cell."""

import math
import re
from collections.abc import Sequence

import pytest

from cinnema.evaluation.report.tables import best_rows, results_section, shown
from cinnema.evaluation.results import Better, Column, Evaluation, Missing, Row, RowKind
from cinnema.evaluation.statistics.bootstrap import Estimate


def row(name: str, value: float, kind: RowKind = "baseline", *, sees_real: bool = False) -> Row:
    cells = {"x": Estimate(value, None, None, num_clips=1, num_sources=1)}
    return Row(name=name, kind=kind, sees_real=sees_real, cells=cells)


def best(better: Better, rows: Sequence[Row], *, digits: int = 3) -> set[str]:
    return best_rows(Column(name="x", better=better, digits=digits), rows)


def lines_of(html: str) -> dict[str, str]:
    """The rows of all tables by their names."""
    found = re.findall(r'<tr><th scope="row"[^>]*>([^<]*).*?</tr>', html)
    whole = re.findall(r'<tr><th scope="row".*?</tr>', html)
    lines: dict[str, str] = {}
    for name, line in zip(found, whole, strict=True):
        lines[name] = lines.get(name, "") + line
    return lines


def test_rows_come_by_kind_real_first(evaluation: Evaluation) -> None:
    html = str(results_section(evaluation))
    motion = html[html.index("Motion") :]
    order = re.findall(r'scope="row"[^>]*>([^<]*)<', motion)
    assert order[:3] == ["real against real", "cINN", "frozen &lt;first&gt; frame"]
    assert re.findall(r'<tbody class="kind-(\w+)"', motion) == ["real", "model", "baseline"]


def test_each_group_is_a_table_of_the_rows_that_it_has(evaluation: Evaluation) -> None:
    html = str(results_section(evaluation))
    assert re.findall(r"<caption>(\w+)</caption>", html) == ["Quality", "Distribution", "Motion"]
    quality = html[: html.index("Distribution</caption>")]
    assert "real against real" not in quality
    assert html.count('scope="col"') == 4


def test_every_number_stands_beside_its_interval_and_n(evaluation: Evaluation) -> None:
    line = lines_of(str(results_section(evaluation)))["frozen &lt;first&gt; frame"]
    text = re.sub("<[^>]*>", " ", line)
    assert re.search(r"0\.265\s+0\.255\s+to\s+0\.275\s+n 23/8", text)
    assert re.search(r"20\.10\s+n 24/8", text)
    assert "23 clips of 8 source videos" in line
    numbers = line.count('class="value"')
    assert numbers == line.count('class="n"') == 4


def test_a_missing_cell_says_why_there_and_below(evaluation: Evaluation) -> None:
    html = str(results_section(evaluation))
    line = lines_of(html)["cINN"]
    assert '<abbr title="12 clips are too few to extrapolate">–</abbr>' in line
    assert 'href="#missing-1"' in line
    assert '<li id="missing-1">12 clips are too few to extrapolate</li>' in html


def test_what_nobody_has_is_told_instead_of_a_column_of_dashes(evaluation: Evaluation) -> None:
    html = str(results_section(evaluation))
    assert "<dt>FID</dt><dd>no Inception file: give its folder with --backbones</dd>" in html
    assert html.count("no Inception file") == 1
    assert "FID" not in "".join(re.findall(r'<th scope="col".*?</th>', html))


def test_columns_that_lack_the_same_are_told_together() -> None:
    cells = {name: Missing(reason="got 2") for name in "xy"}
    other = {name: Missing(reason="got 4") for name in "xy"}
    evaluation = Evaluation(
        weights={}, data={}, protocol={}, settings={}, backbones={},
        columns=(Column(name="x", better="lower"), Column(name="y", better="lower")),
        rows=(Row(name="a", kind="model", cells=cells), Row(name="b", kind="model", cells=other)),
    )  # fmt: skip
    assert "<dt>x, y</dt><dd>got 2; got 4</dd>" in str(results_section(evaluation))


def test_the_same_reason_is_told_once() -> None:
    cells = {"x": Missing(reason="too few"), "y": Missing(reason="too few")}
    other = {"x": Estimate(1.0, None, None, 1, 1), "y": Estimate(1.0, None, None, 1, 1)}
    evaluation = Evaluation(
        weights={}, data={}, protocol={}, settings={}, backbones={},
        columns=(Column(name="x", better="lower"), Column(name="y", better="lower")),
        rows=(Row(name="a", kind="model", cells=cells), Row(name="b", kind="model", cells=other)),
    )  # fmt: skip
    html = str(results_section(evaluation))
    assert html.count("<li") == 1
    assert html.count('href="#missing-1"') == 2


def test_bold_is_the_best_of_those_who_do_not_see_the_real_clip(evaluation: Evaluation) -> None:
    lines = lines_of(str(results_section(evaluation)))
    assert '<strong class="value">0.231</strong>' in lines["cINN"]
    assert "<strong" not in lines["reconstruction"]
    assert "<strong" not in lines["real against real"]


@pytest.mark.parametrize(
    ("better", "expected"), [("lower", {"low"}), ("higher", {"high"}), ("real", {"middle"})]
)
def test_best_is_what_the_column_says(better: Better, expected: set[str]) -> None:
    rows = [row("low", 1.0), row("high", 9.0), row("middle", 6.0), row("real", 5.0, "real")]
    assert best(better, rows) == expected


def test_those_who_look_the_same_share_the_first_place() -> None:
    rows = [row("a", 0.1001), row("b", 0.1004), row("c", 0.1006)]
    assert best("lower", rows) == {"a", "b"}


def test_nobody_is_the_best_alone_nor_without_the_real_value() -> None:
    assert best("lower", [row("a", 1.0), row("b", math.nan)]) == set()
    assert best("lower", [row("a", 1.0), row("b", 0.5, sees_real=True)]) == set()
    assert best("real", [row("a", 1.0), row("b", 2.0)]) == set()


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (1234.56, 1, "1\u202f234.6"), (-0.5, 2, "−0.50"), (7.4e-6, 3, "7.4·10⁻⁶"),
        (-2e-4, 3, "−2.0·10⁻⁴"), (0.0, 3, "0.000"), (math.nan, 3, "–"), (math.inf, 1, "–"),
        (0.0005, 3, "0.001"), (12.0, 0, "12"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_readers_expect(value: float, digits: int, expected: str) -> None:
    assert shown(value, digits) == expected


def test_the_ends_of_an_interval_are_written_as_the_number_is() -> None:
    assert shown(-0.0002, 2, like=0.5) == "0.00"
    assert shown(0.0002, 2, like=0.0001) == "2.0·10⁻⁴"
