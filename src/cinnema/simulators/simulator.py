"""What all simulators share: their sizes, the list of starts, and the split of the starts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, Control, Item, RawClip, Split

_SPLITS: dict[int, Split] = {8: "validation", 9: "test"}


@dataclass(frozen=True)
class Simulator(ABC):
    """A source of simulated clips, determined by (seed, start, future).

    A start is a scene in its initial state. Its futures are clips that have the same first frame,
    to the bit, and differ afterwards. Of ten starts in a row the last is for testing and the one
    before it for validation; more starts, or more futures of each, do not change the others.

    A subclass implements `read`; it may change the numbers' defaults and `limits`.

    Args:
        num_starts: Number of starts.
        futures: Number of clips for each start.
        seed: Seed of all random draws.
        size: Height and width of the frames, in pixels.
        num_frames: Number of frames in a clip, including x0.

    Raises:
        UserError: A number is outside its limits.
    """

    name: ClassVar[str]
    """Name of the packed data set."""
    control: ClassVar[Control | None] = None
    """Meaning of the track that serves as the control; None without one."""
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "num_starts": (1, math.inf),
        "futures": (1, math.inf),
        "seed": (0, math.inf),
        "size": (32, math.inf),
        "num_frames": (2, math.inf),
    }
    """Smallest and largest value of each number."""
    item_prefix: ClassVar[str] = ""
    item_digits: ClassVar[int] = 7

    num_starts: int
    futures: int = 1
    seed: int = 0
    size: int = 64
    num_frames: int = 30

    def __post_init__(self) -> None:
        """Check the numbers."""
        for field, (low, high) in self.limits.items():
            if not low <= (value := getattr(self, field)) <= high:
                limit = f"at least {low}" if high == math.inf else f"{low} to {high}"
                raise UserError(
                    f"{field} of {self.name} must be {limit}, got {value}: choose another value"
                )

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, as JSON values."""
        return {field.name: _to_json(getattr(self, field.name)) for field in fields(self)}

    def items(self) -> Sequence[Item]:
        """List the starts; each yields `futures` clips."""
        return [
            Item(
                name=f"{self.item_prefix}{start:0{self.item_digits}d}",
                split=split_of(start, num_starts=self.num_starts),
                clips=self.futures,
            )
            for start in range(self.num_starts)
        ]

    @abstractmethod
    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the futures of one start."""

    def start_of(self, item: Item) -> int:
        """Return the number of an item's start."""
        return int(item.name.removeprefix(self.item_prefix))


def split_of(start: int, *, num_starts: int) -> Split:
    """Return the split of a start.

    Of ten starts or more it depends only on the start's number, so a larger world does not move
    the starts of a smaller one. Of fewer starts the last one tests, and of three or more the one
    before it validates.

    Args:
        start: Number of the start, from 0.
        num_starts: Number of all starts.
    """
    if num_starts < 10:
        if start == num_starts - 1 and num_starts >= 2:
            return "test"
        return "validation" if start == num_starts - 2 and num_starts >= 3 else "train"
    return _SPLITS.get(start % 10, "train")


def _to_json(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value
