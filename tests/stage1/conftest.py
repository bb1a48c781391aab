"""A stage 1 so small that it is trained in seconds, its backbone random."""

from collections.abc import Callable, Iterator

import pytest
import torch

from cinnema.data.clips import ClipBatch
from cinnema.stage1.model import Stage1, Stage1Config


@pytest.fixture
def tiny() -> Callable[..., Stage1]:
    """Make one; options are fields of its configuration."""

    def make(*, seed: int = 0, **options: float) -> Stage1:
        widths = {
            "size": 64, "num_frames": 4, "num_basis": 2, "z_dim": 16, "encoder_width": 8,
            "motion_width": 8, "feature_dim": 8, "mask_width": 16, "painter_width": 16,
        }  # fmt: skip
        torch.manual_seed(seed)
        return Stage1(Stage1Config(**{**widths, **options}))

    return make


@pytest.fixture
def batches() -> Callable[..., Iterator[ClipBatch]]:
    """The same few clips over and over: they drift as one piece, the lower half stays."""

    def endless(*, num: int = 4, start: int = 0) -> Iterator[ClipBatch]:
        number = start
        while True:
            generator = torch.Generator().manual_seed(number % 2)
            x0 = torch.rand(num, 3, 8, 8, generator=generator) * 2 - 1
            x0 = torch.nn.functional.interpolate(x0, (64, 64), mode="bilinear")
            wind = 0.1 * torch.randn(num, 2, 1, 1, 1, generator=generator)
            time = torch.arange(1, 5).view(1, 1, 4, 1, 1) / 4
            moving = torch.zeros(num, 32, 32)
            moving[:, :16] = 1
            flow = wind * time * torch.nn.functional.avg_pool2d(moving, 2)[:, None, None]
            frames = x0[:, None].clone()
            frames[:, :, :, :32] *= 0.5
            yield ClipBatch(x0, flow, moving, torch.ones_like(moving), frames, torch.ones(num, 1))
            number += 1

    return endless
