"""Pictures and videos side by side."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from cinnema.core.errors import UserError

_GREY = 128  # of the gaps: neither sky nor sea

Frame = UInt8[np.ndarray, "_ _ 3"]  # of any size


def tile(rows: Sequence[Sequence[Frame]], *, gap: int = 4) -> UInt8[np.ndarray, "_ _ 3"]:
    """Lay pictures of one size out in rows, with grey gaps between them.

    Args:
        rows: At least one row of at least one picture; short rows are filled with grey.
        gap: Width of the gaps, in pixels.

    Example:
        >>> black = np.zeros((2, 3, 3), np.uint8)
        >>> tile([[black, black], [black]], gap=1).shape
        (5, 7, 3)
    """
    height, width, _ = rows[0][0].shape
    across = max(map(len, rows)) * (width + gap) - gap
    tiled = np.full((len(rows) * (height + gap) - gap, across, 3), _GREY, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = row * (height + gap), column * (width + gap)
            tiled[top : top + height, left : left + width] = picture
    return tiled


class VideoGrid:
    """A video of several videos: a still picture in the top left cell, the videos after it.

    Cells are scaled down, never up, by one factor, so that the grid fits a square of `max_side`;
    rows and columns are chosen to keep the cells large. Only small copies of the videos are held:
    at most 3 `max_side`^2 bytes a frame, whatever their number.

    Args:
        x0: The still picture.
        num_videos: How many videos will be added, at least 1.
        max_side: Greatest height and width of the grid, in pixels.
        gap: Width of the grey gaps between cells, in pixels.

    Raises:
        UserError: There are so many videos that a cell would have no pixel.

    Example:
        >>> x0 = np.zeros((20, 30, 3), np.uint8)
        >>> grid = VideoGrid(x0, num_videos=1)
        >>> grid.add([x0, x0])
        >>> [frame.shape for frame in grid.frames()]
        [(44, 30, 3), (44, 30, 3)]
    """

    def __init__(self, x0: Frame, *, num_videos: int, max_side: int = 1280, gap: int = 4) -> None:
        height, width, _ = x0.shape
        self._layout = _choose_layout(num_videos + 1, height, width, max_side, gap)
        self._gap = gap
        self._x0 = self._small(x0)
        self._videos: list[list[Frame]] = []

    def add(self, frames: Iterable[Frame], *, num_frames: int | None = None) -> None:
        """Take small copies of the next video.

        Args:
            frames: At least one, of any size; they are stretched to the cell.
            num_frames: Take so many, repeating the last one of a shorter video; all if None.
        """
        small = map(self._small, frames)
        if num_frames is None:
            self._videos.append(list(small))
            return
        first = list(islice(small, num_frames))
        self._videos.append([*first, *repeat(first[-1], num_frames - len(first))])

    def watch(self, frames: Iterable[Frame], *, only: int | None = None) -> Iterator[Frame]:
        """Return the frames of the next video, of which small copies are taken as they pass.

        Args:
            frames: As in `add`.
            only: Take the frame of this index only; all if None.
        """
        small: list[Frame] = []
        self._videos.append(small)

        def watched() -> Iterator[Frame]:
            for index, frame in enumerate(frames):
                if only in (None, index):
                    small.append(self._small(frame))
                yield frame

        return watched()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames of the grid; both sides are even.

        The videos that were added must have one length.
        """
        columns = self._layout.columns
        for frames in zip(*self._videos, strict=True):
            cells = [self._x0, *frames]
            rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
            grid = tile(rows, gap=self._gap)
            odd = [(0, side % 2) for side in grid.shape[:2]]
            yield np.pad(grid, [*odd, (0, 0)], constant_values=_GREY)

    def _small(self, frame: Frame) -> Frame:
        size = (self._layout.width, self._layout.height)
        if (frame.shape[1], frame.shape[0]) == size:
            return frame.copy()
        return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


class _Layout(NamedTuple):
    """Columns of the grid, and the size of one cell in pixels."""

    columns: int
    height: int
    width: int


def _choose_layout(cells: int, height: int, width: int, max_side: int, gap: int) -> _Layout:
    """Choose the columns that shrink cells least; then those that leave fewest cells empty."""

    def scale_and_shape(columns: int) -> tuple[float, int, float]:
        rows = ceil(cells / columns)
        across = (max_side - gap * (columns - 1)) / (columns * width)
        down = (max_side - gap * (rows - 1)) / (rows * height)
        shape = (columns * width) / (rows * height)
        squareness = -max(shape, 1 / shape)
        return min(1.0, across, down), -(rows * columns), squareness

    columns = max(range(1, cells + 1), key=scale_and_shape)
    scale, _, _ = scale_and_shape(columns)
    layout = _Layout(columns, int(height * scale), int(width * scale))
    if min(layout.height, layout.width) < 1:
        raise UserError(
            f"a grid of {cells} cells of {width}x{height} pixels does not fit {max_side} pixels: "
            "ask for fewer samples"
        )
    return layout
