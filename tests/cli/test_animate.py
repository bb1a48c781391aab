"""`cinnema animate` on photographs that are fine: files, names, contents."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinnema import __version__
from cinnema.cli.options import parse_size
from cinnema.media.videos import read_video
from cinnema.synthesis.residual import load_motion

Run = Callable[..., Any]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def frames(path: Path) -> np.ndarray:
    return np.load(path)


def test_each_sample_has_a_video_a_json_and_nu_and_all_share_a_grid(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    result = animate(photo)

    assert result.code == 0
    assert names(tmp_path / "out") == {
        f"sky_s0_0{i}{suffix}" for i in (0, 1) for suffix in (".mp4", ".json", ".nu.safetensors")
    } | {"sky_s0_grid.mp4"}


def test_standard_output_is_the_paths_of_the_videos(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    expected = [out / f"sky_s0_{name}.mp4" for name in ("00", "01", "grid")]
    assert animate(photo).out == [str(path) for path in expected]


def test_progress_off_a_terminal_is_plain_lines(animate: Run, photo: Path) -> None:
    *lines, last = animate(photo).err
    assert [line.rsplit(",", 1)[0] for line in lines] == [
        f"{photo}: 1 of 2",
        f"{photo}: 2 of 2",
    ]
    assert last.startswith("cinnema: finished in ")


def test_the_videos_have_the_photographs_size_and_the_length_asked_for(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    animate(photo, "--frames", 5, "--fps", 12)
    video = read_video(tmp_path / "out/sky_s0_00.mp4")
    assert video.frames.shape == (5, 64, 96, 3)
    assert video.fps == 12


@pytest.mark.parametrize(
    ("size", "expected"), [("model", (128, 128)), ("64x48", (48, 64)), ("native", (64, 96))]
)
def test_size_is_the_one_asked_for(
    animate: Run, photo: Path, tmp_path: Path, size: str, expected: tuple[int, int]
) -> None:
    animate(photo, "-n", 1, "--size", size, "--format", "npy")
    assert frames(tmp_path / "out/sky_s0_00.npy").shape == (3, *expected, 3)


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp", "png", "npy"])
def test_every_format_is_written_and_read_back(
    animate: Run, photo: Path, tmp_path: Path, kind: str
) -> None:
    assert animate(photo, "-n", 1, "--format", kind).code == 0
    video = tmp_path / "out" / ("sky_s0_00" if kind == "png" else f"sky_s0_00.{kind}")
    grid = tmp_path / "out" / f"sky_s0_grid.{'mp4' if kind in ('png', 'npy') else kind}"
    assert read_video(video).frames.shape[1:] == (64, 96, 3)
    assert len(read_video(grid).frames) == 3
    assert json.loads((tmp_path / "out/sky_s0_00.json").read_text())["output"]["format"] == kind


def test_the_grid_shows_the_photograph_first(animate: Run, photo: Path, tmp_path: Path) -> None:
    animate(photo, "-n", 3)
    grid = read_video(tmp_path / "out/sky_s0_grid.mp4").frames
    photograph = np.asarray(Image.open(photo)).astype(int)
    for frame in grid:
        assert np.abs(frame[:64, :96] - photograph).mean() < 6  # what H.264 loses


def test_samples_differ(animate: Run, photo: Path, tmp_path: Path) -> None:
    animate(photo, "--format", "npy")
    first, second = (frames(tmp_path / f"out/sky_s0_0{i}.npy") for i in (0, 1))
    assert (first != second).any()


def test_a_sample_is_the_same_whatever_their_number(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    animate(photo, "-n", 1, "--format", "npy", "-o", tmp_path / "one")
    animate(photo, "-n", 4, "--format", "npy", "-o", tmp_path / "four")
    one, four = (frames(tmp_path / name / "sky_s0_00.npy") for name in ("one", "four"))
    np.testing.assert_array_equal(one, four)


def test_the_json_tells_all_that_made_the_video(
    animate: Run, photo: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    animate(photo, "--seed", 5, "--temperature", 0.5, "--loop", "crossfade", "--fps", 10)
    values = json.loads((tmp_path / "out/sky_s5_01.json").read_text())

    assert values["cinnema"] == __version__
    assert (values["seed"], values["sample"]) == (5, 1)
    assert values["weights"] == {
        "name": "tiny",
        "sha256": sha256(tiny_weights.read_bytes()).hexdigest(),
    }
    assert values["source"] == {
        "file": "sky.png",
        "sha256": sha256(photo.read_bytes()).hexdigest(),
    }
    asked = {"temperature": 0.5, "motion_strength": 1.0, "loop": "crossfade", "size": "native"}
    assert values["settings"].items() >= asked.items()
    assert values["output"] == {
        "video": "sky_s5_01.mp4",
        "nu": "sky_s5_01.nu.safetensors",
        "format": "mp4",
        "width": 96,
        "height": 64,
        "num_frames": 3,
        "fps": 10.0,
    }


def test_nu_loaded_again_gives_the_same_video(animate: Run, photo: Path, tmp_path: Path) -> None:
    animate(photo, "--seed", 3, "--temperature", 0.7, "--format", "npy")
    nu = tmp_path / "out/sky_s3_01.nu.safetensors"
    result = animate(photo, "--nu", nu, "--format", "npy", "-o", tmp_path / "again")

    assert result.code == 0
    first, again = (frames(tmp_path / name / "sky_s3_01.npy") for name in ("out", "again"))
    np.testing.assert_array_equal(first, again)
    values = json.loads((tmp_path / "again/sky_s3_01.json").read_text())
    assert values["given_nu"]["file"] == nu.name


def test_the_nu_file_names_its_seed_and_sample(animate: Run, photo: Path, tmp_path: Path) -> None:
    animate(photo, "--seed", 9)
    saved = load_motion(tmp_path / "out/sky_s9_01.nu.safetensors")
    assert (saved.seed, saved.sample) == (9, 1)


def test_what_the_mask_keeps_still_is_the_photograph(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 48:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    animate(photo, "--keep-still", tmp_path / "mask.png", "-n", 1, "--format", "npy")

    video = frames(tmp_path / "out/sky_s0_00.npy")
    photograph = np.asarray(Image.open(photo))
    np.testing.assert_array_equal(video[:, :, 60:], np.stack([photograph[:, 60:]] * 3))
    values = json.loads((tmp_path / "out/sky_s0_00.json").read_text())
    assert values["keep_still"]["file"] == "mask.png"


def test_motion_strength_0_stands_still(animate: Run, photo: Path, tmp_path: Path) -> None:
    animate(photo, "-n", 1, "--motion-strength", 0, "--format", "npy")
    video = frames(tmp_path / "out/sky_s0_00.npy")
    np.testing.assert_array_equal(video, np.stack([np.asarray(Image.open(photo))] * 3))


def test_folders_give_their_pictures(animate: Run, take_photo: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        take_photo(tmp_path / "trip" / name)
    (tmp_path / "trip/notes.txt").write_text("no picture")

    assert animate(tmp_path / "trip", "-n", 1).code == 0
    assert {"a_s0_00.mp4", "b_s0_00.mp4"} <= names(tmp_path / "out")


def test_a_photograph_named_twice_is_animated_once(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    assert len(animate(photo, photo.parent, "-n", 1).out) == 2


def test_photographs_of_one_name_do_not_collide(
    animate: Run, take_photo: Run, tmp_path: Path
) -> None:
    photos = [take_photo(tmp_path / folder / "sky.png") for folder in ("may", "june")]
    assert animate(*photos, "-n", 1).code == 0
    assert {"may_sky_s0_00.mp4", "june_sky_s0_00.mp4"} <= names(tmp_path / "out")


def test_existing_output_is_replaced_when_told_to(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert animate(photo, "--format", "png", "--overwrite").code == 0
    assert len(names(tmp_path / "out")) == 7


@pytest.mark.parametrize(
    ("text", "size"),
    [("native", "native"), ("model", "model"), ("640x360", (640, 360)), ("64X48", (64, 48))],
)
def test_size_parses(text: str, size: object) -> None:
    assert parse_size(text) == size
