"""Small sources of clips. Worker processes import this module, as they could not a test's own."""

import os
import signal
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cinnema.data.records import BadRecord, Control, Item, RawClip, Split

HAND = Control(name="hand", kind="position", labels=("x", "y", "z"), unit="m")


def make_clip(name: str, *, frames: int = 3, size: int = 6, **others: Any) -> RawClip:
    """A clip of noise that its name decides, with a track named "hand"."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    fields: dict[str, Any] = {
        "name": name,
        "source": f"video of {name}",
        "frames": rng.integers(0, 256, (frames, size, size, 3), dtype=np.uint8),
        "fps": 5.0,
        "tracks": {"hand": rng.normal(size=(frames, 3)).astype(np.float32)},
        "confidence": rng.random(frames).astype(np.float32),
        "still": rng.random((size, size)) < 0.5,
        "start": None,
    }
    return RawClip(**(fields | others))


@dataclass(frozen=True)
class TinySource:
    """Items of two clips each, every third of them in the test split.

    Attributes:
        num_items: How many.
        seed: A setting.
        bad: The items whose second clip cannot be read.
        fatal: The item whose reading kills the process, as a lack of memory would.
        expected: Clips of each item, as a guess.
    """

    num_items: int = 6
    seed: int = 0
    bad: tuple[str, ...] = ()
    fatal: str | None = None
    expected: int = 2

    name = "tiny"
    size = 6
    control = HAND

    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed, "parts": ("a", 1)}

    def items(self) -> Sequence[Item]:
        splits: tuple[Split, ...] = ("train", "train", "test")
        return [
            Item(name=f"{number:02d}", split=splits[number % 3], clips=self.expected)
            for number in range(self.num_items)
        ]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        if item.name == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        yield make_clip(f"{item.name}/a")
        if item.name in self.bad:
            yield BadRecord(name=f"{item.name}.tfrecords, record 1", reason="a wrong checksum")
        else:
            yield make_clip(f"{item.name}/b", frames=4)
