"""`cinnema animate` with weights of nature: defaults, loops and masks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cinnema.cli.animate import Animate
from cinnema.cli.parser import parse
from cinnema.media.videos import read_video
from cinnema.synthesis.pipeline import Pipeline
from small_nature import textured

from .conftest import Run


@pytest.fixture
def natural(
    cinnema: Run, nature: Pipeline, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run a command with the small nature model, whatever weights it names."""
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: nature)
    return lambda *arguments: cinnema(*arguments, "-n", 1, "--weights", tiny_weights)


@pytest.fixture
def sea(tmp_path: Path, coast: Callable[[int, int], np.ndarray]) -> Path:
    Image.fromarray(coast(32, 48)).save(tmp_path / "sea.png")
    return tmp_path / "sea.png"


@pytest.mark.parametrize(
    ("arguments", "loop"),
    [
        (["a.jpg"], "none"),
        (["a.jpg", "--loop"], "seamless"),
        (["--loop", "a.jpg"], "seamless"),
        (["--loop", "--seed", "1", "a.jpg"], "seamless"),
        (["--loop", "pingpong", "a.jpg"], "pingpong"),
        (["a.jpg", "--loop=none"], "none"),
    ],
)
def test_loop_alone_is_seamless(arguments: Sequence[str], loop: str) -> None:
    command = parse(Animate, arguments, prog="cinnema animate")
    assert command.loop == loop
    assert command.photos == (Path("a.jpg"),)


def test_a_loop_ends_with_the_photograph_and_video_and_grid_have_the_models_frame_rate(
    natural: Run, sea: Path, tmp_path: Path
) -> None:
    options = ["--loop", "--seconds", 0.25, "--grid"]
    result = natural("animate", sea, *options, "-o", tmp_path / "out")
    assert result.code == 0
    video, grid = (read_video(path) for path in result.out)
    assert video.fps == grid.fps == 24
    assert len(video.frames) == len(grid.frames) == 6
    away = np.abs(video.frames[-1].astype(int) - np.asarray(Image.open(sea)))
    assert away.mean() < 4  # of the codec


def test_the_papers_protocol_has_16_frames_at_8_a_second(
    natural: Run, sea: Path, tmp_path: Path
) -> None:
    result = natural("animate", sea, "--protocol", "paper", "-o", tmp_path / "out")
    video = read_video(result.out[0])
    assert (len(video.frames), video.fps) == (16, 8)


def test_what_moves_by_mask_and_what_is_solid_is_told(natural: Run, tmp_path: Path) -> None:
    rock = textured("still", (32, 48))
    Image.fromarray(rock).save(tmp_path / "rock.png")
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = ["--num-frames", 3, "--fps", 2, "--format", "npy"]
    still = natural("animate", tmp_path / "rock.png", *options, "-o", tmp_path / "still")
    moved = natural(
        "animate", tmp_path / "rock.png", *options, "--move", tmp_path / "mask.png",
        "-o", tmp_path / "moved",
    )  # fmt: skip
    assert any("nothing in this photograph" in line and "--move" in line for line in still.err)
    assert any("looks solid" in line and "--keep-still" in line for line in moved.err)
    assert not (np.load(still.out[0]) != rock).any()
    assert (np.load(moved.out[0])[-1] != rock)[10:22, 10:38].mean() > 0.2


def test_a_mask_for_weights_that_know_no_kinds_is_refused(
    cinnema: Run, photo: Path, body_weights: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "mask.png")
    result = cinnema("animate", photo, "--move", tmp_path / "mask.png", "--weights", body_weights)
    assert result.is_mistake("move")


def test_html_writes_a_page_for_each_future_and_one_with_a_slider_through_all(
    natural: Run, cinnema: Run, sea: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    result = natural("animate", sea, "--format", "html", "-o", tmp_path / "one")
    assert [Path(path).name for path in result.out] == ["sea_s0_00.html"]
    options = ["--format", "html", "--weights", tiny_weights, "-o", tmp_path / "two"]
    between = cinnema("interpolate", sea, "--steps", 3, *options)
    names = [Path(path).name for path in between.out]
    assert names == [f"sea_between_{n}.html" for n in ("00", "01", "02", "grid")]
    assert '"numFutures":3' in Path(between.out[-1]).read_text("utf-8")
    assert cinnema("interpolate", sea, "--steps", 3, *options).is_mistake("exists", "--overwrite")
