"""The command line itself, and the commands beside `animate`."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cinnema import __version__
from cinnema.cli import demo, info
from cinnema.cli.main import COMMANDS

Run = Callable[..., Any]


def run_python(*arguments: str) -> str:
    """Run Python afresh, with the modules that the tests see, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def test_help_and_mistakes_are_answered_without_torch(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("stage1: {zdim: 3}")
    code = f"""
import sys
from cinnema.cli.main import main
for line in (
    "--help", "animate --help", "data --help", "anmate", "animate --fames 3", "animate missing.jpg",
    "animate clip.mp4", "animate {photo} --fps 0", "animate {photo} --seed -1", "edit photo.jpg",
    "animate {photo} --size big", "animate {photo} --direction north", "info landscap",
    "animate {photo} --nu missing", "animate {photo} --weights landscap", "data check missing",
    "animate {photo} -o {photo}", "edit missing.mp4 --speed 2", "interpolate missing.jpg",
    "transfer {photo} --motion missing", "data prepare folder missing out",
    "evaluate landscape missing", "evaluate landscap .", "evaluate landscape . --clips 1",
    "measure swap landscape missing", "measure swap landscape . --stride 0",
    "validate landscap --data .", "validate --data missing", "transfer {photo} --keep word",
    "train stage1 robot --data . --run r --motion.clipz 3", "train stage1 rbot --data . --run r",
    "train bundle --run r -o m.safetensors --flow.hiden-dim 8",
    "train kinds --pictures . --run r --kinds.clip 3", "train flow --data . --run r --flow.kep 1",
    "train paper bair --data . --run r --stage1.zdim 3", "train paper dtdb --data . --run r",
    "finetune --data . -o m.safetensors --flow.rate 1",
    "train paper bair --data . --run r --config {tmp_path}/wrong.yaml",
):
    try:
        code = main(line.split())
    except SystemExit as stop:
        code = stop.code
    assert code == (0 if "--help" in line else 2), line
print(sorted({{"torch", "numpy", "cv2", "PIL", "av", "pydantic"}} & sys.modules.keys()))
"""
    assert run_python("-c", code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["", "train", "data", *COMMANDS])
def test_every_command_has_help(cinnema: Run, command: str) -> None:
    result = cinnema(*command.split(), "--help")
    assert (result.code, result.err) == (0, [])
    assert "usage: cinnema" in result.out[0]
    text = " ".join(result.out)
    assert "{None}" not in text
    assert "(default: )" not in text


def test_help_is_a_command_too(cinnema: Run) -> None:
    assert cinnema("help") == cinnema("--help")
    assert cinnema("help", "animate") == cinnema("animate", "--help")


def test_the_help_lists_every_command_and_the_version(cinnema: Run) -> None:
    listed = "\n".join(cinnema("--help").out)
    assert all(f"  {name}  " in listed for name in COMMANDS)
    assert "--version" in listed


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(cinnema: Run, option: str) -> None:
    assert cinnema(option) == (0, [f"cinnema {__version__}"], [])


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("animte sky.jpg", "there is no command 'animte': did you mean animate?"),
        ("train stag1 --data x", "there is no command 'train stag1': did you mean train stage1?"),
        ("prepare folder", "there is no command 'prepare': did you mean data prepare?"),
        ("sky.jpg", "to animate a photograph, cinnema animate sky.jpg"),
        ("xyzzy", "there is no command 'xyzzy': cinnema --help lists all"),
        ("animate a.jpg --frmaes 3", "has no option --frmaes: did you mean --frames?"),
        ("animate a.jpg --frmaes=3", "has no option --frmaes: did you mean --frames?"),
        ("evaluate --sede 1", "has no option --sede: did you mean --seed?"),
        ("info --xyzzy", "has no option --xyzzy: see cinnema info --help"),
        ("info landscape robot", "does not take 'robot' as well"),
    ],
)
def test_a_mistyped_name_gets_one_suggestion(cinnema: Run, arguments: str, advice: str) -> None:
    result = cinnema(*arguments.split())
    assert (result.code, len(result.err), result.out) == (2, 1, [])
    assert advice in result.err[0]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (
            "transfer a.jpg --motion b.mp4 --keep word",
            "invalid choice 'word' for argument '--keep', use one of path, residual: "
            "see cinnema transfer --help",
        ),
        ("transfer a.jpg", "cinnema transfer needs --motion VIDEO: see cinnema transfer --help"),
        ("evaluate", "cinnema evaluate needs NAME|FILE and FOLDER: see "),
        ("train stage1 robot", "cinnema train stage1 needs --data PATH and --run PATH: see "),
        ("animate a.jpg -n x", "-n/--num-samples: invalid literal for int() with base 10: 'x'"),
        ("animate a.jpg -n", "Missing value for argument '-n/--num-samples'"),
    ],
)
def test_a_missing_or_invalid_value_is_one_line(cinnema: Run, arguments: str, advice: str) -> None:
    result = cinnema(*arguments.split())
    assert (result.code, len(result.err), result.out) == (2, 1, [])
    assert f"cinnema: error: {advice}" in result.err[0]


@pytest.mark.parametrize("arguments", ["", "train"])
def test_without_a_command_the_commands_are_listed(cinnema: Run, arguments: str) -> None:
    result = cinnema(*arguments.split())
    assert (result.code, result.out) == (2, [])
    assert "train stage1" in "\n".join(result.err)


def test_the_module_runs_as_the_command_does() -> None:
    assert run_python("-m", "cinnema", "--version") == f"cinnema {__version__}\n"


def test_the_examples_are_three_small_photographs_with_attribution() -> None:
    photos = sorted(demo.example_folder().glob("*.jpg"))
    attribution = (demo.example_folder() / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert len(photos) == 3
    for photo in photos:
        assert f"`{photo.name}`" in attribution
        assert photo.stat().st_size < 250_000
        with Image.open(photo) as image:
            assert image.width == 1280
            assert image.height % 2 == 0
            assert not image.getexif()


def test_demo_animates_the_examples_and_tells_where(
    cinnema: Run,
    take_photo: Run,
    tiny_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_photo(tmp_path / "examples/beach.jpg")
    monkeypatch.setattr(demo, "example_folder", lambda: tmp_path / "examples")
    for _ in range(2):  # an earlier demo is replaced
        result = cinnema("demo", "-o", tmp_path / "demo", "-n", 1, "--weights", tiny_weights)
        assert result.code == 0
        assert str(tmp_path / "demo") in result.err[-1]
    assert (tmp_path / "demo/beach_s0_grid.mp4").exists()


def test_info_tells_name_hash_sizes_configuration_and_card(
    cinnema: Run, tiny_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "copy.safetensors"
    weights.write_bytes(tiny_weights.read_bytes())
    weights.with_suffix(".md").write_text("# tiny\n\nMoves\nanything [so].\n\nMore.")
    result = cinnema("info", weights)

    text = "\n".join(result.out)
    assert result.code == 0
    assert "tiny" in result.out[0]
    assert "num_blocks = 1" in text
    assert "kind_width = 16" in text
    assert result.out[-1].endswith("Moves anything [so].")


def test_info_without_a_card_says_so(cinnema: Run, tiny_weights: Path) -> None:
    assert cinnema("info", tiny_weights).out[-1].endswith("none beside the file")
    assert info.card_summary(None) is None


def test_info_of_no_weights_is_the_users_mistake(cinnema: Run, tmp_path: Path) -> None:
    result = cinnema("info", tmp_path / "none.safetensors")
    assert result.code == 2
    assert len(result.err) == 1
