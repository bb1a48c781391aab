"""The command `cinnema bench`: what it prints and writes, and mistakes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cinnema.bench import report, sections
from cinnema.bench.rows import Row, Settings

Run = Callable[..., Any]


def counted(settings: Settings) -> Iterator[Row]:
    yield Row(name="row", unit="s", values=(1.0,) * settings.runs)


def compared(settings: Settings) -> Iterator[Row]:
    slow = Row(name="slow", unit="s", values=(6.0,) * settings.runs)
    yield slow
    yield Row(name="quick", unit="s", values=(2.0,) * settings.runs, baseline=slow)
    yield Row(name="missing", unit="s", values=(), note="not installed")


def test_the_command_prints_rows_and_writes_them_as_json(
    cinnema: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sections.SECTIONS, "counted", (f"{__name__}.counted", "Counted"))
    monkeypatch.setattr(report, "find_section", lambda _: counted)
    result = cinnema("bench", "counted", "--runs", "3", "--json", tmp_path / "bench.json")
    assert result.code == 0
    assert any(line.startswith("row") for line in result.out)
    written = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert written["settings"] == {"runs": 3, "quick": False}
    assert written["sections"]["counted"]["rows"][0]["values"] == [1.0, 1.0, 1.0]


def test_the_command_draws_medians_and_ratios(
    cinnema: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sections.SECTIONS, "compared", ("", "Two cases"))
    monkeypatch.setattr(report, "find_section", lambda _: compared)
    result = cinnema("bench", "compared", "--plot", tmp_path / "bench.svg")
    assert result.code == 0
    picture = (tmp_path / "bench.svg").read_text("utf-8")
    for text in ("Two cases", "slow", "quick", ">6<", ">2  (3.00)<"):
        assert text in picture
    assert "missing" not in picture


def test_without_matplotlib_a_plot_is_refused_before_anything_is_measured(
    cinnema: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    result = cinnema("bench", "--plot", tmp_path / "bench.svg")
    assert (result.code, result.out) == (2, [])
    assert "--plot needs matplotlib: install" in result.err[-1]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("renderin",), "the bench has no section 'renderin': did you mean rendering?"),
        (("rendering", "--runs", "0"), "--runs must be at least 1, got 0"),
        (("--plot", "bench.gif"), "--plot must end in .svg or .png, got bench.gif"),
    ],
)
def test_a_mistake_is_one_line(cinnema: Run, arguments: tuple[str, ...], advice: str) -> None:
    result = cinnema("bench", *arguments)
    assert (result.code, len(result.err), result.out) == (2, 1, [])
    assert advice in result.err[0]
