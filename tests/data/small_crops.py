"""Crops of scenes that were never filmed, and how batches of clips compare."""

import numpy as np
import torch

from cinnema.data.crop_batches import TENSOR_FIELDS, ClipBatch
from cinnema.data.crops import Scene, SceneCrops

SIZE, NUM_FRAMES, GRID = 64, 3, 16
REAL_FLOW = 7.0  # no sky moves like that


def crops_of(name: str = "a", texture: str = "clouds", *, num: int = 5) -> SceneCrops:
    """Clips of one colour a frame: 10 times its number, and the number of the clip."""
    levels = 10 * np.arange(NUM_FRAMES + 1)[None, :] + np.arange(num)[:, None]
    frames = np.broadcast_to(
        levels[..., None, None, None], (num, NUM_FRAMES + 1, SIZE, SIZE, 3)
    ).astype(np.uint8)
    return SceneCrops(
        scene=Scene(name, texture, held_out=False),
        frames=frames,
        flow=np.full((num, 2, NUM_FRAMES, GRID, GRID), REAL_FLOW, dtype=np.float32),
        motion=np.full((num, 2 * GRID, 2 * GRID), 5.0, dtype=np.float32),
    )


def values_of(batch: ClipBatch) -> list[torch.Tensor]:
    return [getattr(batch, name) for name in TENSOR_FIELDS]


def joined(batches: list[ClipBatch]) -> ClipBatch:
    columns = {name: torch.cat([getattr(b, name) for b in batches]) for name in TENSOR_FIELDS}
    return ClipBatch(**columns, ids=tuple(name for b in batches for name in b.ids))


def same(a: ClipBatch, b: ClipBatch) -> bool:
    pairs = zip(values_of(a), values_of(b), strict=True)
    return a.ids == b.ids and all(torch.equal(x, y) for x, y in pairs)
