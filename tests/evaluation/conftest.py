import numpy as np
import pytest
import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.crops import Scene, SceneCrops
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.stage1 import Stage1Config


@pytest.fixture(scope="session")
def model() -> WarpingModel:
    torch.manual_seed(0)
    config = WarpingModelConfig(
        name="tiny",
        stage1=Stage1Config(
            size=64, num_frames=4, num_basis=2, z_dim=16, encoder_width=8, motion_width=8,
            feature_dim=8, mask_width=16, painter_width=16,
        ),
        conditioner=ConditionerConfig(feature_dim=8, width=8, condition_dim=4),
        flow=FlowConfig(z_dim=16, condition_dim=4, num_blocks=2, hidden_dim=16, depth=1),
    )  # fmt: skip
    model = WarpingModel(config).eval()
    model.flow.initialise(torch.randn(64, 16), torch.randn(64, 4))
    return model.requires_grad_(requires_grad=False)


@pytest.fixture(scope="session")
def lpips() -> LPIPS:
    torch.manual_seed(0)
    return LPIPS("alex").eval()


def crops_of(
    name: str, texture: str, *, num: int = 4, seed: int = 0, held_out: bool = True
) -> SceneCrops:
    """A picture that drifts to the right by 2 pixels a frame, above a still lower quarter."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (num, 64, 80, 3), dtype=np.uint8)
    frames = np.stack([wide[:, :, 8 - 2 * t : 72 - 2 * t] for t in range(5)], axis=1)
    frames[:, :, 48:] = frames[:, :1, 48:]
    flow = np.zeros((num, 2, 4, 16, 16), np.float32)
    flow[:, 0, :, :12] = -2 * np.arange(1, 5)[None, :, None, None] / 64
    motion = np.zeros((num, 32, 32), np.float32)
    motion[:, :24] = 8
    scene = Scene(name, texture, held_out=held_out)
    return SceneCrops(scene=scene, frames=frames, flow=flow, motion=motion)


@pytest.fixture(scope="session")
def validation() -> list[SceneCrops]:
    return [
        crops_of("a", "clouds", seed=1),
        crops_of("b", "clouds", seed=2),
        crops_of("c", "fire", seed=3),
    ]


@pytest.fixture(scope="session")
def train() -> list[SceneCrops]:
    return [
        crops_of(name, "clouds", num=6, seed=seed, held_out=False)
        for seed, name in enumerate("defgh")
    ]
