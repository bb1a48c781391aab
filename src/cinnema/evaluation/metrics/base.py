"""What a measure owes, and what it is shown."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.evaluation.protocols import RealClip
from cinnema.evaluation.results import Cell, Column, Curve, Missing, RowKind

Video = UInt8[np.ndarray, "n h w 3"]

REAL = "real against real"
"""The row of what really happened: half of the source videos against the other half."""


@dataclass(frozen=True, kw_only=True)
class RealBatch:
    """What really came of some starts.

    Attributes:
        clips: x0 and the T frames after it.
        videos: The frames that the protocol compares.
        x: The same in [-1, 1], where the networks are.
        halves: 0 or 1 for each clip: of two halves of the source videos.
    """

    clips: Sequence[RealClip]
    videos: Sequence[Video]
    x: Float[Tensor, "b n 3 h w"]
    halves: Sequence[int]

    @property
    def keys(self) -> list[str]:
        """The names of the starts."""
        return [clip.start.key for clip in self.clips]

    @property
    def sources(self) -> list[str]:
        """Their source videos."""
        return [clip.start.source for clip in self.clips]

    def only(self, indices: Sequence[int]) -> "RealBatch":
        """Return some of the starts.

        Args:
            indices: Which, from 0.
        """
        return RealBatch(
            clips=[self.clips[i] for i in indices],
            videos=[self.videos[i] for i in indices],
            x=self.x[list(indices)],
            halves=[self.halves[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True)
class Futures:
    """What a contestant let follow the starts of a batch, K times each.

    Attributes:
        row: The contestant's name.
        kind: Of the row.
        frames: All T frames, K times a list of clips.
        videos: The frames that the protocol compares, likewise.
        x: These in [-1, 1], where the networks are.
    """

    row: str
    kind: RowKind
    frames: Sequence[Sequence[Video]]
    videos: Sequence[Sequence[Video]]
    x: Float[Tensor, "k b n 3 h w"]


class Metric(ABC):
    """Gathers what it needs of every batch, and says at the end what came of it.

    An implementer owes: what it keeps lies in `sums` and does not grow with the number of clips;
    nothing depends on the order or the batches in which clips come. A contestant that cannot
    continue all starts of a batch is shown with those that it can.

    Attributes:
        columns: What it yields, in the order of the table.
        sums: What it keeps, by row and what else it tells apart; all with a method `merge` that
            takes in what another process has kept.
    """

    columns: tuple[Column, ...]

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], Any] = {}

    def see_real(self, real: RealBatch) -> None:  # noqa: B027 - many need nothing of it
        """Take in what really happened; nothing, unless the measure needs it."""

    @abstractmethod
    def see(self, real: RealBatch, futures: Futures) -> None:
        """Take in what a contestant let happen."""

    @abstractmethod
    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return what came of a row, by column; columns that make no sense for it are left out."""

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield what is to be plotted."""
        del rows
        yield from ()

    def merge(self, sums: Mapping[tuple[str, str], Any]) -> None:
        """Take in what another process kept."""
        for key, theirs in sums.items():
            if key in self.sums:
                self.sums[key].merge(theirs)
            else:
                self.sums[key] = theirs


class Unavailable(Metric):
    """Columns that cannot be measured here, and why.

    Args:
        columns: Which.
        reason: One clause, and the way out.
    """

    def __init__(self, columns: Sequence[Column], *, reason: str) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.reason = reason

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Look away."""

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the reason, in every column."""
        del row
        return {column.name: Missing(reason=self.reason) for column in self.columns}
