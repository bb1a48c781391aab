"""A small stage 1, and clips on which they train in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from walking_square import WalkingSquare

KEYPOINTS = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)


@pytest.fixture
def body() -> Callable[..., KeypointStage1]:
    """Return what makes the same untrained keypoint model at every call."""

    def make(config: KeypointConfig = KEYPOINTS) -> KeypointStage1:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return KeypointStage1(config)

    return make


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    folder: Path = tmp_path_factory.mktemp("squares") / "packed"
    prepare(WalkingSquare(), folder, encoding="raw")
    return PackedDataset(folder)
