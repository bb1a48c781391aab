"""Small stage 1s, and clips on which they train in seconds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cinnema.data.crop_batches import ClipBatch
from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from walking_square import WalkingSquare

KEYPOINTS = KeypointConfig(
    size=32, num_frames=4, z_dim=8, encoder_width=8, width=8, code_dim=16, landmarks=3
)


class DriftingClips:
    """Batches of clips that drift as one piece while the lower half stays; two batches in turn.

    Args:
        num: Clips of a batch, over all ranks.
        stop: Number of batches after which they end.
        share: This rank's part of a batch.
        rendered: Number of last frames that each clip has.
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

    def names(self, batch: ClipBatch) -> Sequence[str]:
        return batch.ids

    def close(self) -> None:
        pass

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
