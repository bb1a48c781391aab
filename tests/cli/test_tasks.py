"""`cinnema extend`, `transfer`, `edit`, `interpolate`, and the control of `animate`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bodies import tiny_body
from cinnema.cli.options import parse_direction, parse_end_point
from cinnema.cli.transfer import tag_of
from cinnema.core.errors import UserError
from cinnema.media.videos import read_video
from cinnema.models.control import EndPoint
from cinnema.models.files import save_model

from .conftest import Result, Run, files_of, names_in, photograph_at, run_command


@pytest.fixture
def task(tiny_weights: Path, tmp_path: Path) -> Run:
    """Run a command with weights that have a control, to the folder `out`."""

    def run(*arguments: object, weights: Path = tiny_weights) -> Result:
        given = set(map(str, arguments))
        options: list[object] = ["--weights", weights, "--device", "cpu"]
        options += [] if "-o" in given else ["-o", tmp_path / "out"]
        options += [] if "--frames" in given else ["--frames", 2]
        return run_command(*arguments, *options)

    return run


def json_at(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


# --- extend ---------------------------------------------------------------------------------------


def test_extensions_go_on_differently(task: Run, photo: Path, tmp_path: Path) -> None:
    for name in ("continuous", "paper"):
        options = ["-n", 1, "--frames", 10, "--fps", 8, "--extension", name, "--format", "npy"]
        assert task("extend", photo, *options, "-o", tmp_path / name).code == 0
        assert json_at(tmp_path / name / "sky_s0_00.json")["settings"]["extension"] == name
    one, two = (np.load(tmp_path / m / "sky_s0_00.npy") for m in ("continuous", "paper"))
    assert one.shape == (10, 64, 96, 3)
    assert (one[8:] != two[8:]).any()


def test_extend_is_animate_with_other_defaults(
    cinnema: Run, photo: Path, tmp_path: Path, body_weights: Path
) -> None:
    options = ["--weights", body_weights, "-n", 1, "--size", "model", "--format", "npy"]
    assert cinnema("extend", photo, *options, "-o", tmp_path / "a").code == 0
    long = ["--frames", 48, "--extension", "continuous"]
    assert cinnema("animate", photo, *options, *long, "-o", tmp_path / "b").code == 0
    one, two = (np.load(tmp_path / folder / "sky_s0_00.npy") for folder in "ab")
    assert len(one) == 48
    assert np.array_equal(one, two)


# --- transfer -------------------------------------------------------------------------------------


def test_transfer_moves_every_photograph_as_the_video_does(
    task: Run, query: Path, tmp_path: Path
) -> None:
    photos = [photograph_at(tmp_path / f"{name}.png", seed=i) for i, name in enumerate("ab")]
    (tmp_path / "bad.png").write_text("no picture")
    result = task(
        "transfer", "--motion", query, *photos, tmp_path / "bad.png", "--frames", 20, "--grid"
    )
    assert result.code == 1  # the others are made
    out = tmp_path / "out"
    a, b = (files_of(f"{name}_like_waves", 0, grid=".mp4") for name in "ab")
    assert names_in(out) == a | b
    assert any("waves.mp4: 5 frames from number 0 to 4" in line for line in result.err)
    values = json_at(out / "a_like_waves_00.json")
    assert values["motion"]["file"] == "waves.mp4"
    assert values["settings"]["query"]["size"] == [80, 48]
    assert "eta" not in values["settings"]
    # The second of three cells, one below the other, shows the video; it is the shorter one.
    grid, video = read_video(out / "a_like_waves_grid.mp4").frames, read_video(query).frames
    assert len(grid) == 20
    assert grid[9, 72:128, 4:92].std() == pytest.approx(video[4].std(), rel=0.2)


def test_the_path_of_a_robots_hand_is_kept_and_the_json_says_so(
    task: Run, query: Path, tmp_path: Path
) -> None:
    weights, photo = tmp_path / "body.safetensors", photograph_at(tmp_path / "tray.png")
    save_model(weights, tiny_body())
    for options, kept in (([], "path"), (["--keep", "residual"], "residual")):
        out = tmp_path / kept
        result = task("transfer", "--motion", query, photo, *options, "-o", out, weights=weights)
        assert result.code == 0, result.err
        settings = json_at(out / "tray_like_waves_00.json")["settings"]
        assert settings["keep"] == kept
        assert ("eta" in settings, "path_kept" in settings) == (kept == "path",) * 2
    both = ("--keep", "path", "--end-point", "0,0,0")
    result = task("transfer", "--motion", query, photo, *both, weights=weights)
    assert result.is_mistake("keep: a hand cannot", "--end-point")


def test_a_folder_of_frames_is_a_query_too(
    task: Run, photo: Path, tmp_path: Path, query: Path
) -> None:
    task("transfer", "--motion", query, photo, "--frames", 17, "--format", "png")
    folder = tmp_path / "out" / "sky_like_waves_00"
    again = tmp_path / "again"
    assert task("transfer", "--motion", folder, photo, "-o", again).code == 0
    values = json_at(again / "sky_like_sky_like_waves_00_00.json")
    assert values["motion"] == {"folder": "sky_like_waves_00"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--motion", "bad.mp4"], ["bad.mp4 is not a video"]),
        (["--motion", "missing.mp4"], ["missing.mp4 does not exist"]),
        (["--motion", "photos/sky.jpg"], ["sky.jpg is a photograph", "cinnema animate"]),
        (["--motion", "videos/waves.mp4", "--start", 1.9], ["waves.mp4 is too short"]),
        (["--motion", "videos/waves.mp4", "--start", -1], ["--start"]),
        (["--motion", "videos/waves.mp4", "--keep", "path"], ["tiny has no end point"]),
        (["--motion", "videos/waves.mp4", "--query-end-point", "1"], ["--query-end-point", "'1'"]),
    ],
)
def test_a_video_that_cannot_be_used_is_a_mistake(
    task: Run, photo: Path, query: Path, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch,
    options: list[object], words: list[str],
) -> None:  # fmt: skip
    assert query.exists()
    monkeypatch.chdir(tmp_path)
    Path("bad.mp4").write_text("no video")
    assert task("transfer", photo, *options).is_mistake(*words)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("path", "tag"), [("a/waves.mp4", "waves"), ("a b/my waves (2).mp4", "my-waves-2"), ("f/", "f")]
)
def test_files_are_named_after_videos(path: str, tag: str) -> None:
    assert tag_of(Path(path)) == tag


# --- control --------------------------------------------------------------------------------------


def test_a_direction_and_a_speed_reach_the_model(task: Run, photo: Path, tmp_path: Path) -> None:
    result = task("animate", photo, "-n", 1, "--direction", "180deg", "--speed", 0.5)
    assert result.code == 0
    right, down = json_at(tmp_path / "out/sky_s0_00.json")["settings"]["eta"]
    assert right == pytest.approx(-0.075 * (64 * 96) ** 0.5 / 96)
    assert abs(down) < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--direction", "north"], ["--direction", "'north'"]),
        (["--direction", "0", "--speed", "9"], ["speed", "from 0 to", "right from -0.45 to 0.45"]),
        (["--speed", "1"], ["direction"]),
        (["--end-point", "1,2"], ["--end-point", "'1,2'"]),
        (["--end-point", "1,2,3"], ["has no end point as its control", "drift", "right from"]),
        (["--end-point", "1,2,3", "--direction", "0"], ["--end-point cannot go with"]),
    ],
)
def test_a_control_that_cannot_be_is_json_at(
    task: Run, photo: Path, options: list[str], words: list[str]
) -> None:
    assert task("animate", photo, "-n", 1, *options).is_mistake(*words)


def test_weights_without_a_control_refuse_one(task: Run, photo: Path, body_weights: Path) -> None:
    result = task("animate", photo, "--direction", 30, weights=body_weights)
    assert result.is_mistake("body takes no control")


@pytest.mark.parametrize(
    ("text", "degrees"), [("30", 30), ("30deg", 30), (" -45.5 DEG ", -45.5), ("90°", 90)]
)
def test_degrees_parse(text: str, degrees: float) -> None:
    assert parse_direction(text) == degrees


@pytest.mark.parametrize("text", ["", "deg", "nan", "inf", "3 rad"])
def test_values_that_are_not_a_direction_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--direction"):
        parse_direction(text)


def test_points_parse() -> None:
    assert parse_end_point("0.6, -0.1,.25", option="--end-point") == EndPoint(x=0.6, y=-0.1, z=0.25)


# --- edit -----------------------------------------------------------------------------------------


def test_edit_lets_a_video_drift_elsewhere(task: Run, query: Path, tmp_path: Path) -> None:
    result = task("edit", query, "--direction", 120)
    assert result.code == 0
    assert names_in(tmp_path / "out") == files_of("waves_edit", 0)
    assert "it drifts to" in result.err[0]
    values = json_at(tmp_path / "out/waves_edit_00.json")
    assert values["source"]["file"] == "waves.mp4"
    right, down = values["settings"]["eta"]
    assert right < 0
    assert down < 0
    assert read_video(tmp_path / "out/waves_edit_00.mp4").frames.shape == (2, 48, 80, 3)


def test_edit_needs_a_control(task: Run, query: Path, body_weights: Path) -> None:
    assert task("edit", query).is_mistake("--direction", "--end-point")
    result = task("edit", query, "--direction", 0, weights=body_weights)
    assert result.is_mistake("takes no control")


# --- interpolate ----------------------------------------------------------------------------------


def test_interpolate_leads_from_one_sample_to_another(
    task: Run, photo: Path, tmp_path: Path
) -> None:
    options = ["--format", "npy", "--seed", 2]
    assert task("interpolate", photo, "--end", 2, "--steps", 3, *options).code == 0
    task("animate", photo, "-n", 3, *options, "-o", tmp_path / "samples")
    steps = [np.load(tmp_path / f"out/sky_between_{i:02d}.npy") for i in range(3)]
    samples = [np.load(tmp_path / f"samples/sky_s2_{i:02d}.npy") for i in range(3)]
    assert np.array_equal(steps[0], samples[0])
    assert np.array_equal(steps[2], samples[2])
    assert json_at(tmp_path / "out/sky_between_01.json")["settings"]["interpolation"] == {
        "start": {"sample": 0}, "end": {"sample": 2}, "temperature": 1.0, "share": 0.5,
    }  # fmt: skip


def test_interpolate_takes_nu_files(task: Run, photo: Path, tmp_path: Path) -> None:
    task("animate", photo, "-n", 1, "-o", tmp_path / "samples")
    nu = tmp_path / "samples/sky_s0_00.nu.safetensors"
    assert task("interpolate", photo, "--start", nu, "--steps", 2).code == 0
    assert names_in(tmp_path / "out") == files_of("sky_between", 0, 1)
    assert json_at(tmp_path / "out/sky_between_00.json")["start_nu"]["file"] == nu.name
    assert task("interpolate", photo, "--end", "none.safetensors").is_mistake("none.safetensors")
    assert task("interpolate", photo, "--steps", 1).is_mistake("--steps")
