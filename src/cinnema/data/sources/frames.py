"""Videos and folders of pictures as clips: frame by frame, made square, cut where they are long.

What cannot be read becomes a `BadRecord` that ends the stream of frames; nothing here raises for
what a file holds. For that, any exception of a decoder is caught: beside the UserErrors that are
meant, damaged files bring out what nobody thought of (of a video without a codec, AttributeError).
"""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.records import BadRecord, RawClip
from cinnema.data.sources.truncation import missing_bytes
from cinnema.media.formats import PICTURE_SUFFIXES, pictures_in
from cinnema.media.pictures import read_photograph
from cinnema.media.videos import iterate_frames, read_video

Fit: TypeAlias = Literal["stretch", "crop"]
"""How a frame becomes square: "stretch" changes its aspect, "crop" keeps its middle."""

Frame: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
Stream: TypeAlias = Iterator[Frame | BadRecord]
"""Frames of one size; a `BadRecord` is the last of them."""

_NUMBERED = re.compile(r"frame_?(\d+)")


def square(frame: Frame, size: int, *, fit: Fit = "stretch") -> UInt8[np.ndarray, "s s 3"]:
    """Resize a frame to a square: area means where it shrinks, bilinear where it grows.

    Args:
        frame: Of any size.
        size: Width and height of the result.
        fit: Whether the aspect is given up or the longer side cut at both ends.
    """
    if fit == "crop":
        side = min(frame.shape[:2])
        top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
        frame = np.ascontiguousarray(frame[top : top + side, left : left + side])
    # First the sides that shrink: INTER_AREA takes means only if no side grows.
    height, width = (min(side, size) for side in frame.shape[:2])
    if frame.shape[:2] != (height, width):
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
    if (height, width) != (size, size):
        frame = np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR))
    return frame.astype(np.uint8, copy=False)


def cut(
    frames: Stream,
    *,
    name: str,
    source: str,
    fps: float,
    size: int,
    fit: Fit = "stretch",
    min_frames: int = 1,
    max_frames: int | None = None,
) -> Iterator[RawClip | BadRecord]:
    """Cut a stream of frames into consecutive clips, holding one clip at a time.

    Args:
        frames: The stream; when it ends with a `BadRecord`, so do the clips, and the clip that was
            begun is dropped.
        name: Of the clip; with `max_frames` that of the clips is "<name>/0", "<name>/1", ...
        source: The source video of them all.
        fps: Frames a second.
        size: Width and height of the clips.
        fit: As for `square`.
        min_frames: A shorter remainder behind other clips is dropped; a shorter video is a
            `BadRecord`.
        max_frames: The length of all clips but the last; None: one clip, however long.
    """
    num_clips = 0
    kept: list[UInt8[np.ndarray, "s s 3"]] = []
    for frame in frames:
        if isinstance(frame, BadRecord):
            yield frame
            return
        kept.append(square(frame, size, fit=fit))
        if len(kept) == max_frames:
            yield RawClip(name=f"{name}/{num_clips}", source=source, frames=np.stack(kept), fps=fps)
            num_clips, kept = num_clips + 1, []
    if len(kept) >= min_frames:
        name = name if max_frames is None else f"{name}/{num_clips}"
        yield RawClip(name=name, source=source, frames=np.stack(kept), fps=fps)
    elif num_clips == 0:
        yield BadRecord(name=name, reason=f"it has {len(kept)} frames, fewer than {min_frames}")


def cut_video(
    path: Path,
    *,
    root: Path,
    stride: int = 1,
    size: int,
    fit: Fit = "stretch",
    min_frames: int,
    max_frames: int,
) -> Iterator[RawClip | BadRecord]:
    """Cut a video file into consecutive clips.

    Args:
        path: Whatever `cinnema.media.videos` reads.
        root: The data set's folder; the video is called by its path below it.
        stride: Take each `stride`-th frame; the frame rate is the file's, divided by it.
        size: As for `cut`, and so is what follows.
        fit: How frames become square.
        min_frames: The length of the shortest clip.
        max_frames: The length of all clips but the last.
    """
    name = below(path, root)
    try:
        check_input_file(path, kind="a video")
        missing = missing_bytes(path)
        if missing:
            reason = f"it is cut short: {missing} bytes of it are missing"
            yield BadRecord(name=name, reason=reason)
            return
        fps = read_video(path, max_frames=1).fps / stride
    except Exception as error:
        yield bad_record(error, path, root)
        return
    yield from cut(
        video_frames(path, root=root, stride=stride), name=name, source=name, fps=fps,
        size=size, fit=fit, min_frames=min_frames, max_frames=max_frames,
    )  # fmt: skip


