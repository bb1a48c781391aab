"""`cinnema extend`, `transfer`, `edit`, `interpolate`, and the control of `animate`."""

import json
from collections.abc import Callable
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

Run = Callable[..., Any]


@pytest.fixture
def task(cinnema: Run, steered_weights: Path, tmp_path: Path) -> Run:
    """Run a command with weights that have a control, to the folder `out`."""

    def run(*arguments: object, weights: Path = steered_weights) -> Any:
        given = set(map(str, arguments))
        options: list[object] = ["--weights", weights, "--device", "cpu"]
        options += [] if "-o" in given else ["-o", tmp_path / "out"]
        options += [] if "--frames" in given else ["--frames", 2]
        return cinnema(*arguments, *options)

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def written(stem: str, num: int = 1) -> set[str]:
    """What a command writes for one input."""
    samples = {
        f"{stem}_{i:02d}{suffix}"
        for i in range(num)
        for suffix in (".mp4", ".json", ".nu.safetensors")
    }
    return samples | {f"{stem}_grid.mp4"}


def told(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def is_one_line_about(result: Any, *words: str) -> bool:
    errors = [line for line in result.err if line.startswith("cinnema: error: ")]
    return (
        result.code == 2
        and len(errors) == 1
        and all(word in errors[0] for word in words)
        and "Traceback" not in str(result.err)
    )


# --- extend ---------------------------------------------------------------------------------------


def test_extend_writes_long_videos_as_animate_writes_short_ones(
    task: Run, photo: Path, tmp_path: Path
) -> None:
    assert task("extend", photo, "-n", 1, "--frames", 30).code == 0
    assert names(tmp_path / "out") == written("sky_s0")
    assert read_video(tmp_path / "out/sky_s0_00.mp4").frames.shape == (30, 64, 96, 3)
    assert told(tmp_path / "out/sky_s0_00.json")["settings"]["extension"] == "continuous"


def test_the_papers_way_is_another_video(task: Run, photo: Path, tmp_path: Path) -> None:
    for method in ("continuous", "paper"):
        options = ["-n", 1, "--frames", 34, "--method", method, "--format", "npy"]
        assert task("extend", photo, *options, "-o", tmp_path / method).code == 0
    one, two = (np.load(tmp_path / m / "sky_s0_00.npy") for m in ("continuous", "paper"))
    assert np.array_equal(one[:8], two[:8])
    assert (one[30:] != two[30:]).any()


def test_extend_replays_nu(task: Run, photo: Path, tmp_path: Path) -> None:
    task("animate", photo, "-n", 1, "--seed", 4, "--direction", 90, "--format", "npy")
    nu = tmp_path / "out/sky_s4_00.nu.safetensors"
    again = tmp_path / "again"
    assert task("extend", photo, "--nu", nu, "--format", "npy", "-o", again).code == 0
    one, two = (np.load(folder / "sky_s4_00.npy") for folder in (tmp_path / "out", again))
    assert np.array_equal(one, two)
    assert told(again / "sky_s4_00.json")["given_nu"]["file"] == nu.name


# --- transfer -------------------------------------------------------------------------------------


def test_transfer_moves_every_photograph_as_the_video_does(
    task: Run, take_photo: Run, query: Path, tmp_path: Path
) -> None:
    photos = [take_photo(tmp_path / f"{name}.png", seed=i) for i, name in enumerate("ab")]
    result = task("transfer", "--motion", query, *photos)
    assert result.code == 0
    out = tmp_path / "out"
    assert names(out) == written("a_like_waves") | written("b_like_waves")
    assert "waves.mp4: 17 frames from number 0 to 16" in result.err[0]
    values = told(out / "a_like_waves_00.json")
    assert values["motion"]["file"] == "waves.mp4"
    assert values["settings"]["query"]["size"] == [80, 48]
    assert "eta" not in values["settings"]


def test_the_grid_of_a_transfer_shows_the_video_beside_the_photograph(
    task: Run, photo: Path, query: Path, tmp_path: Path
) -> None:
    task("transfer", "--motion", query, photo, "--frames", 20)
    grid = read_video(tmp_path / "out/sky_like_waves_grid.mp4").frames
    video = read_video(query).frames
    assert len(grid) == 20
    cell = grid[9, 72:128, 4:92]  # the second of three cells, one below the other
    assert cell.std() == pytest.approx(video[10].std(), rel=0.2)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "npy"])
