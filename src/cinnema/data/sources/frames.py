"""Videos and folders of pictures as clips: read frame by frame, resized, and cut into clips.

Unreadable content becomes a `BadRecord` that ends the stream of frames, and never raises an
exception. For that, any exception of a decoder is caught: besides the expected UserErrors,
damaged files cause unexpected ones (a video without a codec: AttributeError).
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.records import BadRecord, RawClip
from cinnema.media.formats import PICTURE_SUFFIXES, pictures_in
from cinnema.media.pictures import read_photograph
from cinnema.media.videos import iterate_frames, read_video

Fit: TypeAlias = Literal["stretch", "crop"]
"""Conversion of frames to squares: "stretch" changes the aspect ratio, "crop" keeps the middle."""

Frame: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
Stream: TypeAlias = Iterator[Frame | BadRecord]
"""Frames of one size; a `BadRecord` may be the last of them."""

MAX_HEIGHT = 360
"""Largest height, in pixels, of frames that keep their own shape; taller ones are scaled down."""

_NUMBERED = re.compile(r"frame_?(\d+)")

# First bytes of video containers.
_HEADER = 16
_BOX_TYPES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def square(frame: Frame, size: int, *, fit: Fit = "stretch") -> UInt8[np.ndarray, "s s 3"]:
    """Resize a frame to a square: by area means when shrinking, bilinearly when enlarging.

    Args:
        frame: A frame of any size.
        size: Width and height of the result in pixels.
        fit: Whether the aspect ratio is changed or the longer side is cut at both ends.
    """
    if fit == "crop":
        side = min(frame.shape[:2])
        top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
        frame = np.ascontiguousarray(frame[top : top + side, left : left + side])
    # First the sides that shrink: INTER_AREA averages only if no side grows.
    height, width = (min(side, size) for side in frame.shape[:2])
    if frame.shape[:2] != (height, width):
        frame = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA))
    if (height, width) != (size, size):
        frame = np.asarray(cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR))
    return frame.astype(np.uint8, copy=False)


def shrink(frame: Frame, max_height: int = MAX_HEIGHT) -> Frame:
    """Scale a frame down to a height, if it is taller; the aspect ratio is kept.

    Args:
        frame: A frame of any size.
        max_height: Largest height in pixels.
    """
    height, width = frame.shape[:2]
    if height <= max_height:
        return frame
    size = (max(1, round(width * max_height / height)), max_height)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """Settings for cutting a stream of frames into clips.

    Attributes:
        size: Width and height of the clips in pixels; None keeps the frames' own shape, up to a
            height of `MAX_HEIGHT`.
        fit: "stretch" changes the aspect ratio of frames, "crop" keeps their middle.
        min_frames: Length of the shortest clip. A shorter remainder after other clips is dropped
            (without `size`, kept); a shorter video is a `BadRecord`.
        max_frames: Length of all clips but the last, which are then named "<video>/0",
            "<video>/1", ...; None makes one clip, however long.
    """

    size: int | None
    fit: Fit = "stretch"
    min_frames: int = 1
    max_frames: int | None = None

    def cut(
        self, frames: Stream, *, name: str, source: str, fps: float
    ) -> Iterator[RawClip | BadRecord]:
        """Cut a stream of frames into consecutive clips, holding one clip at a time.

        Args:
            frames: The stream. If it ends with a `BadRecord`, so do the clips, and the unfinished
                clip is dropped.
            name: Name of the clip, or of the video if it is cut into several.
            source: The source video of all clips.
            fps: Frames per second.
        """
        num_clips = 0
        kept: list[Frame] = []
        for frame in frames:
            if isinstance(frame, BadRecord):
                yield frame
                return
            fitted = shrink(frame) if self.size is None else square(frame, self.size, fit=self.fit)
            kept.append(fitted)
            if len(kept) == self.max_frames:
                yield RawClip(
                    name=f"{name}/{num_clips}", source=source, frames=np.stack(kept), fps=fps
                )
                num_clips, kept = num_clips + 1, []
        keeps_rest = self.size is None and num_clips > 0 and len(kept) > 0
        if len(kept) >= self.min_frames or keeps_rest:
            name = name if self.max_frames is None else f"{name}/{num_clips}"
            yield RawClip(name=name, source=source, frames=np.stack(kept), fps=fps)
        elif num_clips == 0:
            reason = f"it has {len(kept)} frames, fewer than {self.min_frames}"
            yield BadRecord(name=name, reason=reason)

    def cut_video(
        self, path: Path, *, root: Path, stride: int = 1
    ) -> Iterator[RawClip | BadRecord]:
        """Cut a video file into consecutive clips.

        Args:
            path: Any file that `cinnema.media.videos` reads.
            root: Folder of the data set; the video is named by its path below it.
            stride: Take every `stride`-th frame; the frame rate is the file's, divided by it.
        """
        name = below(path, root)
        try:
            check_input_file(path, kind="a video")
            missing = missing_bytes(path)
            if missing:
                reason = f"it is truncated: {missing} bytes of it are missing"
                yield BadRecord(name=name, reason=reason)
                return
            fps = read_video(path, max_frames=1).fps / stride
        except Exception as error:
            yield bad_record(error, path, root)
            return
        frames = video_frames(path, root=root, stride=stride)
        yield from self.cut(frames, name=name, source=name, fps=fps)


def video_frames(path: Path, *, root: Path, stride: int) -> Stream:
    """Read every `stride`-th frame of a video file."""
    try:
        yield from iterate_frames(path, stride=stride)
    except Exception as error:
        yield bad_record(error, path, root)


def picture_frames(paths: Sequence[Path] | BadRecord, *, root: Path) -> Stream:
    """Read pictures as the frames of one video.

    Args:
        paths: The pictures in order; or a `BadRecord` of their folder, which is yielded.
        root: Folder of the data set, for names.
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

    If pictures are named frame<n> or frame_<n>, these are the frames; they have to be consecutive,
    from any number on, or a `BadRecord` says which is missing. Otherwise (Landscape before its
    pictures are renamed) all pictures are frames, in natural order, and gaps between numbers are
    ignored, as in the published data.
    """
    try:
        pictures = pictures_in(folder)
    except UserError as error:
        return bad_record(error, folder, root)
    numbers = {path: _number(path) for path in pictures}
    frames = sorted((number, path) for path, number in numbers.items() if number is not None)
    for (number, _), (following, path) in pairwise(frames):
        if following == number:
            return BadRecord(name=below(path, root), reason=f"frame {number} exists twice")
        if following > number + 1:
            name = below(folder, root)
            return BadRecord(name=name, reason=f"frame {number + 1} is missing")
    return [path for _, path in frames] or pictures


def _number(path: Path) -> int | None:
    match = _NUMBERED.fullmatch(path.stem)
    return int(match[1]) if match else None


def count_pictures(folder: Path) -> int:
    """Count the pictures in a folder by their names."""
    return sum(is_picture(entry.name) for entry in _entries(folder))


def is_picture(name: str) -> bool:
    """Return whether a file name is that of a picture that is not hidden."""
    return name[0] != "." and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES  # noqa: PTH122


def subfolders(folder: Path) -> list[Path]:
    """List the folders in a folder that are not hidden, by name; none if it does not exist."""
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
    """Return a path relative to `root`, with slashes: the name of items, clips and damaged files.

    Raises:
        UserError: The name is not UTF-8 and cannot be stored.
    """
    name = path.relative_to(root).as_posix()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{root} contains {name!r}, whose name is not UTF-8: rename it") from None
    return name


def bad_record(error: Exception, path: Path, root: Path) -> BadRecord:
    """Turn an error about a file into a `BadRecord` with its path relative to `root`."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        reason = _without_path(message, path)
    elif isinstance(error, OSError) and error.strerror:
        reason = f"it cannot be read ({error.strerror})"
    else:
        reason = f"it is damaged or truncated ({message})"
    return BadRecord(name=below(path, root), reason=reason)


