"""Clips in npy and npz files, found by their headers and read frame by frame."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.lib import format as npy_format

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord
from cinnema.data.sources.frames import Stream, bad_record
from cinnema.media.formats import check_size

_SUFFIX = ".npy"
_CHUNK = 1 << 20

Shape = tuple[int, ...]


@runtime_checkable
class Readable(Protocol):
    """A file, or a member of an archive."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        ...


def holds_clips(path: Path) -> bool:
    """Return whether an npy or npz file holds a clip, or might, as it is damaged.

    A clip is an array of uint8, (frames, height, width, 3). Only headers are read.
    """
    try:
        if path.suffix.lower() != _SUFFIX:
            return bool(clips_in(path))
        with path.open("rb") as file:
            return _clip_shape(file) is not None
    except Exception:
        return True


def clips_in(path: Path) -> dict[str, Shape]:
    """List the arrays in an npz file that are clips, with their shapes.

    Raises:
        Exception: It is damaged; the kind depends on where.
    """
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(_SUFFIX)]
        shapes = {name.removesuffix(_SUFFIX): _member_shape(archive, name) for name in members}
        return {name: shape for name, shape in shapes.items() if shape is not None}


def _member_shape(archive: zipfile.ZipFile, member: str) -> Shape | None:
    with archive.open(member) as file:
        return _clip_shape(file)


def npz_clips(path: Path, *, root: Path, stride: int) -> Iterator[tuple[str, Stream]]:
    """Yield name and frames of each clip in an npz file.

    Args:
        path: The file.
        root: The data set's folder, for names.
        stride: Take each `stride`-th frame.
    """
    try:
        clips = clips_in(path)
    except Exception as error:
        yield "", iter([bad_record(error, path, root)])
        return
    for name, shape in clips.items():
        yield name, _npz_frames(path, name, shape, root=root, stride=stride)


def _npz_frames(path: Path, name: str, shape: Shape, *, root: Path, stride: int) -> Stream:
    try:
        check_size(shape[2], shape[1], path)
        with zipfile.ZipFile(path) as archive:
            # Once to check its checksum, which is known at its end only; then to take its frames.
            with archive.open(name + _SUFFIX) as file:
                while file.read(_CHUNK):
                    pass
            with archive.open(name + _SUFFIX) as file:
                _clip_shape(file)  # leaves it at the first frame
                yield from _frames(file, shape, stride)
    except Exception as error:
        bad = bad_record(error, path, root)
        yield BadRecord(name=f"{bad.name}/{name}", reason=bad.reason)


def _frames(file: Readable, shape: Shape, stride: int) -> Stream:
    num_frames, *frame = shape
    length = int(np.prod(frame))
    for index in range(num_frames):
        pixels = file.read(length)
        if len(pixels) < length:
            raise ValueError(f"frame {index} of {num_frames} is cut short")
        if index % stride == 0:
            yield np.frombuffer(pixels, np.uint8).reshape(frame)


def _clip_shape(file: Readable) -> Shape | None:
    """Read an npy file's header; None where the array is no clip."""
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy_format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy_format.read_array_header_2_0(file)
    else:  # later ones are for names of fields, which no clip has
        return None
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
        return None
    if fortran:
        raise UserError("an array is stored column by column: save np.ascontiguousarray of it")
    return tuple(shape)
