"""A tiny model that moves and paints, with random weights, and photographs for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cinnema.media.videos import VideoFile
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.synthesis.pipeline import Pipeline

TINY = WarpingModelConfig(
    name="tiny",
    stage1=Stage1Config(
        num_frames=4,
        z_dim=16,
        encoder_width=8,
        motion_width=8,
        feature_dim=8,
        mask_width=16,
        painter_width=16,
    ),
    conditioner=ConditionerConfig(feature_dim=8, width=8, condition_dim=4),
    flow=FlowConfig(z_dim=16, condition_dim=4, num_blocks=2, hidden_dim=8, depth=1),
)


def tiny_model(*, control_dim: int = 0) -> WarpingModel:
    """Weights are drawn until everything has an effect: flow of a few per cent, mask, paint."""
    conditioner = ConditionerConfig(
        feature_dim=8, width=8, condition_dim=4, control_dim=control_dim, control_scale=0.15
    )
    flow = replace(TINY.flow, condition_dim=conditioner.out_dim)
    config = replace(TINY, conditioner=conditioner, flow=flow)
    torch.manual_seed(0)
    model = WarpingModel(config).eval().requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(1)
    model.flow.initialise(
        torch.randn(64, 16, generator=generator),
        torch.randn(64, conditioner.out_dim, generator=generator),
    )
    for parameter in model.flow.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    for layer, scale in (
        (model.stage1.motion.leave.weight, 0.1),
        (model.stage1.mask.leave.weight, 0.5),
        (model.stage1.painter.leave.weight, 0.05),
    ):
        layer.copy_(scale * torch.randn(layer.shape, generator=generator))
    model.stage1.mask.leave.bias.fill_(2.0)  # surely moving in most places, surely still in some
    return model


@pytest.fixture(scope="session")
def model() -> WarpingModel:
    return tiny_model()


@pytest.fixture(scope="session")
def steered() -> Pipeline:
    """A pipeline with a model that has a drift as its optional control."""
    return Pipeline(tiny_model(control_dim=2))


@pytest.fixture(scope="session")
def drifting(photograph: Callable[[int, int], np.ndarray]) -> VideoFile:
    """A sky that drifts to the right by a pixel a frame: 9 frames at 8 a second."""
    wide = photograph(64, 200)
    frames = [wide[:, 20 - t : 116 - t] for t in range(9)]
    return VideoFile(frames=np.stack(frames), fps=8.0, path=Path("drifting.mp4"))


@pytest.fixture(scope="session")
def weights(model: WarpingModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(path, model)
    return path


@pytest.fixture(scope="session")
def pipe(weights: Path) -> Pipeline:
    return Pipeline.from_pretrained(weights)


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


@pytest.fixture
def tiny() -> Callable[..., Stage1]:
    """Make a stage 1 that trains in seconds; options are fields of its configuration."""

    def make(*, seed: int = 0, **options: float) -> Stage1:
        widths = {
            "size": 64, "num_frames": 4, "num_basis": 2, "z_dim": 16, "encoder_width": 8,
            "motion_width": 8, "feature_dim": 8, "mask_width": 16, "painter_width": 16,
        }  # fmt: skip
        torch.manual_seed(seed)
        return Stage1(Stage1Config(**{**widths, **options}))

    return make