def _without_path(message: str, path: Path) -> str:
    """Return the middle of "<path> is damaged: copy it again" or "<path>: it is damaged: ..."."""
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


def missing_bytes(path: Path) -> int:
    """Return how many bytes a video file lacks of the length that its container states.

    Decoders return the existing part of a truncated file without an error. But the
    containers state their own lengths: mp4, mov and 3gp for each box, avi, webp and wav in their
    RIFF chunks, mkv and webm in their segment.

    Args:
        path: The file; for other formats 0 is returned.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER)
        if head[4:8] in _BOX_TYPES:
            end = _end_of_chunks(file, size, _box_length)
        elif head[:4] == b"RIFF":
            end = _end_of_chunks(file, size, _riff_length)
        elif head[:4] == _EBML:
            end = _end_of_segment(file, size)
        else:
            end = 0
    return max(0, end - size)


def _end_of_chunks(file: BinaryIO, size: int, length_of: Callable[[bytes], int]) -> int:
    """Return the end of the last chunk, which may lie beyond the end of the file."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        length = length_of(file.read(_HEADER))
        if length < 8:  # 0: up to the end of the file; otherwise not a chunk, but appended data
            return min(end, size)
        end += length
    return end


def _box_length(header: bytes) -> int:
    length: int = struct.unpack_from(">I", header)[0]
    if length == 1 and len(header) == _HEADER:  # the actual length, 64 bits, follows the type
        length = struct.unpack_from(">Q", header, 8)[0]
    return length


def _riff_length(header: bytes) -> int:
    length: int = struct.unpack_from("<I", header, 4)[0]
    if header[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # not filled in, as in a live stream
        return 0
    return 8 + length + length % 2


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Return where the segment of a Matroska file ends; 0 if that is not stated."""
    file.seek(4)
    header = _element_length(file)
    if header is None or file.tell() + header > size:
        return 0 if header is None else file.tell() + header
    file.seek(header, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length = _element_length(file)
    return 0 if length is None else file.tell() + length


def _element_length(file: BinaryIO) -> int | None:
    """Read a number whose leading zero bits count its further bytes; all ones mean unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    further = 8 - first[0].bit_length()
    rest = file.read(further)
    value = int.from_bytes(bytes([first[0] & (0x7F >> further)]) + rest, "big")
    unknown = (1 << 7 * (further + 1)) - 1
    return None if len(rest) < further or value == unknown else value