def test_transfer_writes_every_format(
    task: Run, photo: Path, query: Path, tmp_path: Path, kind: str
) -> None:
    assert task("transfer", "--motion", query, photo, "--format", kind).code == 0
    name = "sky_like_waves_00" if kind == "png" else f"sky_like_waves_00.{kind}"
    assert len(read_video(tmp_path / "out" / name).frames) == 2


def test_a_photograph_that_cannot_be_read_does_not_stop_a_transfer(
    task: Run, photo: Path, query: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    result = task("transfer", "--motion", query, tmp_path / "bad.png", photo)
    assert result.code == 1
    assert written("sky_like_waves") == names(tmp_path / "out")


def test_a_robots_way_is_kept_and_the_json_says_so(
    task: Run, take_photo: Run, query: Path, tmp_path: Path
) -> None:
    weights, photo = tmp_path / "body.safetensors", take_photo(tmp_path / "tray.png")
    save_model(weights, tiny_body())
    for options, kept in (([], "path"), (["--keep", "residual"], "residual")):
        out = tmp_path / kept
        result = task("transfer", "--motion", query, photo, *options, "-o", out, weights=weights)
        assert result.code == 0, result.err
        settings = told(out / "tray_like_waves_00.json")["settings"]
        assert settings["keep"] == kept
        assert ("eta" in settings, "path_kept" in settings) == (kept == "path",) * 2
    both = ("--keep", "path", "--end-point", "0,0,0")
    result = task("transfer", "--motion", query, photo, *both, weights=weights)
    assert is_one_line_about(result, "keep: a hand cannot", "--end-point")


def test_the_way_of_what_has_no_hand_is_refused(task: Run, photo: Path, query: Path) -> None:
    result = task("transfer", "--motion", query, photo, "--keep", "path")
    assert is_one_line_about(result, "keep: the model steered has no end point", "residual")


def test_a_video_that_cannot_be_used_is_told(
    task: Run, photo: Path, query: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    for video, words in (
        (tmp_path / "bad.mp4", "not a video"),
        (tmp_path / "missing.mp4", "missing.mp4"),
    ):
        assert is_one_line_about(task("transfer", "--motion", video, photo), words)
    late = task("transfer", "--motion", query, photo, "--start", 1.9)
    assert is_one_line_about(late, "waves.mp4 is too short")
    assert is_one_line_about(task("transfer", "--motion", query, photo, "--start", -1), "--start")


def test_a_folder_of_frames_is_a_query_too(
    task: Run, photo: Path, tmp_path: Path, query: Path
) -> None:
    task("transfer", "--motion", query, photo, "--frames", 17, "--format", "png")
    folder = tmp_path / "out" / "sky_like_waves_00"
    again = tmp_path / "again"
    assert task("transfer", "--motion", folder, photo, "-o", again).code == 0
    values = told(again / "sky_like_sky_like_waves_00_00.json")
    assert values["motion"] == {"folder": "sky_like_waves_00"}


# --- control --------------------------------------------------------------------------------------


def test_a_direction_and_a_speed_reach_the_model(task: Run, photo: Path, tmp_path: Path) -> None:
    result = task("animate", photo, "-n", 1, "--direction", "180deg", "--speed", 0.5)
    assert result.code == 0
    right, down = told(tmp_path / "out/sky_s0_00.json")["settings"]["eta"]
    assert right == pytest.approx(-0.075 * (64 * 96) ** 0.5 / 96)
    assert abs(down) < 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--direction", "north"], ["--direction", "'north'"]),
        (["--direction", "0", "--speed", "9"], ["speed", "from 0 to", "right from -0.3 to 0.3"]),
        (["--speed", "1"], ["direction"]),
        (["--end-point", "1,2"], ["--end-point", "'1,2'"]),
        (["--end-point", "1,2,3"], ["has no end point as its control", "drift", "right from"]),
        (["--end-point", "1,2,3", "--direction", "0"], ["--end-point cannot go with"]),
    ],
)
def test_a_control_that_cannot_be_is_told(
    task: Run, photo: Path, options: list[str], words: list[str]
) -> None:
    assert is_one_line_about(task("animate", photo, "-n", 1, *options), *words)


