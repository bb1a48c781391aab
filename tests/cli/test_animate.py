"""`cinnema animate` on photographs that can be read: files, names, contents."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cinnema import __version__
from cinnema.cli.options import parse_size
from cinnema.media.grids import tile
from cinnema.media.videos import read_video
from cinnema.synthesis.residual import load_motion

from .conftest import Result, Run, files_of, names_in, photograph_at, run_command

OPTIONS = [
    "--seed",
    5,
    "--grid",
    "--temperature",
    0.5,
    "--loop",
    "seamless",
    "--fps",
    10,
    "--format",
    "npy",
]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photograph_at(tmp_path_factory.mktemp("photos") / "sky.png")


@pytest.fixture(scope="module")
def made(
    sky: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    """Two samples with `OPTIONS`: what the command left, and the folder."""
    out = tmp_path_factory.mktemp("made") / "out"
    options = ["-n", 2, "--num-frames", 3, "--weights", tiny_weights, "-o", out]
    return run_command("animate", sky, *options, *OPTIONS), out


def test_each_sample_has_a_video_a_json_and_nu_and_all_share_a_grid(
    made: tuple[Result, Path],
) -> None:
    result, out = made
    assert result.code == 0
    assert names_in(out) == files_of("sky_s5", 0, 1, suffix=".npy", grid=".mp4")


def test_paths_are_standard_output_and_progress_is_plain_lines_of_standard_error(
    made: tuple[Result, Path], sky: Path
) -> None:
    result, out = made
    written = [out / name for name in ("sky_s5_00.npy", "sky_s5_01.npy", "sky_s5_grid.mp4")]
    assert result.out == [str(path) for path in written]
    *lines, last = result.err
    assert [line.rsplit(",", 1)[0] for line in lines] == [f"{sky}: 1 of 2", f"{sky}: 2 of 2"]
    assert last.startswith("cinnema: finished in ")


def test_the_json_holds_all_that_made_the_video(
    made: tuple[Result, Path], sky: Path, tiny_weights: Path
) -> None:
    values = json.loads((made[1] / "sky_s5_01.json").read_text())
    assert values["cinnema"] == __version__
    assert (values["seed"], values["sample"]) == (5, 1)
    assert values["weights"] == {
        "name": "tiny",
        "sha256": sha256(tiny_weights.read_bytes()).hexdigest(),
    }
    assert values["source"] == {"file": "sky.png", "sha256": sha256(sky.read_bytes()).hexdigest()}
    asked = {"temperature": 0.5, "motion_strength": 1.0, "loop": "seamless", "size": "native"}
    assert values["settings"].items() >= asked.items()
    assert values["output"] == {
        "video": "sky_s5_01.npy",
        "nu": "sky_s5_01.nu.safetensors",
        "format": "npy",
        "width": 96,
        "height": 64,
        "num_frames": 3,
        "fps": 10.0,
    }


def test_the_grid_shows_the_photograph_first(made: tuple[Result, Path], sky: Path) -> None:
    grid = read_video(made[1] / "sky_s5_grid.mp4").frames
    assert len(grid) == 3
    photograph = np.asarray(Image.open(sky)).astype(int)
    for frame in grid:
        assert np.abs(frame[:64, :96] - photograph).mean() < 6  # what H.264 loses


def test_a_sample_differs_from_others_and_does_not_depend_on_their_number(
    made: tuple[Result, Path], sky: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ["-n", 1, "--num-frames", 3, "--weights", tiny_weights, "-o", tmp_path]
    run_command("animate", sky, *options, *OPTIONS)
    first, second = (np.load(made[1] / f"sky_s5_0{i}.npy") for i in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(np.load(tmp_path / "sky_s5_00.npy"), first)


def test_a_nu_file_names_its_sample_and_gives_the_same_video_again(
    made: tuple[Result, Path], sky: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    nu = made[1] / "sky_s5_01.nu.safetensors"
    saved = load_motion(nu)
    assert (saved.seed, saved.sample) == (5, 1)
    options = ["--nu", nu, "--num-frames", 3, "--weights", tiny_weights, "-o", tmp_path]
    assert run_command("animate", sky, *options, *OPTIONS[5:]).code == 0
    first, again = (np.load(folder / "sky_s5_01.npy") for folder in (made[1], tmp_path))
    np.testing.assert_array_equal(first, again)
    assert json.loads((tmp_path / "sky_s5_01.json").read_text())["given_nu"]["file"] == nu.name


def test_a_picture_shows_the_photograph_and_the_middle_of_all_samples(
    sky: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    options = ["--weights", tiny_weights, "--device", "cpu", "-n", 3, "--frames", 5]
    result = run_command("animate", sky, *options, "--format", "npy", "-o", tmp_path)
    assert [path.suffix for path in map(Path, result.out)] == [".npy"] * 3
    grid = np.asarray(Image.open(tmp_path / "sky_s0_grid.png"))
    middle = [np.load(path)[2] for path in map(Path, sorted(result.out))]
    photograph = np.asarray(Image.open(sky))
    assert np.array_equal(grid, tile([[photograph, middle[0]], middle[1:]]))


@pytest.mark.parametrize("kind", ["mp4", "gif", "webp", "png"])
def test_every_format_is_written_and_read_back(
    animate: Run, photo: Path, tmp_path: Path, kind: str
) -> None:
    options = ["--format", kind, "--seconds", 0.25, "--fps", 20, "--grid"]
    result = animate(photo, "-n", 1, *options)
    assert result.code == 0
    video = tmp_path / "out" / ("sky_s0_00" if kind == "png" else f"sky_s0_00.{kind}")
    grid = tmp_path / "out" / f"sky_s0_grid.{'mp4' if kind == 'png' else kind}"
    assert read_video(video).frames.shape == (5, 64, 96, 3)
    assert read_video(video).fps == (25 if kind == "png" else 20)
    assert len(read_video(grid).frames) == 5
    assert json.loads((tmp_path / "out/sky_s0_00.json").read_text())["output"]["format"] == kind


@pytest.mark.parametrize(("size", "expected"), [("model", (128, 128)), ("64x48", (48, 64))])
def test_size_is_the_one_asked_for(
    animate: Run, photo: Path, tmp_path: Path, size: str, expected: tuple[int, int]
) -> None:
    animate(photo, "-n", 1, "--size", size, "--format", "npy")
    assert np.load(tmp_path / "out/sky_s0_00.npy").shape == (3, *expected, 3)


def test_what_the_mask_keeps_still_is_the_photograph(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 48:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    animate(photo, "--keep-still", tmp_path / "mask.png", "-n", 1, "--format", "npy")
    video, photograph = np.load(tmp_path / "out/sky_s0_00.npy"), np.asarray(Image.open(photo))
    np.testing.assert_array_equal(video[:, :, 60:], np.stack([photograph[:, 60:]] * 3))
    assert (video[:, :, :40] != photograph[:, :40]).any()
    values = json.loads((tmp_path / "out/sky_s0_00.json").read_text())
    assert values["keep_still"]["file"] == "mask.png"


def test_motion_strength_0_does_not_move(animate: Run, photo: Path, tmp_path: Path) -> None:
    animate(photo, "-n", 1, "--motion-strength", 0, "--format", "npy")
    video = np.load(tmp_path / "out/sky_s0_00.npy")
    np.testing.assert_array_equal(video, np.stack([np.asarray(Image.open(photo))] * 3))


def test_photographs_are_animated_once_each_under_names_of_their_own(
    animate: Run, tmp_path: Path
) -> None:
    for name in ("may/sky.png", "may/sea.jpg", "june/sky.png"):
        photograph_at(tmp_path / name)
    (tmp_path / "may/notes.txt").write_text("no picture")
    inputs = [tmp_path / name for name in ("may", "may/sky.png", "june/sky.png")]
    assert animate(*inputs, "-n", 1, "--num-frames", 1).code == 0
    expected = [files_of(f"{name}_s0", 0) for name in ("may_sky", "june_sky", "sea")]
    assert names_in(tmp_path / "out") == set.union(*expected)


def test_existing_files_and_folders_are_replaced_when_allowed(
    animate: Run, photo: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        result = animate(photo, "--format", "png", "--num-frames", 1, "-n", 1, "--overwrite")
        assert result.code == 0
    assert names_in(tmp_path / "out") == files_of("sky_s0", 0, suffix="")


@pytest.mark.parametrize(
    ("text", "size"),
    [("native", "native"), ("model", "model"), ("640x360", (640, 360)), ("64X48", (64, 48))],
)
def test_size_parses(text: str, size: object) -> None:
    assert parse_size(text) == size


def test_the_same_seed_gives_the_same_files_whatever_the_number_of_samples(
    sky: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    common = ["--seed", 5, "--num-frames", 3, "--weights", tiny_weights, "--device", "cpu"]
    for number in (1, 2):
        folder = tmp_path / str(number)
        assert run_command("animate", sky, *common, "-n", number, "-o", folder).code == 0
    for name in files_of("sky_s5", 0) - {"sky_s5_grid.png"}:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
