"""Speed and direction of motion: histograms of optical flow."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from cinnema.backbones.optical_flow import backward_flow
from cinnema.evaluation.metrics.base import Futures, Metric, RealBatch, Video
from cinnema.evaluation.results import REAL, Cell, Cells, Column, Curve
from cinnema.evaluation.statistics.bootstrap import (
    ClusteredSums,
    Estimate,
    joint_estimate,
    ratio_of_sums,
)

_MIN_SIZE = 32  # pixels; smallest side of frames that optical flow accepts

# Edges of the bins of speed, in pixels a frame: finer at low, frequent speeds.
_SPEEDS = np.concatenate([[0.0], np.geomspace(0.05, 25.6, 28)])
_NUM_DIRECTIONS = 16

_OTHER = "other futures"

LEAST_SHIFT = 1.0
"""Displacement over a clip, in pixels, below which a point has no direction."""


def visible_motion(frames: Video) -> Float64[np.ndarray, "t h w 2"]:
    """Return the displacement of each pixel since x0, (right, down), in pixels of the clip.

    Args:
        frames: x0 and what follows it.
    """
    height, width = frames.shape[1:3]
    size = max(height, _MIN_SIZE), max(width, _MIN_SIZE)
    flow = backward_flow(frames, size=size).astype(np.float64)
    return np.asarray(-flow * np.array([width / size[1], height / size[0]]))


class Motion(Metric):
    """Speed and direction of motion, compared with those of the real clips."""

    uses_futures = True

    columns = (
        Column(
            name="speed",
            better="real",
            unit="px a frame",
            group="motion",
            about="mean length of the optical flow from frame to frame, over all pixels",
        ),
        Column(
            name="speed apart",
            better="lower",
            unit="px a frame",
            group="motion",
            about="earth mover's distance to the histogram of speed of the real clips",
        ),
        Column(
            name="direction apart",
            better="lower",
            unit="degrees",
            digits=1,
            group="motion",
            about="earth mover's distance on the circle to the histogram of direction of the real "
            "clips, each pixel weighted by its displacement",
        ),
    )

    def see_real(self, real: RealBatch) -> None:
        """Add the motion of real clips, and of each half of the sources."""
        for i, clip in enumerate(real.clips):
            values = _histograms(clip.frames)
            for what in ("all", f"half {real.halves[i]}"):
                self._sums(REAL, what).add(real.sources[i], values)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Add the motion of the first future of each start.

        Other real futures are kept apart: they may be among the real clips that they would be
        compared with.
        """
        what = _OTHER if futures.kind == "real" else "all"
        for clip, source, frames in zip(real.clips, real.sources, futures.frames[0], strict=True):
            whole = np.concatenate([clip.frames[:1], frames])
            self._sums(futures.row, what).add(source, _histograms(whole))

    def _sums(self, row: str, what: str) -> ClusteredSums:
        length = 2 + len(_SPEEDS) - 1 + _NUM_DIRECTIONS
        sums: ClusteredSums = self.sums.setdefault((row, what), ClusteredSums(length))
        return sums

    def cells(self, row: str) -> Cells:
        """Return the mean speed, and the distances of the histograms."""
        other = self.sums.get((row, _OTHER))
        if other is not None:
            return {"speed": _mean_speed(other)}
        own = self.sums.get((row, "all"))
        if own is None:
            return {}
        first, second = (
            (self.sums.get((REAL, "half 0")), self.sums.get((REAL, "half 1")))
            if row == REAL
            else (self.sums.get((REAL, "all")), own)
        )
        cells: dict[str, Cell] = {"speed": _mean_speed(own)}
        if first is not None and second is not None:
            pair = [first, second]
            cells["speed apart"] = joint_estimate(pair, lambda parts: _apart_in_speed(*parts))
            cells["direction apart"] = joint_estimate(
                pair, lambda parts: _apart_in_direction(*parts)
            )
        return cells

    def curves(self, rows: Sequence[str]) -> Iterator[Curve]:
        """Yield both histograms."""
        known = {row: self.sums[row, "all"].whole for row in rows if (row, "all") in self.sums}
        centres = tuple((_SPEEDS[:-1] + _SPEEDS[1:]) / 2)
        yield Curve(
            title="Speed of motion",
            x_label="pixels a frame",
            y_label="share of pixels",
            x=dict.fromkeys(known, tuple(map(float, centres))),
            y={row: _shares(_speeds_of(sums)) for row, sums in known.items()},
        )
        step = 360 / _NUM_DIRECTIONS
        degrees = tuple(-180 + step * (i + 0.5) for i in range(_NUM_DIRECTIONS))
        moving = {r: s for r, s in known.items() if _directions_of(s).sum() > 0}
        if moving:
            yield Curve(
                title="Direction of motion",
                x_label="degrees, 0 to the right, 90 down",
                y_label="share of displacement",
                x=dict.fromkeys(moving, degrees),
                y={row: _shares(_directions_of(sums)) for row, sums in moving.items()},
            )


def _histograms(frames: Video) -> NDArray[np.float64]:
    """Mean speed, 1, shares of the bins of speed, and of direction by displacement."""
    motion = visible_motion(frames)
    steps = np.diff(motion, axis=0, prepend=np.zeros_like(motion[:1]))
    speeds = np.linalg.norm(steps, axis=-1).ravel()
    shares = np.histogram(np.minimum(speeds, _SPEEDS[-1]), bins=_SPEEDS)[0] / len(speeds)
    distance = np.linalg.norm(motion[-1], axis=-1)
    angles = np.arctan2(motion[-1, ..., 1], motion[-1, ..., 0])
    weights = np.where(distance > LEAST_SHIFT, distance, 0.0)
    bins = np.linspace(-np.pi, np.pi, _NUM_DIRECTIONS + 1)
    directions = np.histogram(angles, bins=bins, weights=weights)[0] / distance.size
    return np.concatenate([[speeds.mean(), 1.0], shares, directions])


def _mean_speed(sums: ClusteredSums) -> Estimate:
    return sums.estimate(lambda s: ratio_of_sums(s[..., :2]))


def _speeds_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[..., 2 : 1 + len(_SPEEDS)]


def _directions_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return sums[..., 1 + len(_SPEEDS) :]


def _apart_in_speed(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area between the cumulative histograms, each bin at its centre."""
    centres = (_SPEEDS[:-1] + _SPEEDS[1:]) / 2
    difference = np.cumsum(_normed(_speeds_of(a)) - _normed(_speeds_of(b)), axis=-1)[..., :-1]
    return np.asarray((np.abs(difference) * np.diff(centres)).sum(axis=-1))


def _apart_in_direction(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """On a circle the cumulative difference is taken from its median (Rabin et al., 2011)."""
    difference = np.cumsum(_normed(_directions_of(a)) - _normed(_directions_of(b)), axis=-1)
    difference = difference - np.median(difference, axis=-1, keepdims=True)
    return np.asarray(np.abs(difference).sum(axis=-1) * 360 / _NUM_DIRECTIONS)


def _normed(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of the bins; NaN where the histogram is empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(histogram / histogram.sum(axis=-1, keepdims=True))


def _shares(histogram: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, _normed(histogram)))