def test_weights_without_a_control_say_so(task: Run, photo: Path, tiny_weights: Path) -> None:
    result = task("animate", photo, "--direction", 30, weights=tiny_weights)
    assert is_one_line_about(result, "tiny takes no control")


@pytest.mark.parametrize(
    ("text", "degrees"), [("30", 30), ("30deg", 30), (" -45.5 DEG ", -45.5), ("90°", 90)]
)
def test_degrees_parse(text: str, degrees: float) -> None:
    assert parse_direction(text) == degrees


@pytest.mark.parametrize("text", ["", "deg", "nan", "inf", "3 rad"])
def test_what_is_no_direction_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--direction"):
        parse_direction(text)


def test_points_parse() -> None:
    assert parse_end_point("0.6, -0.1,.25", option="--end-point") == EndPoint(x=0.6, y=-0.1, z=0.25)


# --- edit -----------------------------------------------------------------------------------------


def test_edit_lets_a_video_drift_elsewhere(task: Run, query: Path, tmp_path: Path) -> None:
    result = task("edit", query, "--direction", 120)
    assert result.code == 0
    assert names(tmp_path / "out") == written("waves_edit")
    assert "it drifts to" in result.err[0]
    values = told(tmp_path / "out/waves_edit_00.json")
    assert values["source"]["file"] == "waves.mp4"
    right, down = values["settings"]["eta"]
    assert right < 0
    assert down < 0
    assert read_video(tmp_path / "out/waves_edit_00.mp4").frames.shape == (2, 48, 80, 3)


def test_edit_asks_for_something_to_change(task: Run, query: Path) -> None:
    assert is_one_line_about(task("edit", query), "--direction", "--end-point")


def test_edit_wants_weights_with_a_control(task: Run, query: Path, tiny_weights: Path) -> None:
    result = task("edit", query, "--direction", 0, weights=tiny_weights)
    assert is_one_line_about(result, "takes no control")


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
    assert told(tmp_path / "out/sky_between_01.json")["settings"]["interpolation"] == {
        "start": {"sample": 0}, "end": {"sample": 2}, "temperature": 1.0, "share": 0.5,
    }  # fmt: skip


def test_interpolate_takes_nu_files(task: Run, photo: Path, tmp_path: Path) -> None:
    task("animate", photo, "-n", 1, "-o", tmp_path / "samples")
    nu = tmp_path / "samples/sky_s0_00.nu.safetensors"
    assert task("interpolate", photo, "--start", nu, "--steps", 2).code == 0
    assert names(tmp_path / "out") == written("sky_between", 2)
    assert told(tmp_path / "out/sky_between_00.json")["start_nu"]["file"] == nu.name
    assert is_one_line_about(task("interpolate", photo, "--end", "none.safetensors"), "none.safe")
    assert is_one_line_about(task("interpolate", photo, "--steps", 1), "--steps")


@pytest.mark.parametrize(
    ("path", "tag"), [("a/waves.mp4", "waves"), ("a b/my waves (2).mp4", "my-waves-2"), ("f/", "f")]
)
def test_videos_lend_their_names(path: str, tag: str) -> None:
    assert tag_of(Path(path)) == tag
