"""Starts of simulated worlds: which of them train, validate and test."""

from cinnema.data.records import Split

_SPLITS: dict[int, Split] = {8: "validation", 9: "test"}


def split_of(start: int) -> Split:
    """Return the side of a start: every tenth is for testing, the one before it for validation.

    It depends on the start's number alone, so that a world with more starts leaves them there.
    """
    return _SPLITS.get(start % 10, "train")
