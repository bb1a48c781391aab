"""The plot of a training's numbers."""

import json
from pathlib import Path
from xml.etree import ElementTree

from cinnema.recipes.summary import draw_summary


def write_numbers(folder: Path, *lines: dict[str, float | None]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def texts_of(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter() if element.text]


def test_every_number_has_a_curve_and_its_last_value(tmp_path: Path) -> None:
    write_numbers(
        tmp_path,
        {"clips": 32, "seconds": 3600.0, "flow": 0.9},
        {"clips": 64, "seconds": 7200.0, "flow": 0.123456},
        {"clips": 64, "seconds": 7200.0, "error_<sky>": 0.75},
    )
    path = draw_summary(tmp_path)
    assert path == tmp_path / "summary.svg"
    texts = texts_of(path)
    assert f"{tmp_path.name}: 64 clips in 2.00 h, 0.0 clips/s" in texts
    assert {"flow", "0.1235", "error_<sky>", "0.75"} <= set(texts)
    root = ElementTree.parse(path).getroot()
    curves = root.findall(".//{*}path[@class='curve']")
    assert [curve.attrib["d"].count("L") for curve in curves] == [1, 0]


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    write_numbers(
        tmp_path,
        {"clips": 1, "seconds": 1.0, "flow": None, "mask": None},
        {"clips": 2, "seconds": 2.0, "flow": 1.0},
    )
    path = draw_summary(tmp_path)
    assert path is not None
    texts = texts_of(path)
    assert "flow" in texts
    assert "mask" not in texts


def test_a_run_without_numbers_has_no_plot(tmp_path: Path) -> None:
    assert draw_summary(tmp_path) is None
    write_numbers(tmp_path, {"clips": 1, "seconds": 1.0})
    assert draw_summary(tmp_path) is None
    assert not (tmp_path / "summary.svg").exists()
