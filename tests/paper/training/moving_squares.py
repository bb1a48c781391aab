"""Clips that train in no time: a bright square drifts over noise, the arm's end point with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.data.records import Control, Item, RawClip, Split

ARM = Control(name="end_effector", kind="position", labels=("x", "y", "z"), unit="m", mirror_axis=1)


@dataclass(frozen=True)
class MovingSquares:
    """Clips of 64 px.

    Attributes:
        splits: Of each clip.
        length: Frames of a clip.
        control: ARM, or None.
    """

    splits: Sequence[Split] = ("train", "train", "train", "train", "validation", "validation")
    length: int = 10
    control: Control | None = None
    size: int = 64
    name: str = "squares"
    others: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        return {}

    def items(self) -> list[Item]:
        return [Item(name=f"{n:02}", split=split) for n, split in enumerate(self.splits)]

    def read(self, item: Item) -> Iterator[RawClip]:
        rng = np.random.default_rng(int(item.name))
        ground = rng.integers(0, 80, (self.size, self.size, 3), dtype=np.uint8)
        frames = np.repeat(ground[None], self.length, axis=0)
        left, top, speed = rng.integers(4, 20, 3)
        for t, frame in enumerate(frames):
            x = left + t * (1 + speed // 8)
            frame[top : top + 16, x : x + 16] = 230
        track = np.array([0.6, -0.1, 0.25]) + 0.05 * rng.random((self.length, 3))
        yield RawClip(
            name=item.name,
            source=item.name,
            frames=frames,
            fps=25.0,
            tracks={} if self.control is None else {ARM.name: track.astype(np.float32)},
        )


def pack(folder: Path, **options: Any) -> PackedDataset:
    """Pack some clips into a folder."""
    prepare(MovingSquares(**options), folder, encoding="raw")
    return PackedDataset(folder)
