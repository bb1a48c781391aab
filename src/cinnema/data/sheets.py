"""Contact sheets of a packed data set: rows of frames in one picture, and clips side by side."""

from collections.abc import Iterator, Sequence
from itertools import islice
from math import ceil

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cinnema.data.dataset import PackedDataset
from cinnema.data.manifest import ClipEntry
from cinnema.data.records import Control

_GAP = 4
_LABEL = 16  # height of the line above a row, in pixels
_BACKGROUND = 24  # dark grey, unlike skies and tables
_INK = (200, 200, 200)
_FUTURES = 4  # clips shown of one start, at most

Picture = UInt8[np.ndarray, "_ _ 3"]


def choose_clips(dataset: PackedDataset, *, num: int, split: str | None = None) -> list[int]:
    """Choose clips spread over the data set, up to four futures of one start.

    Args:
        dataset: The data set.
        num: Largest number of clips.
        split: The split to choose from; None chooses from all.

    Returns:
        Positions in the manifest, in its order.
    """
    groups: dict[str, list[int]] = {}
    for position, entry in enumerate(dataset.manifest.clips):
        if split is None or entry.split == split:
            groups.setdefault(entry.start or entry.clip, []).append(position)
    shown = [positions[:_FUTURES] for positions in groups.values()]
    width = max(map(len, shown), default=1)
    wanted = max(1, num // width)
    spread = np.linspace(0, len(shown) - 1, min(wanted, len(shown))).round().astype(int)
    return list(islice((p for g in spread for p in shown[g]), num))


def contact_sheet(
    dataset: PackedDataset, positions: Sequence[int], *, columns: int = 8, cell: int = 112
) -> Picture:
    """Draw one row for each clip: frames from its first to its last, under a line of text.

    Args:
        dataset: The data set.
        positions: Positions of the clips in the manifest, at least one.
        columns: Number of frames of each clip.
        cell: Width and height of a frame in pixels.
    """
    rows = [
        _row(dataset, position, columns=columns, cell=cell, control=dataset.manifest.control)
        for position in positions
    ]
    return np.concatenate(rows)


def moving_sheet(
    dataset: PackedDataset, positions: Sequence[int], *, max_frames: int = 60, side: int = 960
) -> Iterator[Picture]:
    """Show clips side by side, each from its start; short ones stop at their last frame.

    Args:
        dataset: The data set.
        positions: Positions of the clips in the manifest, at least one.
        max_frames: Largest number of frames of the sheet.
        side: Largest width of the sheet in pixels.

    Yields:
        The frames of the sheet, RGB.
    """
    columns = ceil(len(positions) ** 0.5)
    cell = max(16, side // columns - _GAP)
    cell = min(cell, 2 * dataset.size)
    clips = [dataset.read(p, _first_frames(dataset, p, max_frames)).frames for p in positions]
    for t in range(max(map(len, clips))):
        frames = [_fit(clip[min(t, len(clip) - 1)], cell) for clip in clips]
        blank = [np.full((cell, cell, 3), _BACKGROUND, np.uint8)] * (-len(frames) % columns)
        cells = [*frames, *blank]
        lines = [_beside(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        yield np.concatenate(lines)


def describe_clip(entry: ClipEntry, control: Control | None) -> str:
    """Return one line: name, split, length, and the control of the whole clip."""
    line = f"{entry.clip}  {entry.split}  {entry.frames} frames at {entry.fps:g} per second"
    if control is None or entry.control is None:
        return line
    values = ", ".join(
        f"{label} {value:.3g}" for label, value in zip(control.labels, entry.control, strict=True)
    )
    return f"{line}  {control.name} {values} {control.unit}"


def _row(
    dataset: PackedDataset, position: int, *, columns: int, cell: int, control: Control | None
) -> Picture:
    entry = dataset.manifest.clips[position]
    times = np.linspace(0, entry.frames - 1, columns).round().astype(int)
    frames = dataset.read(position, times.tolist()).frames
    cells = _beside([_fit(frame, cell) for frame in frames])
    return np.concatenate([_label(describe_clip(entry, control), width=cells.shape[1]), cells])


def _label(text: str, *, width: int) -> Picture:
    line = Image.new("RGB", (width, _LABEL), (_BACKGROUND,) * 3)
    font = ImageFont.load_default(size=11)
    ImageDraw.Draw(line).text((_GAP, 1), text, fill=_INK, font=font)
    return np.asarray(line)


def _beside(cells: Sequence[Picture]) -> Picture:
    """Put pictures next to each other, with a gap to the right of and below each."""
    padded = [np.pad(c, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=_BACKGROUND) for c in cells]
    return np.concatenate(padded, axis=1)


def _fit(frame: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """Scale a frame to a square cell, with margins if it is not square."""
    longest = max(frame.shape[:2])
    height, width = (max(1, round(side * cell / longest)) for side in frame.shape[:2])
    method = cv2.INTER_AREA if longest > cell else cv2.INTER_CUBIC
    out = np.full((cell, cell, 3), _BACKGROUND, np.uint8)
    top, left = (cell - height) // 2, (cell - width) // 2
    out[top : top + height, left : left + width] = cv2.resize(
        frame, (width, height), interpolation=method
    )
    return out


def _first_frames(dataset: PackedDataset, position: int, most: int) -> list[int]:
    return list(range(min(most, dataset.manifest.clips[position].frames)))
