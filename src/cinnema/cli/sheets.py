"""The grid of all samples, gathered while each video is held only for a moment."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from cinnema.media.grids import contact_grid
from cinnema.media.videos import write_video
from cinnema.synthesis.animation import Animation

_SIDE = 1280  # of the grid: large enough to judge four samples, small enough to send


class ContactSheet:
    """Small copies of all samples, and the grid video that they make.

    Memory: at most 3 x 1280^2 bytes for each frame of a video, whatever the number of samples.

    Args:
        num_samples: how many will be added.

    Example:
        >>> sheet = ContactSheet(num_samples=4)
        >>> for animation in pipe.iterate("beach.jpg", num_samples=4):
        ...     sheet.add(animation)
        >>> sheet.write(Path("grid.mp4"), fps=8)
    """

    def __init__(self, *, num_samples: int) -> None:
        self._num_cells = num_samples + 1
        self._x0: UInt8[np.ndarray, "h w 3"] | None = None
        self._videos: list[list[UInt8[np.ndarray, "h w 3"]]] = []

    def add(self, animation: Animation) -> None:
        """Take a small copy of the next sample."""
        if self._x0 is None:
            self._x0 = self._small(animation.x0)
        self._videos.append([self._small(frame) for frame in animation.frames])

    def add_motion(self, shown: UInt8[np.ndarray, "t1 _ _ 3"], *, like: Animation) -> None:
        """Take a small copy of the video that the motion is from, before the sample it led to.

        Where it is the shorter, its last frame stays.

        Args:
            shown: x0 and the frames after it, of any size; they are brought to the sample's.
            like: the sample.
        """
        if self._x0 is None:
            self._x0 = self._small(like.x0)
        height, width, _ = self._x0.shape
        times = [min(i, len(shown) - 1) for i in range(1, len(like.frames) + 1)]
        small = {
            i: cv2.resize(shown[i], (width, height), interpolation=cv2.INTER_AREA)
            for i in set(times)
        }
        self._videos.append([np.asarray(small[i], dtype=np.uint8) for i in times])

    def write(self, path: Path, *, fps: float, overwrite: bool = False) -> Path:
        """Write the grid, the first frame in its top left cell.

        Args:
            path: the video; its suffix names the format.
            fps: frames a second.
            overwrite: whether a file that is there already may be replaced.

        Returns:
            What was written.

        Raises:
            UserError: no sample was added, or the file cannot be written.
        """
        x0 = np.zeros((1, 1, 3), np.uint8) if self._x0 is None else self._x0
        grid = contact_grid(x0, self._videos, max_side=_SIDE)
        return write_video(path, grid, fps=fps, overwrite=overwrite)

    def _small(self, frame: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        """Scale a frame down to the largest that any layout of so many cells could show."""
        height, width, _ = frame.shape
        area = _SIDE**2 / self._num_cells
        scale = min((area / (height * width)) ** 0.5, _SIDE / height, _SIDE / width)
        if scale >= 1:
            return frame.copy()
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        return np.asarray(small, dtype=np.uint8)
