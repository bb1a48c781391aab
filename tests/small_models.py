"""A small model of nature with clips of 4 frames, and photographs and a video for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.media.videos import VideoFile
from cinnema.models.files import save_model
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import NatureModel
from cinnema.synthesis.pipeline import Pipeline
from small_nature import nature_model


def tiny_model(*, by_colour: bool = False, size: int = 128) -> NatureModel:
    """One whose motion also depends on the control, where it is given.

    Args:
        by_colour: Whether kinds are told by their colours; else everything is sky, also in a file.
        size: Width and height of the clips in pixels.
    """
    model = nature_model(
        by_colour=by_colour, name="tiny", num_frames=4, typical_drift=0.15, size=size
    )
    if not by_colour:
        model.kinds.leave.weight.zero_()
        model.kinds.leave.bias.zero_()[1 + KINDS.index("sky")] = 9
    steered = model.flow.linear.weight[1::2, -3:-1]
    steered.copy_(0.5 * torch.randn(steered.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.fixture(scope="session")
def pipe() -> Pipeline:
    """A pipeline with a model that tells kinds by their colours, and takes a drift."""
    return Pipeline(tiny_model(by_colour=True))


@pytest.fixture(scope="session")
def drifting(photograph: Callable[[int, int], np.ndarray]) -> VideoFile:
    """A sky that drifts to the right by a pixel a frame: 9 frames at 8 a second."""
    wide = photograph(64, 200)
    frames = [wide[:, 20 - t : 116 - t] for t in range(9)]
    return VideoFile(frames=np.stack(frames), fps=8.0, path=Path("drifting.mp4"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, tiny_model())
    return path


@pytest.fixture(scope="session")
def photograph() -> Callable[[int, int], np.ndarray]:
    """Smooth colours with a dark lower third, of any height and width."""

    def make(height: int, width: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        y, x = y / height, x / width
        waves = [np.sin(9 * x + 4 * y), np.cos(7 * x * y), np.sin(6 * y - 5 * x)]
        sky = 140 + 90 * np.stack(waves, axis=-1)
        return np.where(y[..., None] > 0.67, 0.3 * sky, sky).round().astype(np.uint8)

    return make
