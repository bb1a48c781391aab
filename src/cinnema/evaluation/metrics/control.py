"""Whether what happens is what eta asked for: the direction of a drift, the end point of a hand."""

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cinnema.evaluation.baselines import TrainingClips
from cinnema.evaluation.metrics.base import REAL, Futures, Metric, RealBatch, Video
from cinnema.evaluation.metrics.motion import LEAST_SHIFT, seen_motion
from cinnema.evaluation.results import Cell, Column, Missing
from cinnema.evaluation.statistics.bootstrap import ClusteredSums
from cinnema.models.flow.priors import LinearGaussianPrior

_LEAST_CONTROL = 0.01  # in picture sizes: a smaller one has no direction
_SIDE = 16  # pixels of the pictures that end points are read off


class DirectionError(Metric):
    """Whether what moves goes where eta says: the angle between the two, of a drift control."""

    columns = (
        Column(
            name="direction error",
            better="lower",
            unit="degrees",
            digits=1,
            group="control",
            about="angle between eta and the mean optical flow of what moves, over clips whose eta "
            "is at least a hundredth of the picture",
        ),
        Column(
            name="within 22.5 degrees",
            better="higher",
            digits=2,
            group="control",
            about="share of these clips whose angle is below 22.5 degrees",
        ),
    )

    def see_real(self, real: RealBatch) -> None:
        """Take in real clips: what the optical flow itself misses by."""
        for clip in real.clips:
            self._add(REAL, clip.start.source, clip.frames, clip.eta)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Take in the first future of each start."""
        for clip, frames in zip(real.clips, futures.frames[0], strict=True):
            whole = np.concatenate([clip.frames[:1], frames])
            self._add(futures.row, clip.start.source, whole, clip.eta)

    def _add(self, row: str, source: str, frames: Video, eta: NDArray[np.float32] | None) -> None:
        if eta is None or np.hypot(*eta[:2]) < _LEAST_CONTROL:
            return
        error = direction_error(seen_motion(frames)[-1], eta[:2].astype(np.float64))
        # What stands still goes nowhere: it misses by a right angle, as chance does.
        error = 90.0 if np.isnan(error) else error
        sums = self.sums.setdefault((row, "angle"), ClusteredSums(3))
        sums.add(source, [error, float(error < 22.5), 1.0])

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the mean angle, and the share of small ones."""
        sums = self.sums.get((row, "angle"))
        if sums is None:
            reason = "no clip has a control that moves: use other data"
            return {c.name: Missing(reason=reason) for c in self.columns}
        return {
            column.name: sums.estimate(lambda s, i=i: s[..., i] / s[..., 2])
            for i, column in enumerate(self.columns)
        }


class EndPointError(Metric):
    """How far the end point that a picture shows is from the one that eta asked for.

    It is read off the last frame, at 16 x 16 pixels, by ridge regression on training clips; the row
    of real clips tells how well that can be read at all.

    Args:
        training: Clips with their controls, of two source videos at least.
        unit: Of eta.
    """

    def __init__(self, training: TrainingClips, *, unit: str) -> None:
        super().__init__()
        self.columns = end_point_columns(unit)
        clips = [training.read(i) for i in range(len(training.starts))]
        known = [(clip, clip.eta) for clip in clips if clip.eta is not None]
        sources = sorted({clip.start.source for clip, _ in known})
        self._reader = LinearGaussianPrior.fit(
            torch.from_numpy(np.stack([eta for _, eta in known])),
            torch.stack([_last_frame(clip.frames) for clip, _ in known]),
            groups=torch.tensor([sources.index(clip.start.source) for clip, _ in known]),
        )

    def see_real(self, real: RealBatch) -> None:
        """Take in real clips: what the reader itself misses by."""
        for clip in real.clips:
            self._add(REAL, clip.start.source, clip.frames, clip.eta)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Take in the first future of each start."""
        for clip, frames in zip(real.clips, futures.frames[0], strict=True):
            self._add(futures.row, clip.start.source, frames, clip.eta)

    def _add(self, row: str, source: str, frames: Video, eta: NDArray[np.float32] | None) -> None:
        if eta is None:
            return
        read = self._reader.sample(_last_frame(frames)[None], temperature=0.0)[0].numpy()
        sums = self.sums.setdefault((row, "distance"), ClusteredSums(2))
        sums.add(source, [float(np.linalg.norm(read - eta)), 1.0])

    def cells(self, row: str) -> Mapping[str, Cell]:
        """Return the mean distance."""
        sums = self.sums.get((row, "distance"))
        return {} if sums is None else {self.columns[0].name: sums.ratio()}


def end_point_columns(unit: str) -> tuple[Column]:
    """Return the column of an end point's error, in the unit of eta."""
    return (
        Column(
            name="end-point error",
            better="lower",
            unit=unit,
            group="control",
            about=f"distance of eta from the end point read off the last frame, at {_SIDE} x "
            f"{_SIDE} pixels, by ridge regression on training clips; real clips show what that can "
            "read",
        ),
    )


def _last_frame(frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, " p"]:
    small = cv2.resize(frames[-1], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.astype(np.float32)).flatten()


def direction_error(motion: Float64[np.ndarray, "h w 2"], eta: Float64[np.ndarray, "2"]) -> float:
    """Return the angle between the mean motion of what moves and eta, in degrees from 0 to 180.

    Args:
        motion: How far each pixel has come, (right, down), in pixels.
        eta: A direction, (right, down); not 0.

    Returns:
        NaN where nothing moves by a pixel.
    """
    moving = np.linalg.norm(motion, axis=-1) > LEAST_SHIFT
    if not moving.any():
        return float("nan")
    mean = motion[moving].mean(axis=0)
    angle = np.arctan2(mean[1], mean[0]) - np.arctan2(eta[1], eta[0])
    return float(np.degrees(np.abs(np.arctan2(np.sin(angle), np.cos(angle)))))
