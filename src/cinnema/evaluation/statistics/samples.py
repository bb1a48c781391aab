"""A fixed number of features chosen from any number of them, the same however they come."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class FeatureSample:
    """The features of the k keys with the smallest hashes.

    Which rows are kept depends on their keys alone: not on the order, the batches or the number of
    processes. Keys that occur twice are kept once.

    Args:
        size: k, the most rows that are kept.

    Example:
        >>> sample = FeatureSample(size=2)
        >>> sample.add(["a", "b", "c"], torch.arange(3.0)[:, None])
        >>> len(sample)
        2
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: dict[str, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of rows that are kept."""
        return len(self._rows)

    @property
    def keys(self) -> list[str]:
        """Their keys, in the order of their hashes."""
        return sorted(self._rows, key=hash_of)

    @property
    def features(self) -> Float[Tensor, "n d"]:
        """Their features, in the order of `keys`, float32; (0, 0) where there is none."""
        rows = [self._rows[key] for key in self.keys]
        return torch.stack(rows) if rows else torch.empty(0, 0)

    def add(self, keys: Sequence[str], features: Float[Tensor, "n d"]) -> None:
        """Offer rows.

        Args:
            keys: A name for each row, unique among all that are offered anywhere.
            features: The rows.
        """
        rows = features.detach().float().cpu()
        self._rows |= {key: row.clone() for key, row in zip(keys, rows, strict=True)}
        self._drop()

    def merge(self, other: "FeatureSample") -> None:
        """Offer the rows that another one kept."""
        self._rows |= other._rows
        self._drop()

    def _drop(self) -> None:
        if len(self._rows) > self.size:
            self._rows = {key: self._rows[key] for key in self.keys[: self.size]}


def hash_of(key: str) -> int:
    """Return 64 bits that depend on a text alone, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
