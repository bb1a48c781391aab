"""One side of a split of another source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, ClipSource, Control, Item, RawClip, Split


@dataclass(frozen=True)
class OneSplit:
    """The items of one split of another source, perhaps only the first of them.

    With it the many futures of a world's test starts are simulated apart from its training starts,
    and stay on their side of the split.

    Args:
        source: The other source.
        split: Which side.
        most: How many items at the most; all if None.

    Raises:
        UserError: `most` is below 1.

    Example:
        >>> source = OneSplit(Push(num_starts=1000, futures=32), "test", most=10)
    """

    source: ClipSource
    split: Split
    most: int | None = None

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UserError(f"at least 1 start is needed, got {self.most}: ask for some")

    @property
    def name(self) -> str:
        """That of the other source."""
        return self.source.name

    @property
    def size(self) -> int | None:
        """Width and height of the frames, in pixels."""
        return self.source.size

    @property
    def control(self) -> Control | None:
        """That of the other source."""
        return self.source.control

    def settings(self) -> dict[str, Any]:
        """Return those of the other source, and which side."""
        return {**self.source.settings(), "split": self.split, "most": self.most}

    def items(self) -> Sequence[Item]:
        """List the items of that side.

        Raises:
            UserError: There is none; or as the other source.
        """
        chosen = [item for item in self.source.items() if item.split == self.split]
        if not chosen:
            raise UserError(f"{self.name} has nothing in the split {self.split}: choose another")
        return chosen[: self.most]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one item, as the other source does."""
        return self.source.read(item)
