"""The interface of metrics, and their inputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.backbones.registry import BackboneName, Found
from cinnema.evaluation.baselines import Training
from cinnema.evaluation.features import FeatureCache, Features
from cinnema.evaluation.known_truth.reader import EndPointReader
from cinnema.evaluation.protocol import ClipSet, Protocol, RealClip
from cinnema.evaluation.results import Cell, Cells, Column, Curve, Missing, Row, RowKind
from cinnema.evaluation.statistics.bootstrap import (
    ClusteredRows,
    ClusteredSums,
    Estimate,
    Statistic,
    joint_estimate,
    ratio_of_sums,
    resampled,
)
from cinnema.models.base import VideoModel

Video = UInt8[np.ndarray, "n h w 3"]

Progress = Callable[[str, int, int], None]
"""Callback with a description, the number of finished units, and their total."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The model and the data of an evaluation, and what else metrics may need.

    Attributes:
        model: The model in evaluation mode, on `device`.
        clips: The clips that it is evaluated on.
        protocol: The pairing of generated and real frames.
        training: Training clips and priors fitted to them, where there are any.
        no_training: Reason why there are no training clips; else empty.
        training_clips: Clips of the split train, where there are any.
        backbones: Feature networks that were found, by name.
        cache: Cache of features; None keeps them in memory only.
        reader: Returns the network that predicts end points, which may be trained first; None if
            there is none.
        device: Device that networks compute on.
        num_samples: K, number of futures of each start.
        seed: Seed of all draws.
        batch_size: Number of clips that the model computes at once.
        progress: Called as the evaluation proceeds.
        features: Features by network, made when they are first needed.
    """

    model: VideoModel
    clips: ClipSet
    protocol: Protocol
    training: Training | None = None
    no_training: str = ""
    training_clips: ClipSet | None = None
    backbones: Mapping[BackboneName, Found] = field(default_factory=dict)
    cache: FeatureCache | None = None
    reader: Callable[[], EndPointReader] | None = None
    device: torch.device
    num_samples: int = 2
    seed: int = 0
    batch_size: int = 1
    progress: Progress
    features: dict[BackboneName, Features] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """The keys of all starts, in order."""
        return [start.key for start in self.clips.starts]

    def path(self, name: BackboneName) -> Path | None:
        """Return the file of a network; None where there is none."""
        return self.backbones[name].path

    def missing(self, *names: BackboneName) -> str:
        """Return which of some networks are missing, and how to get them; empty if none is."""
        missing = [self.backbones[name].backbone for name in names if self.path(name) is None]
        return "; ".join(f"{b.title} is missing: {b.how_to_get}" for b in missing)


@dataclass(frozen=True, kw_only=True)
class RealBatch:
    """The real clips of some starts.

    Attributes:
        clips: x0 and the T frames after it, for each start.
        videos: The frames that the protocol compares.
        x: The same in [-1, 1], on the networks' device.
        halves: 0 or 1 for each clip: which half of the source videos it belongs to.
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
            indices: Their positions in the batch.
        """
        return RealBatch(
            clips=[self.clips[i] for i in indices],
            videos=[self.videos[i] for i in indices],
            x=self.x[list(indices)],
            halves=[self.halves[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True)
class Futures:
    """K generated continuations of each start of a batch, by the model or a baseline.

    Attributes:
        row: Name of the row.
        kind: Kind of the row.
        frames: All T frames, K lists of clips.
        videos: The frames that the protocol compares, K lists of clips.
        x: The same in [-1, 1], on the networks' device.
    """

    row: str
    kind: RowKind
    frames: Sequence[Sequence[Video]]
    videos: Sequence[Sequence[Video]]
    x: Float[Tensor, "k b n 3 h w"]


class Metric(ABC):
    """Accumulates statistics of clips, batch by batch, and returns columns of numbers.

    An implementation keeps what it accumulates in `sums`, and its result does not depend on the
    order or the batches in which clips come. For a baseline that cannot continue all
    starts of a batch, `see` gets only those that it can.

    Attributes:
        columns: The columns, in the order of the table.
        rows: Rows that it needs beside those of the model and the baselines.
        chosen: Keys of the starts that it uses; None for all.
        uses_futures: Whether `see` is called with futures of the model and the baselines.
        sums: What it has accumulated, by row and by what else it distinguishes. Values have a
            method `merge` that adds what another process has accumulated.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = ()
    chosen: frozenset[str] | None = None
    uses_futures: bool = False

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], Any] = {}

    def see_real(self, real: RealBatch) -> None:  # noqa: B027 - metrics of futures need not
        """Accumulate a batch of real clips; by default does nothing."""

    def see(self, real: RealBatch, futures: Futures) -> None:  # noqa: B027 - nor others this
        """Accumulate futures of a batch by one model or baseline; by default does nothing."""

    @abstractmethod
    def cells(self, row: str) -> Cells:
        """Return the cells of a row by column, without columns that do not apply to it."""

    def cells_of(self, row: str, keys: Sequence[str]) -> Cells:
        """Return the cells of a row for some of the clips; empty if it keeps only sums.

        Args:
            row: Name of the row.
            keys: Keys of the clips.
        """
        del row, keys
        return {}

    def changes(self, row: str, before: "Metric") -> Mapping[str, Estimate]:
        """Return paired differences of a row to the same row of another model, by column.

        Args:
            row: Name of the row.
            before: The same metric, with what it has accumulated of the other model.
        """
        del row, before
        return {}

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield plots of some rows."""
        del rows
        yield from ()

    def notes(self) -> Sequence[str]:
        """Return sentences that a reader of the numbers must know."""
        return ()

    def merge(self, sums: Mapping[tuple[str, str], Any]) -> None:
        """Add what another process has accumulated."""
        for key, theirs in sums.items():
            if key in self.sums:
                self.sums[key].merge(theirs)
            else:
                self.sums[key] = theirs

    def own(self, real: RealBatch) -> RealBatch | None:
        """Return the clips of a batch that this metric uses; None where there are none."""
        if self.chosen is None:
            return real
        own = [i for i, key in enumerate(real.keys) if key in self.chosen]
        return real.only(own) if own else None


class MeanMetric(Metric):
    """A metric whose columns are means over clips, with one number for each row and clip."""

    def add(self, row: str, column: str, source: str, value: float) -> None:
        """Add the number of one clip.

        Args:
            row: Name of the row.
            column: Name of the column.
            source: Source video of the clip.
            value: The clip's value.
        """
        self.sums.setdefault((row, column), ClusteredSums(2)).add(source, [value, 1.0])

    def cells(self, row: str) -> Cells:
        """Return the means."""
        found = {column.name: self.sums.get((row, column.name)) for column in self.columns}
        return {name: sums.ratio() for name, sums in found.items() if sums is not None}

    def changes(self, row: str, before: Metric) -> Mapping[str, Estimate]:
        """Return the differences of the means; clips are paired, as they are resampled alike."""
        found = {c.name: changed_ratio(self, before, (row, c.name)) for c in self.columns}
        return {column: change for column, change in found.items() if change is not None}


def changed_ratio(after: Metric, before: Metric, key: tuple[str, str]) -> Estimate | None:
    """Return the paired difference of a ratio of sums between two models; None without both.

    Args:
        after: The metric.
        before: The same metric of the other model.
        key: Key of the `ClusteredSums` in `sums`.
    """
    old, new = before.sums.get(key), after.sums.get(key)
    if not isinstance(old, ClusteredSums) or not isinstance(new, ClusteredSums):
        return None
    return joint_estimate([old, new], lambda sums: ratio_of_sums(sums[1]) - ratio_of_sums(sums[0]))


@dataclass(frozen=True)
class Entry:
    """How a cell of the table is computed from a table of clips.

    Attributes:
        statistic: Maps rows of clips to the number.
        columns: Indices of the columns of the clips' table that `statistic` gets.
    """

    statistic: Statistic
    columns: Sequence[int]


class TableMetric(Metric):
    """A metric that keeps a row of numbers for each clip, and computes its cells from these.

    Attributes:
        entries: How each cell is computed, by row and column of the table.
        clips: The rows of numbers.
    """

    entries: Mapping[tuple[str, str], Entry]

    def __init__(self, order: Sequence[str], *, length: int) -> None:
        super().__init__()
        self._order = list(order)
        self.clips: ClusteredRows = self.sums.setdefault(("", "clips"), ClusteredRows(length))

    def cells(self, row: str) -> Cells:
        """Return the cells of a row."""
        return self.cells_of(row, self._order)

    def cells_of(self, row: str, keys: Sequence[str]) -> Cells:
        """Return the cells of a row for some of the clips."""
        return {
            column: self.clips.estimate(entry.statistic, order=keys, columns=entry.columns)
            for (of, column), entry in self.entries.items()
            if of == row
        }

    def changes(self, row: str, before: Metric) -> Mapping[str, Estimate]:
        """Return the paired differences of a row's cells to those of another model."""
        assert isinstance(before, TableMetric)
        return {
            column: self.change(before, entry)
            for (of, column), entry in self.entries.items()
            if of == row
        }

    def change(self, before: "TableMetric", entry: Entry) -> Estimate:
        """Return the paired difference of one cell to that of another model.

        Args:
            before: The same metric of the other model, on the same clips.
            entry: The cell.
        """
        columns, num = list(entry.columns), len(entry.columns)
        (old, sources), (new, _) = (m.clips.table(self._order) for m in (before, self))
        both = np.concatenate([old[:, columns], new[:, columns]], axis=1)
        return resampled(
            both,
            sources,
            lambda rows: entry.statistic(rows[:, num:]) - entry.statistic(rows[:, :num]),
        )


class Unavailable(Metric):
    """Columns that cannot be measured here, with the reason in every cell.

    Args:
        columns: The columns.
        reason: Reason, and how to make them available, as one clause.
    """

    uses_futures = True

    def __init__(self, columns: Sequence[Column], *, reason: str) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.reason = reason

    def cells(self, row: str) -> Cells:
        """Return the reason in every column."""
        del row
        cells: dict[str, Cell] = {c.name: Missing(reason=self.reason) for c in self.columns}
        return cells
