"""A small model of random weights, photographs, and the command line within this process."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from bodies import tiny_body
from cinnema.cli.main import main
from cinnema.media.videos import write_video
from cinnema.models.files import save_model

Run = Callable[..., "Result"]


class Result(NamedTuple):
    """What a command left: its exit code and the lines it printed."""

    code: int
    out: list[str]
    err: list[str]

    def is_mistake(self, *words: object) -> bool:
        """Whether it ended with 2, after one line of error that has the words."""
        errors = [line for line in self.err if line.startswith("cinnema: error: ")]
        return (
            (self.code, len(errors)) == (2, 1)
            and all(str(word) in errors[0] for word in words)
            and "Traceback" not in "".join(self.err)
        )


def run_command(*arguments: object) -> Result:
    """Run a command as the shell would, and return its exit code and lines."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # how --help and options that do not parse end
            code = int(stop.code or 0)
    return Result(code, out.getvalue().splitlines(), err.getvalue().splitlines())


def photograph_at(path: Path, *, width: int = 96, height: int = 64, seed: int = 0) -> Path:
    """Save a small photograph: a sky with stripes over dark ground."""
    y, x = np.mgrid[:height, :width]
    sky = 160 + 60 * np.sin((x + 3 * y + 11 * seed) / 7)
    grey = np.where(y < height * 0.6, sky, 40)
    pixels = np.stack([grey * 0.8, grey * 0.9, grey], axis=-1).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files_of(stem: str, *samples: int, suffix: str = ".mp4", grid: str = ".png") -> set[str]:
    """What a command writes for one input."""
    suffixes = (suffix, ".json", ".nu.safetensors")
    each = {f"{stem}_{sample:02d}{one}" for sample in samples for one in suffixes}
    return each | {f"{stem}_grid{grid}"}


@pytest.fixture(scope="session")
def tiny_weights(weights: Path) -> Path:
    """A model of nature that moves everything somewhere, differently for each nu."""
    return weights


@pytest.fixture(scope="session")
def body_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that decodes its frames, without a control."""
    path = tmp_path_factory.mktemp("weights") / "body.safetensors"
    save_model(path, tiny_body(steered=False))
    return path


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """A video in which stripes drift to the right, waves.mp4: 17 frames of 80x48 at 8 a second."""
    y, x = np.mgrid[:48, :80]
    grey = np.stack([128 + 80 * np.sin((x - t + 2 * y) / 6) for t in range(17)])
    frames = np.stack([grey] * 3, axis=-1).astype(np.uint8)
    return write_video(tmp_path / "videos" / "waves.mp4", frames, fps=8)


@pytest.fixture
def take_photo() -> Callable[..., Path]:
    return photograph_at


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One photograph, sky.png."""
    return photograph_at(tmp_path / "photos" / "sky.png")


@pytest.fixture
def cinnema() -> Run:
    return run_command


@pytest.fixture
def animate(tiny_weights: Path, tmp_path: Path) -> Run:
    """Run `cinnema animate` with the small model, 3 frames, 2 samples, to the folder `out`."""

    def run(*arguments: object, weights: Path = tiny_weights) -> Result:
        given = set(map(str, arguments))
        options: list[object] = ["--weights", weights, "--device", "cpu"]
        options += [] if "-o" in given else ["-o", tmp_path / "out"]
        options += [] if given & {"--num-frames", "--seconds"} else ["--num-frames", 3]
        options += [] if "-n" in given else ["-n", 2]
        return run_command("animate", *arguments, *options)

    return run
