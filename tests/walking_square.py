"""A square that walks over a still background: a body whose every clip is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from cinnema.data.records import Control, Item, RawClip

SIZE, FRAMES = 32, 7
WHERE = Control(name="where", kind="position", labels=("x", "y", "z"), unit="m")


@dataclass(frozen=True)
class WalkingSquare:
    """Clips of 7 frames of 32 px; "where" is the square's middle in picture widths, and a 0;
    "corners" its upper left and lower right, in picture widths and heights.

    Every fifth clip is for validation.
    """

    num: int = 20
    name: str = "square"
    size: int = SIZE
    control: Control | None = WHERE

    def settings(self) -> dict[str, Any]:
        return {"num": self.num}

    def items(self) -> list[Item]:
        return [
            Item(name=f"{n:03}", split="validation" if n % 5 == 4 else "train")
            for n in range(self.num)
        ]

    def read(self, item: Item) -> Iterator[RawClip]:
        generator = np.random.default_rng(int(item.name))
        start, step = generator.uniform(10, 22, 2), generator.uniform(-1, 1, 2)
        path = start + step * np.arange(FRAMES)[:, None]
        frames = np.full((FRAMES, SIZE, SIZE, 3), generator.integers(40, 90, 3), dtype=np.uint8)
        for frame, (x, y) in zip(frames, path.round().astype(int), strict=True):
            frame[y - 4 : y + 4, x - 4 : x + 4] = (230, 210, 60)
        where = np.concatenate([path / SIZE, np.zeros((FRAMES, 1))], axis=1).astype(np.float32)
        corners = np.concatenate([path - 4, path + 4], axis=1).astype(np.float32) / SIZE
        yield RawClip(
            name=item.name,
            source=item.name,
            frames=frames,
            fps=10.0,
            tracks={"where": where, "corners": corners},
        )
