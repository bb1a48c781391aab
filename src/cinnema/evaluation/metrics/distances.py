"""Distances between the sets of generated and of real clips: FVD, DTFVD, FID and others."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.backbones.inception import FEATURE_DIM
from cinnema.core.errors import UserError
from cinnema.evaluation.baselines import TrainingClips
from cinnema.evaluation.features import Features
from cinnema.evaluation.metrics.base import Futures, MeanMetric, Metric, RealBatch, Video
from cinnema.evaluation.protocol import Protocol
from cinnema.evaluation.results import REAL, Cell, Cells, Column, Curve, Missing
from cinnema.evaluation.statistics.bootstrap import ClusteredSums, Estimate
from cinnema.evaluation.statistics.distances import Coverage, Extrapolation, measure_coverage
from cinnema.evaluation.statistics.feature_sets import (
    FeatureSummary,
    frechet_at_infinity,
    frechet_estimate,
)

GROUP = "distribution"
"""Group of the columns of distances of sets."""

_NUM_CANDIDATES = 8
_MANY_CLIPS = 256
_EXTRAPOLATED = 32  # clips at least, so that a quarter of them has a covariance

_Found = TypeVar("_Found", Estimate, Coverage)


class FrechetDistance(Metric):
    """A Frechet distance between sets of features: at least 0, lower is better.

    One future of each start is compared with the real clips. The row of real clips compares half
    of the source videos with the other half: a lower bound, of half as many clips. Other real
    futures have no distance, because the set of real clips may contain them.

    Args:
        features: Features of clips.
        columns: Columns from `frechet_columns`.
        is_main: Whether to add the extrapolation and coverage.
    """

    uses_futures = True

    def __init__(
        self, features: Features, *, columns: Sequence[Column], is_main: bool = False
    ) -> None:
        super().__init__()
        self._features, self._is_main = features, is_main
        self.columns = tuple(columns)

    def see_real(self, real: RealBatch) -> None:
        """Add the real clips, and each half of them."""
        rows = self._features.of(real.videos)
        self._add(REAL, "set", real.keys, real.sources, rows)
        for half in (0, 1):
            chosen = [i for i, of in enumerate(real.halves) if of == half]
            if chosen:
                keys, sources = ([v[i] for i in chosen] for v in (real.keys, real.sources))
                self._add(REAL, f"half {half}", keys, sources, rows[chosen])

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Add the first future of each start, except of real ones."""
        if futures.kind == "real":
            return
        rows = self._features.of(futures.videos[0])
        self._add(futures.row, "set", real.keys, real.sources, rows)

    def _add(
        self, row: str, what: str, keys: list[str], sources: list[str], features: Tensor
    ) -> None:
        summary = self.sums.get((row, what))
        if summary is None:
            summary = FeatureSummary(
                features.shape[1], **({} if self._is_main else {"num_shells": 0})
            )
            self.sums[row, what] = summary
        summary.add(keys, sources, features)

    def cells(self, row: str) -> Cells:
        """Return the distance, and with `is_main` the columns beside it."""
        pair = self._pair(row)
        if pair is None:
            return {}
        distance = guarded(lambda: frechet_estimate(*pair))
        if not self._is_main:
            return {self.columns[0].name: distance}
        counts = {
            "num_clips": min(s.num_clips for s in pair),
            "num_sources": min(s.num_sources for s in pair),
        }
        coverage = guarded(lambda: self._coverage(*pair))
        values: dict[str, Cell] = {
            self.columns[0].name: distance,
            self.columns[1].name: _at_infinity(frechet_at_infinity(*pair), counts),
        }
        for column in self.columns[2:]:
            values[column.name] = (
                coverage
                if isinstance(coverage, Missing)
                else Estimate(getattr(coverage, column.name), None, None, **counts)
            )
        return values

    def _pair(self, row: str) -> tuple[FeatureSummary, FeatureSummary] | None:
        first, second = (
            (self.sums.get((REAL, "half 0")), self.sums.get((REAL, "half 1")))
            if row == REAL
            else (self.sums.get((REAL, "set")), self.sums.get((row, "set")))
        )
        return None if first is None or second is None else (first, second)

    @staticmethod
    def _coverage(first: FeatureSummary, second: FeatureSummary) -> Coverage:
        return measure_coverage(first.sample.features, second.sample.features)

    def notes(self) -> Sequence[str]:
        """Return a warning that the distance is biased upwards, if there are few clips."""
        real = self.sums.get((REAL, "set"))
        if not self._is_main or real is None or real.num_clips >= _MANY_CLIPS:
            return ()
        return (
            f"Distances of sets are computed from {real.num_clips} clips: FVD, DTFVD and FID of so "
            "few are larger than of many, so compare them within this table only.",
        )

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield the distance against 1/n, which is extrapolated."""
        if not self._is_main:
            return
        lines = {}
        for row in rows:
            pair = self._pair(row)
            line = None if pair is None else frechet_at_infinity(*pair)
            if line is not None and len(line.counts) > 1:
                lines[row] = line
        if lines:
            yield Curve(
                title=f"{self.columns[0].name} against 1/n",
                x_label="1 / clips",
                y_label=self.columns[0].name,
                x={row: tuple(1 / n for n in line.counts) for row, line in lines.items()},
                y={row: line.distances for row, line in lines.items()},
                about="of quarters, halves and all of the clips; the intercept at 0 is the "
                "distance for infinitely many",
            )


class FrameFrechetDistance(FrechetDistance):
    """A Frechet distance of single frames: FID over all frames of all clips; lower is better.

    Args:
        features: Features of clips: those of each frame, one after the other.
        columns: Columns from `frechet_columns`.
        dim: Length of the features of one frame.
    """

    def __init__(
        self, features: Features, *, columns: Sequence[Column], dim: int = FEATURE_DIM
    ) -> None:
        super().__init__(features, columns=columns)
        self._dim = dim

    def _add(
        self, row: str, what: str, keys: list[str], sources: list[str], features: Tensor
    ) -> None:
        num_frames = features.shape[1] // self._dim
        frames = features.unflatten(1, (num_frames, self._dim)).flatten(0, 1)
        super()._add(
            row,
            what,
            [f"{key}/{t}" for key in keys for t in range(num_frames)],
            [source for source in sources for _ in range(num_frames)],
            frames,
        )
        clips = self.sums.setdefault((row, f"{what}, clips"), ClusteredSums(1))
        for source in sources:
            clips.add(source, [1.0])

    def cells(self, row: str) -> Cells:
        """Return the distance; its n counts clips, not frames."""
        keys = ((REAL, "half 0"), (REAL, "half 1")) if row == REAL else ((row, "set"),)
        counted = [self.sums.get((name, f"{what}, clips")) for name, what in keys]
        clips = min((c.num_clips for c in counted if c is not None), default=0)
        return {
            name: cell
            if isinstance(cell, Missing)
            else Estimate(cell.value, cell.low, cell.high, clips, cell.num_sources)
            for name, cell in super().cells(row).items()
        }


class TrainingDistance(MeanMetric):
    """Distance to the nearest training clip, in features; small values indicate memorisation.

    Only the 8 training clips with the nearest first frames are compared, as all futures begin
    with the given x0. Values like those of real test clips are best.

    Args:
        features: Features of clips.
        training: The training clips.
        protocol: Selects the frames that are compared, as of the real clips.
    """

    uses_futures = True

    columns = (
        Column(
            name="nearest training clip",
            better="real",
            digits=2,
            group="memory",
            about="distance to the nearest training clip in I3D's logits, root mean square over "
            "classes; below that of real test clips indicates memorisation",
        ),
    )

    def __init__(self, features: Features, training: TrainingClips, *, protocol: Protocol) -> None:
        super().__init__()
        self._features, self._training, self._protocol = features, training, protocol
        self._candidates: dict[str, Tensor] = {}

    def see_real(self, real: RealBatch) -> None:
        """Look up the candidates, and add the distances of the real clips."""
        self._candidates = {clip.start.key: self._near(clip.frames[0]) for clip in real.clips}
        self._add_distances(REAL, real, real.videos)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Add the distances of the first future of each start."""
        self._add_distances(futures.row, real, futures.videos[0])

    def _near(self, x0: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "k d"]:
        clips = self._training.nearest(x0, num=_NUM_CANDIDATES)
        return self._features.of([self._protocol.real(clip.frames) for clip in clips]).double()

    def _add_distances(self, row: str, real: RealBatch, videos: Sequence[Video]) -> None:
        rows = self._features.of(videos).double()
        for key, source, features in zip(real.keys, real.sources, rows, strict=True):
            nearest = (self._candidates[key] - features).square().mean(dim=1).min().sqrt()
            self.add(row, self.columns[0].name, source, float(nearest))


