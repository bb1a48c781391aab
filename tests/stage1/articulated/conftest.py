"""A tiny model of a body, and clips of a square that walks about."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cinnema.data.packing.dataset import PackedDataset
from cinnema.data.packing.preparing import prepare
from cinnema.stage1.articulated.model import ArticulatedConfig, ArticulatedStage1
from walking_square import WalkingSquare

TINY = ArticulatedConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)


@pytest.fixture
def body() -> Callable[..., ArticulatedStage1]:
    """Return what makes the same untrained model at every call."""

    def make(config: ArticulatedConfig = TINY) -> ArticulatedStage1:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return ArticulatedStage1(config)

    return make


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder: Path = tmp_path_factory.mktemp("squares") / "packed"
    prepare(WalkingSquare(), folder, encoding="raw")
    return PackedDataset(folder)
