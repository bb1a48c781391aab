"""A small model of random weights, photographs, and the command line within this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from cinnema.cli.main import main
from cinnema.media.videos import write_video
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.stage1 import Stage1Config


class Result(NamedTuple):
    """What a command left: its exit code and the lines it printed."""

    code: int
    out: list[str]
    err: list[str]


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that moves everything somewhere, differently for each nu and photograph."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, tiny_model("tiny"))
    return path


@pytest.fixture(scope="session")
def steered_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that can be told the drift, too."""
    path = tmp_path_factory.mktemp("weights") / "steered.safetensors"
    save_model(path, tiny_model("steered", control_dim=2))
    return path


def tiny_model(name: str, *, control_dim: int = 0) -> WarpingModel:
    conditioner = ConditionerConfig(
        feature_dim=8, width=8, condition_dim=8, control_dim=control_dim
    )
    config = WarpingModelConfig(
        name=name,
        stage1=Stage1Config(
            z_dim=16, encoder_width=8, motion_width=8, feature_dim=8, mask_width=16,
            painter_width=16,
        ),
        conditioner=conditioner,
        flow=FlowConfig(
            z_dim=16, condition_dim=conditioner.out_dim, num_blocks=2, hidden_dim=16
        ),
    )  # fmt: skip
    torch.manual_seed(0)
    model = WarpingModel(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "backbone" not in key:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """A video in which stripes drift to the right, waves.mp4: 17 frames of 80x48 at 8 a second."""
    y, x = np.mgrid[:48, :80]
    grey = np.stack([128 + 80 * np.sin((x - t + 2 * y) / 6) for t in range(17)])
    frames = np.stack([grey] * 3, axis=-1).astype(np.uint8)
    return write_video(tmp_path / "videos" / "waves.mp4", frames, fps=8)


@pytest.fixture
def take_photo() -> Callable[..., Path]:
    """Save a small photograph: a sky with stripes over dark ground."""

    def take(path: Path, *, width: int = 96, height: int = 64, seed: int = 0) -> Path:
        y, x = np.mgrid[:height, :width]
        sky = 160 + 60 * np.sin((x + 3 * y + 11 * seed) / 7)
        ground = np.full_like(sky, 40)
        grey = np.where(y < height * 0.6, sky, ground)
        pixels = np.stack([grey * 0.8, grey * 0.9, grey], axis=-1).astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return take


@pytest.fixture
def photo(tmp_path: Path, take_photo: Callable[..., Path]) -> Path:
    """One photograph, sky.png."""
    return take_photo(tmp_path / "photos" / "sky.png")


@pytest.fixture
def cinnema(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command as the shell would, and return its exit code and lines."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # how --help and options that do not parse end
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return Result(code, captured.out.splitlines(), captured.err.splitlines())

    return run


@pytest.fixture
def animate(
    cinnema: Callable[..., Result], tiny_weights: Path, tmp_path: Path
) -> Callable[..., Result]:
    """Run `cinnema animate` with the small model, 3 frames, 2 samples, to the folder `out`."""

    def run(*arguments: object, weights: Path = tiny_weights) -> Result:
        given = set(map(str, arguments))
        options: list[object] = ["--weights", weights, "--device", "cpu"]
        options += [] if "-o" in given else ["-o", tmp_path / "out"]
        options += [] if "--frames" in given else ["--frames", 3]
        options += [] if "-n" in given else ["-n", 2]
        return cinnema("animate", *arguments, *options)

    return run
