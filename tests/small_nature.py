"""A small nature model that tells kinds by their colours, and photographs for it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.nature.flow import KindFlowConfig
from cinnema.models.nature.kinds import KINDS, SceneFeatures
from cinnema.models.nature.model import NatureModel, NatureModelConfig
from cinnema.models.nature.motion import KindDynamics
from cinnema.synthesis.pipeline import Pipeline

# Colours of the classes, still first; a pixel is of the class whose colour is nearest.
COLOURS = torch.tensor([
    [90, 70, 60],  # still: rock
    [90, 160, 240],  # sky
    [20, 60, 130],  # water
    [250, 130, 20],  # fire
    [40, 150, 40],  # plants
    [255, 255, 255],  # falling
]) / 127.5 - 1  # fmt: skip

DYNAMICS = (
    KindDynamics(gain=1.0, period=0.0, churn=0.2),
    KindDynamics(gain=2.0, period=8.0, jitter=0.3, churn=1.0, rate=8.0),
    KindDynamics(gain=2.0, period=6.0, churn=1.0, flicker=0.1, rate=12.0),
    KindDynamics(gain=1.0, period=8.0, churn=1.0),
    KindDynamics(gain=2.0, period=8.0, rate=16.0),
)


class ByColour(nn.Module):
    """Knows classes by their colours, surely."""

    def forward(self, x0: Tensor) -> SceneFeatures:
        small = functional.avg_pool2d(x0, 2)
        away = (small[:, None] - COLOURS.view(1, -1, 3, 1, 1)).square().sum(2)
        deep = functional.adaptive_avg_pool2d(x0, 8).repeat(1, 144, 1, 1)
        return SceneFeatures(-30 * away, deep)


def nature_model(
    *, by_colour: bool = True, name: str = "small-nature", **sizes: Any
) -> NatureModel:
    """Velocities of some 2 % of the picture a step, the same whatever the photograph.

    Args:
        by_colour: Whether kinds are told by their colours, not by a network with random weights.
        name: Name of the weights.
        sizes: Fields of the configuration.
    """
    torch.manual_seed(0)
    config = NatureModelConfig(
        name=name,
        dynamics=DYNAMICS,
        kind_width=16,
        kind_size=384 if by_colour else 96,  # a network takes its time
        narrow=2,
        flow=KindFlowConfig(num_blocks=1, hidden_dim=8),
        **sizes,
    )
    model = NatureModel(config)
    if by_colour:
        model.kinds = ByColour()
    model.z_deviation.fill_(0.004)
    model.z_mean[:, 0] = 0.015  # to the right
    model.z_mean[:, -1] = 0.0
    return model.eval().requires_grad_(requires_grad=False)


@pytest.fixture(scope="session")
def nature() -> Pipeline:
    return Pipeline(nature_model())


def textured(
    class_: str, shape: tuple[int, int], *, seed: int = 0, contrast: float = 8, cells: int = 24
) -> np.ndarray:
    """Return pixels of one class ("still" or a kind) with a smooth texture of some cells."""
    generator = np.random.default_rng(seed)
    noise = torch.from_numpy(generator.normal(size=(1, 1, cells, cells)).astype(np.float32))
    fine = functional.interpolate(noise, shape, mode="bicubic", align_corners=False)[0, 0].numpy()
    colour = (COLOURS[("still", *KINDS).index(class_)].numpy() + 1) * 127.5
    levels = colour + contrast * fine[..., None]
    return levels.round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def coast() -> Callable[[int, int], np.ndarray]:
    """Sky over water, with a rock that stands in both."""

    def make(height: int, width: int) -> np.ndarray:
        picture = textured("sky", (height, width))
        picture[height // 2 :] = textured("water", (height, width), seed=1)[height // 2 :]
        rock = (slice(height // 4, 3 * height // 4), slice(2 * width // 5, 3 * width // 5))
        picture[rock] = textured("still", (height, width), seed=2)[rock]
        return picture

    return make


@pytest.fixture(scope="session")
def lake() -> Callable[[int, int], np.ndarray]:
    """Clouds over water that mirrors them, with a rock that stands in both."""

    def make(height: int, width: int) -> np.ndarray:
        sky = textured("sky", (height, width), seed=3, contrast=18, cells=8).astype(np.float32)
        away = sky - sky.mean((0, 1))
        picture = textured("water", (height, width), seed=4, contrast=2).astype(np.float32)
        axis = height // 2
        picture += 0.7 * away[::-1]
        picture[:axis] = sky[:axis]
        picture = picture.round().clip(0, 255).astype(np.uint8)
        rock = (slice(3 * height // 8, 5 * height // 8), slice(2 * width // 5, 3 * width // 5))
        picture[rock] = textured("still", (height, width), seed=2)[rock]
        return picture

    return make
