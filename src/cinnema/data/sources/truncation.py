"""Whether a video file is as long as it says.

Decoders show what there is of a file that was cut short and then stop, as if that were all. But the
containers state their own lengths: mp4, mov and 3gp box by box, avi, webp and wav in their RIFF
chunks, mkv and webm in their segment.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_HEADER = 16
_BOX_TYPES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def missing_bytes(path: Path) -> int:
    """Return how many bytes a video file lacks of the length that its container states.

    Args:
        path: The file; any, of other kinds 0 is returned.

    Raises:
        OSError: It cannot be read.
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
    """Go from chunk to chunk; the last one's end may lie behind the file's."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        length = length_of(file.read(_HEADER))
        if length < 8:  # 0: up to the end of the file; else no chunk, but something appended
            return min(end, size)
        end += length
    return end


def _box_length(header: bytes) -> int:
    length: int = struct.unpack_from(">I", header)[0]
    if length == 1 and len(header) == _HEADER:  # the true one, of 64 bits, follows the type
        length = struct.unpack_from(">Q", header, 8)[0]
    return length


def _riff_length(header: bytes) -> int:
    length: int = struct.unpack_from("<I", header, 4)[0]
    if header[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # never filled in, as in a live stream
        return 0
    return 8 + length + length % 2


def _end_of_segment(file: BinaryIO, size: int) -> int:
    """Return where the segment of a Matroska file ends, 0 where it does not say."""
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
    """Read a number whose leading zero bits count its further bytes; all ones: unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    further = 8 - first[0].bit_length()
    rest = file.read(further)
    value = int.from_bytes(bytes([first[0] & (0x7F >> further)]) + rest, "big")
    unknown = (1 << 7 * (further + 1)) - 1
    return None if len(rest) < further or value == unknown else value