def frechet_columns(name: str, *, about: str, is_main: bool = False) -> tuple[Column, ...]:
    """Return the columns of a Frechet distance.

    Args:
        name: Name of the distance, such as "FVD".
        about: Description of the features and of the resizing of frames.
        is_main: Whether to add the extrapolation and coverage.
    """
    digits = 3 if name.startswith("DTFVD") else 1
    first = Column(
        name=name,
        better="lower",
        digits=digits,
        group=GROUP,
        about=f"Frechet distance of {about}; larger for fewer clips",
    )
    if not is_main:
        return (first,)
    return (
        first,
        Column(
            name=f"{name} at infinity",
            better="lower",
            digits=digits,
            group=GROUP,
            about=f"{name} extrapolated in 1/n to infinitely many clips",
        ),
        *(
            Column(name=share, better="higher", digits=2, group=GROUP, about=text)
            for share, text in (
                (
                    "precision",
                    "share of the clips in the neighbourhood of a real one (5 neighbours)",
                ),
                ("recall", "share of the real clips in the neighbourhood of one (5 neighbours)"),
                ("density", "real neighbourhoods that contain a clip, over 5; about 1 is best"),
                ("coverage", "share of the real clips with a clip in their neighbourhood"),
            )
        ),
    )


def guarded(measure: Callable[[], _Found]) -> _Found | Missing:
    """Return the result, or the reason where there are too few clips."""
    try:
        return measure()
    except UserError as error:
        return Missing(reason=str(error))


def _at_infinity(line: Extrapolation, counts: Mapping[str, int]) -> Cell:
    if math.isnan(line.value) or counts["num_clips"] < _EXTRAPOLATED:
        return Missing(reason=f"the extrapolation needs {_EXTRAPOLATED} clips: give more")
    return Estimate(line.value, None, None, **counts)
