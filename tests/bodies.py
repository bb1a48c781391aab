"""A tiny model of a robot, with random weights: it tells where its hand goes, if wrongly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cinnema.media.videos import VideoFile
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.model import EndPointRange, KeypointModel, KeypointModelConfig
from cinnema.models.keypoint.stage1 import KeypointConfig

STAGE1 = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)
FREE = EndPointRange(low=(-5.0,) * 3, high=(5.0,) * 3)
TIGHT = EndPointRange(low=(-0.01,) * 3, high=(0.01,) * 3)


def body_config(
    *, steered: bool = True, landmarks: int = 3, end_point: EndPointRange = FREE
) -> KeypointModelConfig:
    """What the tiny body is made of, which can be told an end point unless it is not `steered`."""
    stage1 = replace(STAGE1, landmarks=landmarks)
    conditioner = ConditionerConfig(
        feature_dim=stage1.feature_dim,
        width=8,
        condition_dim=4,
        control_dim=3 if steered else 0,
        control_scale=0.1,
    )
    return KeypointModelConfig(
        name="body",
        stage1=stage1,
        conditioner=conditioner,
        flow=FlowConfig(
            z_dim=8, condition_dim=conditioner.out_dim, num_blocks=2, hidden_dim=16, depth=1
        ),
        end_point=end_point if steered else None,
    )


def tiny_body(
    *, steered: bool = True, landmarks: int = 3, end_point: EndPointRange = FREE
) -> KeypointModel:
    """One whose flow is not the identity, and depends on x0 and the control."""
    config = body_config(steered=steered, landmarks=landmarks, end_point=end_point)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = KeypointModel(config).eval()
        for value in model.flow.parameters():
            value.data += 0.1 * torch.randn_like(value)
        model.flow.initialise(torch.randn(64, 8), torch.randn(64, config.conditioner.out_dim))
    return model.requires_grad_(requires_grad=False)


def noisy_video(num: int = 5, *, size: int = 32, seed: int = 0) -> VideoFile:
    """A video of noise, at the model's own rate and size."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (num, size, size, 3)).astype(np.uint8)
    return VideoFile(frames=frames, fps=STAGE1.fps, path=Path("noise.mp4"))
