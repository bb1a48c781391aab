"""Several videos side by side, for one look at all of them."""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from cinnema.core.errors import UserError

_GREY = 128  # a gap that neither sky nor sea fades into

Frame = UInt8[np.ndarray, "_ _ 3"]  # any size, as the grid's differs from the cells'


class _Layout(NamedTuple):
    """Rows and columns of the grid, and the size of one cell in pixels."""

    rows: int
    columns: int
    height: int
    width: int


def contact_grid(
    x0: Frame, videos: Sequence[Iterable[Frame]], *, max_side: int = 1920, gap: int = 4
) -> Iterator[Frame]:
    """Lay the first frame and all samples of it out as one video.

    The first frame stays still in the top left cell; the samples follow in rows. Cells are scaled
    down, never up, by one factor, so that the grid fits a square of `max_side`; rows and columns
    are chosen to keep the cells large. Both sides of the grid are even.

    Args:
        x0: the first frame, uint8, (height, width, 3).
        videos: the samples' frames, each uint8 and as large as `x0`; all of one length. They are
            read in step, so generators do.
        max_side: the grid's largest height and width, in pixels.
        gap: the grey line between cells, in pixels.

    Yields:
        The grid's frames, uint8, (grid height, grid width, 3), as many as the videos have.

    Raises:
        UserError: there is no video; lengths differ; a frame has another size; the cells would
            vanish.

    Example:
        >>> write_video("grid.mp4", contact_grid(x0, videos), fps=8)
    """
    if not videos:
        raise UserError("a grid needs at least one video beside the first frame, got 0")
    height, width, _ = x0.shape
    layout = _choose_layout(len(videos) + 1, height, width, max_side, gap)
    return _grids(x0, videos, layout, gap)


def _grids(
    x0: Frame, videos: Sequence[Iterable[Frame]], layout: _Layout, gap: int
) -> Iterator[Frame]:
    first = _scaled(x0, layout)
    iterators = [iter(video) for video in videos]
    while True:
        frames = [next(iterator, None) for iterator in iterators]
        present = [frame for frame in frames if frame is not None]
        if not present:
            return
        if len(present) < len(frames):
            short = [index for index, frame in enumerate(frames) if frame is None]
            raise UserError(f"videos {short} of the grid end early: give all one length")
        for index, frame in enumerate(present):
            if frame.shape != x0.shape:
                raise UserError(
                    f"video {index} of the grid has frames of {frame.shape}, the first frame "
                    f"{x0.shape}: give all one size"
                )
        yield _assemble([first, *(_scaled(frame, layout) for frame in present)], layout, gap)


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
    layout = _Layout(ceil(cells / columns), columns, int(height * scale), int(width * scale))
    if min(layout.height, layout.width) < 1:
        raise UserError(
            f"a grid of {cells} cells of {width}x{height} pixels does not fit {max_side} pixels: "
            "ask for fewer samples"
        )
    return layout


def _scaled(frame: Frame, layout: _Layout) -> Frame:
    if frame.shape[:2] == (layout.height, layout.width):
        return frame
    scaled = cv2.resize(frame, (layout.width, layout.height), interpolation=cv2.INTER_AREA)
    return np.asarray(scaled, dtype=np.uint8)


def _assemble(cells: list[Frame], layout: _Layout, gap: int) -> Frame:
    height = layout.rows * (layout.height + gap) - gap
    width = layout.columns * (layout.width + gap) - gap
    grid = np.full((height + height % 2, width + width % 2, 3), _GREY, np.uint8)
    for index, cell in enumerate(cells):
        row, column = divmod(index, layout.columns)
        top, left = row * (layout.height + gap), column * (layout.width + gap)
        grid[top : top + layout.height, left : left + layout.width] = cell
    return grid
