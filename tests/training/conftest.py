"""Clips that drift, for training a small stage 1 in seconds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cinnema.data.crop_batches import ClipBatch


class DriftingClips:
    """The same few clips over and over: they drift as one piece, the lower half stays.

    Args:
        num: Clips of a batch, of all ranks together.
        stop: Batches after which there are no more.
        share: This rank's clips of a batch.
        rendered: The last frames of each clip that there are.
    """

    def __init__(
        self,
        *,
        num: int = 4,
        stop: int | None = None,
        share: slice | None = None,
        rendered: int = 1,
    ) -> None:
        self.num, self.stop, self.share = num, stop, share or slice(num)
        self.rendered = rendered
        self.number = 0

    def __next__(self) -> ClipBatch:
        if self.number == self.stop:
            raise StopIteration
        self.number += 1
        return self.batch(self.number - 1)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["clips"] // self.num

    def batch(self, number: int) -> ClipBatch:
        num, generator = self.num, torch.Generator().manual_seed(number % 2)
        x0 = torch.rand(num, 3, 8, 8, generator=generator) * 2 - 1
        x0 = torch.nn.functional.interpolate(x0, (64, 64), mode="bilinear")
        wind = 0.1 * torch.randn(num, 2, 1, 1, 1, generator=generator)
        time = torch.arange(1, 5).view(1, 1, 4, 1, 1) / 4
        moving = torch.zeros(num, 32, 32)
        moving[:, :16] = 1
        known = torch.ones_like(moving)
        known[1:, 20:] = 0  # of some clips less is known
        flow = wind * time * torch.nn.functional.avg_pool2d(moving, 2)[:, None, None]
        times = time.flatten()[-self.rendered :].expand(num, -1)
        frames = x0[:, None].repeat(1, self.rendered, 1, 1, 1)
        frames[:, :, :, :32] *= 1 - 0.5 * times[:, :, None, None, None]
        parts = (x0, flow, moving, known, frames, times)
        ids = tuple(f"drift:{number % 2}-{clip}" for clip in range(num))
        return ClipBatch(*(part[self.share] for part in parts), ids=ids[self.share])


@pytest.fixture
def batches() -> Callable[..., DriftingClips]:
    return DriftingClips