def video_frames(path: Path, *, root: Path, stride: int) -> Stream:
    """Read each `stride`-th frame of a video file."""
    try:
        yield from iterate_frames(path, stride=stride)
    except Exception as error:
        yield bad_record(error, path, root)


def picture_frames(paths: Sequence[Path] | BadRecord, *, root: Path) -> Stream:
    """Read pictures as the frames of one video.

    Args:
        paths: The pictures in order, or what was wrong with their folder, which is passed on.
        root: The data set's folder, for names.
    """
    if isinstance(paths, BadRecord):
        yield paths
        return
    first = None
    for path in paths:
        try:
            pixels = read_photograph(path, min_side=1)
        except Exception as error:
            yield bad_record(error, path, root)
            return
        first = pixels.shape if first is None else first
        if pixels.shape != first:
            sizes = f"{pixels.shape[1]}x{pixels.shape[0]} pixels, the first {first[1]}x{first[0]}"
            yield BadRecord(name=below(path, root), reason=f"the frame is {sizes}")
            return
        yield pixels


def numbered_pictures(folder: Path, *, root: Path) -> list[Path] | BadRecord:
    """List the frames of a folder in order.

    Where pictures are called frame<n> or frame_<n>, these are the frames; they are consecutive,
    from any number on, or a `BadRecord` says which is missing. Otherwise (Landscape before its
    pictures are renamed) all pictures are, in natural order, and gaps between numbers are as
    published.
    """
    try:
        pictures = pictures_in(folder)
    except UserError as error:
        return bad_record(error, folder, root)
    numbers = {path: _number(path) for path in pictures}
    frames = sorted((number, path) for path, number in numbers.items() if number is not None)
    for (number, _), (following, path) in pairwise(frames):
        if following == number:
            return BadRecord(name=below(path, root), reason=f"frame {number} is there twice")
        if following > number + 1:
            name = below(folder, root)
            return BadRecord(name=name, reason=f"frame {number + 1} is missing")
    return [path for _, path in frames] or pictures


def _number(path: Path) -> int | None:
    match = _NUMBERED.fullmatch(path.stem)
    return int(match[1]) if match else None


def count_pictures(folder: Path) -> int:
    """Count the pictures in a folder by their names alone."""
    return sum(is_picture(entry.name) for entry in _entries(folder))


def is_picture(name: str) -> bool:
    """Return whether a file's name is that of a visible picture."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122


def subfolders(folder: Path) -> list[Path]:
    """List the visible folders in a folder by name; none if it does not exist."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in _entries(folder) if entry.name[0] != "." and entry.is_dir()]
    return [folder / name for name in sorted(names)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): check its rights") from None


def below(path: Path, root: Path) -> str:
    """Return a path below `root`, with slashes: what items, clips and damaged files are called.

    Raises:
        UserError: The name is not UTF-8, so that it could not be stored.
    """
    name = path.relative_to(root).as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{root} holds {name!r}, whose name is not UTF-8: rename it") from None
    return name


def bad_record(error: Exception, path: Path, root: Path) -> BadRecord:
    """Turn an error about a file into a `BadRecord` that names it by its place below `root`."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        reason = _without_path(message, path)
    elif isinstance(error, OSError) and error.strerror:
        reason = f"it cannot be read ({error.strerror})"
    else:
        reason = f"it is damaged or cut short ({message})"
    return BadRecord(name=below(path, root), reason=reason)


def _without_path(message: str, path: Path) -> str:
    """Of "<path> is damaged: copy it again" or "<path>: it is damaged: ..." keep the middle."""
    rest = message.removeprefix(str(path))
    clause = rest.rpartition(": ")[0] or rest
    if rest == message:
        return clause
    return clause[2:] if clause.startswith(": ") else f"it{clause}"


def check_at_least_one(**options: int) -> None:
    """Raise a UserError for an option below 1."""
    for name, value in options.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")


def check_root(root: Path) -> None:
    """Raise a UserError unless `root` is a folder."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}: name the folder of the data set")
