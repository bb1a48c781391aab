"""Agreement of futures with the control: direction of a drift, end point of a hand."""

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cinnema.evaluation.baselines import TrainingClips
from cinnema.evaluation.metrics.base import Futures, MeanMetric, Metric, RealBatch, Video
from cinnema.evaluation.metrics.motion import LEAST_SHIFT, visible_motion
from cinnema.evaluation.results import REAL, Cells, Column, Missing
from cinnema.evaluation.statistics.bootstrap import ClusteredSums
from cinnema.models.flow.priors import LinearGaussianPrior

_LEAST_CONTROL = 0.01  # in picture sizes: a smaller one has no direction
_SIDE = 16  # pixels; side of the pictures that end points are regressed from


class DirectionError(Metric):
    """Angle between the control and the visible motion, for a drift: 0 is best, 90 is chance."""

    uses_futures = True

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
        """Add real clips: the error of the optical flow itself."""
        for clip in real.clips:
            self._add(REAL, clip.start.source, clip.frames, clip.eta)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Add the first future of each start."""
        for clip, frames in zip(real.clips, futures.frames[0], strict=True):
            whole = np.concatenate([clip.frames[:1], frames])
            self._add(futures.row, clip.start.source, whole, clip.eta)

    def _add(self, row: str, source: str, frames: Video, eta: NDArray[np.float32] | None) -> None:
        if eta is None or np.hypot(*eta[:2]) < _LEAST_CONTROL:
            return
        error = direction_error(visible_motion(frames)[-1], eta[:2].astype(np.float64))
        # What stands still has no direction: it counts as a right angle, which is chance.
        error = 90.0 if np.isnan(error) else error
        sums = self.sums.setdefault((row, "angle"), ClusteredSums(3))
        sums.add(source, [error, float(error < 22.5), 1.0])

    def cells(self, row: str) -> Cells:
        """Return the mean angle, and the share of small angles."""
        sums = self.sums.get((row, "angle"))
        if sums is None:
            reason = "no clip has a control that moves: use other data"
            return {c.name: Missing(reason=reason) for c in self.columns}
        return {
            column.name: sums.estimate(lambda s, i=i: s[..., i] / s[..., 2])
            for i, column in enumerate(self.columns)
        }


class EndPointError(MeanMetric):
    """Distance of the visible end point from the one in the control; lower is better.

    The end point is read off the last frame, at 16 x 16 pixels, by ridge regression on training
    clips. The row of real clips gives the error of the regression itself.

    Args:
        training: Training clips with their controls, of two source videos at least.
        unit: Unit of the control.
    """

    uses_futures = True

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
        """Add real clips: the error of the regression itself."""
        for clip in real.clips:
            self._add_clip(REAL, clip.start.source, clip.frames, clip.eta)

    def see(self, real: RealBatch, futures: Futures) -> None:
        """Add the first future of each start."""
        for clip, frames in zip(real.clips, futures.frames[0], strict=True):
            self._add_clip(futures.row, clip.start.source, frames, clip.eta)

    def _add_clip(
        self, row: str, source: str, frames: Video, eta: NDArray[np.float32] | None
    ) -> None:
        if eta is None:
            return
        read = self._reader.sample(_last_frame(frames)[None], temperature=0.0)[0].numpy()
        self.add(row, self.columns[0].name, source, float(np.linalg.norm(read - eta)))


def end_point_columns(unit: str) -> tuple[Column]:
    """Return the column of the error of an end point, in the unit of the control."""
    return (
        Column(
            name="end-point error",
            better="lower",
            unit=unit,
            group="control",
            about="distance of the control from the end point read off the last frame, at "
            f"{_SIDE} x {_SIDE} pixels, by ridge regression on training clips; the real row is the "
            "error of that regression",
        ),
    )


def _last_frame(frames: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, " p"]:
    small = cv2.resize(frames[-1], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small.astype(np.float32)).flatten()


def direction_error(motion: Float64[np.ndarray, "h w 2"], eta: Float64[np.ndarray, "2"]) -> float:
    """Return the angle between the mean motion of what moves and a direction, in degrees, 0 to 180.

    Args:
        motion: Displacement of each pixel, (right, down), in pixels.
        eta: A direction, (right, down); not 0.

    Returns:
        The angle; NaN where nothing moves by a pixel.
    """
    moving = np.linalg.norm(motion, axis=-1) > LEAST_SHIFT
    if not moving.any():
        return float("nan")
    mean = motion[moving].mean(axis=0)
    angle = np.arctan2(mean[1], mean[0]) - np.arctan2(eta[1], eta[0])
    return float(np.degrees(np.abs(np.arctan2(np.sin(angle), np.cos(angle)))))
