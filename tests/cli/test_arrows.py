"""`cinnema animate --arrow` and `--current`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cinnema.cli.options import parse_arrow, parse_current
from cinnema.core.errors import UserError
from cinnema.models.control import Drift
from cinnema.models.files import save_model
from small_nature import nature_model, textured

from .conftest import photograph_at, run_command


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nature model of random weights, which takes most pictures for nothing in particular."""
    path = tmp_path_factory.mktemp("weights") / "nature.safetensors"
    save_model(path, nature_model(by_colour=False))
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "sky.png"
    Image.fromarray(textured("sky", (64, 96))).save(path)
    return path


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(path)
    return path


def test_arrows_are_written_beside_the_video_and_its_motion_makes_it_again(
    weights: Path, photo: Path, mask: Path, tmp_path: Path
) -> None:
    common = ["--weights", weights, "--frames", 2, "--format", "npy", "--move", mask]
    arrows = ["--arrow", "30,20,-3,1", "--arrow", "70,40,3,0.5"]
    first, again = tmp_path / "first", tmp_path / "again"
    made = run_command("animate", photo, "-n", 1, *arrows, *common, "-o", first)
    assert made.code == 0
    values = json.loads((first / "sky_s0_00.json").read_text())
    assert values["settings"]["arrows"] == [[30, 20, -3, 1], [70, 40, 3, 0.5]]
    motion = first / "sky_s0_00.nu.safetensors"
    assert run_command("animate", photo, "--nu", motion, *common, "-o", again).code == 0
    np.testing.assert_array_equal(
        np.load(first / "sky_s0_00.npy"), np.load(again / "sky_s0_00.npy")
    )


def test_arrows_that_cannot_be_are_one_line(weights: Path, photo: Path, tmp_path: Path) -> None:
    common = ["--weights", weights, "-n", 1, "--frames", 1, "-o", tmp_path]
    for arrow, words in (
        ("30,20", ["--arrow must be x,y,dx,dy", "'30,20'"]),
        ("30,20,nan,0", ["--arrow", "finite"]),
        ("96,20,1,0", ["outside the photograph, which has 96x64 pixels"]),
        ("30,20,1000,0", ["moves 1000 pixels a second"]),
    ):
        assert run_command("animate", photo, "--arrow", arrow, *common).is_mistake(*words)
    assert run_command("animate", photo, "--current", "up", *common).is_mistake("--current", "'up'")


def test_weights_that_cannot_follow_arrows_are_refused(body_weights: Path, tmp_path: Path) -> None:
    photo = photograph_at(tmp_path / "sky.png")
    for option in (["--arrow", "30,20,1,0"], ["--current", "180"]):
        result = run_command("animate", photo, "--weights", body_weights, *option, "-o", tmp_path)
        assert result.is_mistake("cannot follow them", "weights landscape")


def test_a_current_is_degrees_and_a_speed() -> None:
    assert parse_current("180") == Drift(direction=180, speed=1)
    assert parse_current("-45deg,0.5") == Drift(direction=-45, speed=0.5)
    for text in ("north", "180,fast", "180,-1", "1,2,3", "nan"):
        with pytest.raises(UserError, match="--current must be"):
            parse_current(text)
    assert parse_arrow("400, 300,30,-5") == (400, 300, 30, -5)
