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


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("renderin",), "the bench has no section 'renderin': did you mean rendering?"),
        (("rendering", "--runs", "0"), "--runs must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(cinnema: Run, arguments: tuple[str, ...], advice: str) -> None:
    result = cinnema("bench", *arguments)
    assert (result.code, len(result.err), result.out) == (2, 1, [])
    assert advice in result.err[0]
