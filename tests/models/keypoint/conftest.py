"""A tiny stage 1 of the keypoint model."""

from collections.abc import Callable

import pytest
import torch

from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1

TINY = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)


@pytest.fixture
def body() -> Callable[..., KeypointStage1]:
    """Return what makes the same untrained model at every call."""

    def make(config: KeypointConfig = TINY) -> KeypointStage1:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return KeypointStage1(config)

    return make
