"""One shard: many clips in one file that numpy and Pillow can read, accessed in place.

A shard is an ordinary, uncompressed `.npz`:

    frames      uint8 (bytes,)             encoded pictures, concatenated
    offsets     int64 (num_frames + 1,)    where each picture begins
    first       int64 (num_clips + 1,)     the first picture of each clip
    crc32       uint32 (num_clips,)        checksum of each clip's bytes in `frames`
    confidence  float32 (num_frames,)      confidence of the control's track, 1 where it is exact
    track.NAME  float32 (num_frames, d)    numbers of each frame
    still       uint8 (bytes,)             PNG masks, concatenated; empty where unknown
    still_offsets  int64 (num_clips + 1,)  where each mask begins
    index       uint8 (bytes,)             UTF-8 JSON: `manifest.ShardIndex`

so that without cinnema the first picture of clip 5 is

    shard = np.load("train-00003.npz")
    n = shard["first"][5]
    begin, end = shard["offsets"][n : n + 2]
    picture = Image.open(io.BytesIO(shard["frames"][begin:end].tobytes()))

or, if the index says that the encoding is "raw", the bytes themselves, (height, width, 3).
"""

import hashlib
import io
import math
import mmap
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file
from cinnema.data.manifest import (
    ClipInfo,
    Encoding,
    ShardEntry,
    ShardIndex,
    ShardPlan,
    SkippedRecord,
)
from cinnema.data.records import BadRecord, RawClip

_TRACK, _TRACK_TYPE = "track.", "<f4"
_TYPES = {
    "frames": "|u1",
    "offsets": "<i8",
    "first": "<i8",
    "crc32": "<u4",
    "confidence": "<f4",
    "still": "|u1",
    "still_offsets": "<i8",
    "index": "|u1",
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a constant date, so that shards are reproducible
_LOCAL_HEADER = 30  # bytes before the name, in a member's header in a zip file
_CHUNK = 1 << 20

# Options of Pillow's writers. PNG: level 4 takes two thirds of level 6's time for half a percent
# more bytes. WebP: method 0 is the only one that encodes and decodes faster than PNG, at 80 % of
# its bytes (method 4: 75 %, at 20 times the time). Quality, which is
# the effort in lossless mode, costs time and saves nothing with method 0.
_WRITERS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 4},
    "jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0, "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "method": 0, "quality": 0},
}


def encode_picture(pixels: UInt8[np.ndarray, "h w 3"], encoding: Encoding) -> bytes:
    """Encode a picture for storage in a shard.

    Args:
        pixels: RGB.
        encoding: "png" and "webp" are lossless; "jpeg" has quality 95 without chroma subsampling;
            "raw" is the pixels, row by row.
    """
    if encoding == "raw":
        return pixels.tobytes()
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, **_WRITERS[encoding])
    return content.getvalue()


def decode_picture(
    content: UInt8[np.ndarray, "b"], encoding: Encoding, *, shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the picture that `encode_picture` encoded, in RGB.

    OpenCV decodes to the same pixels as Pillow, in half the time.

    Args:
        content: The encoded bytes.
        encoding: The encoding stated in the shard's index.
        shape: Height and width in pixels.

    Raises:
        ValueError: The bytes cannot be decoded, or the picture has another size.
    """
    height, width = shape
    if encoding == "raw":
        return content.reshape(height, width, 3).copy()
    pixels = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if pixels is None or pixels.shape != (height, width, 3):
        raise ValueError(f"it is not a {encoding} picture of {width}x{height} pixels")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels), dtype=np.uint8)


def write_shard(
    folder: Path, plan: ShardPlan, records: Iterable[RawClip | BadRecord]
) -> tuple[ShardEntry, ShardIndex]:
    """Write clips to one shard, under its final name only when complete; replaces an older file.

    The same records give the same bytes. Memory holds one clip at a time: encoded pictures go to
    a temporary file first.

    Args:
        folder: Folder of the shard.
        plan: File name, size and encoding of the frames, control, and settings for the index.
        records: Clips, all with the same tracks, and bad records to list as skipped.

    Returns:
        The shard's entry in the manifest, and its index.

    Raises:
        UserError: A clip has no frame or frames of another size, its tracks do not fit, two clips
            share a name, or the disk is full.
    """
    path = folder / plan.file
    with (
        atomic_path(path, overwrite=True) as partial,
        tempfile.TemporaryFile(dir=folder) as pictures,
    ):
        content = _Content(plan, pictures)
        for record in records:
            content.add(record)
        index = content.index()
        with partial.open("w+b") as file:
            _write_members(file, content.members(index))
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = partial.stat().st_size
    entry = ShardEntry(file=path.name, sha256=digest, bytes=num_bytes, clips=len(index.clips))
    return entry, index


@dataclass
class _Content:
    """A shard that is being filled; everything but the pictures is in memory."""

    plan: ShardPlan
    pictures: IO[bytes]
    clips: list[ClipInfo] = field(default_factory=list)
    skipped: list[SkippedRecord] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    checksums: list[int] = field(default_factory=list)
    confidence: list[NDArray[np.float32]] = field(default_factory=list)
    tracks: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    masks: list[bytes] = field(default_factory=list)

    def add(self, record: RawClip | BadRecord) -> None:
        if isinstance(record, BadRecord):
            self.skipped.append(SkippedRecord(record=record.name, reason=record.reason))
            return
        _check_frames(record, size=self.plan.size)
        self._add_numbers(record)
        checksum = 0
        for frame in record.frames:
            picture = encode_picture(frame, self.plan.encoding)
            self.lengths.append(self.pictures.write(picture))
            checksum = zlib.crc32(picture, checksum)
        self.checksums.append(checksum)
        self.masks.append(b"" if record.still is None else _encode_mask(record.still))
        self.clips.append(_info_of(record, self.plan))

    def _add_numbers(self, clip: RawClip) -> None:
        tracks = {name: _as_float(track) for name, track in sorted(clip.tracks.items())}
        exact = np.ones(len(clip.frames), dtype=np.float32)
        confidence = exact if clip.confidence is None else _as_float(clip.confidence)
        _check_numbers(clip, tracks, confidence, self.plan)
        if self.clips:
            _check_same(clip.name, tracks, self.clips[0].clip, self._widths())
        if any(other.clip == clip.name for other in self.clips):
            raise UserError(f"two clips are named {clip.name}: rename the file of one of them")
        self.confidence.append(confidence)
        for name, track in tracks.items():
            self.tracks.setdefault(name, []).append(track)

    def _widths(self) -> dict[str, int]:
        return {name: tracks[0].shape[1] for name, tracks in self.tracks.items()}

    def index(self) -> ShardIndex:
        return ShardIndex(
            encoding=self.plan.encoding,
            size=self.plan.size,
            tracks=self._widths(),
            clips=tuple(self.clips),
            skipped=tuple(self.skipped),
            plan=self.plan,
        )

    def members(self, index: ShardIndex) -> dict[str, "_Chunks"]:
        numbers = {
            "offsets": _starts(self.lengths),
            "first": _starts(clip.frames for clip in self.clips),
            "crc32": np.array(self.checksums, dtype="<u4"),
            "confidence": np.concatenate([*self.confidence, np.empty(0, "<f4")]),
            "still_offsets": _starts(map(len, self.masks)),
        } | {f"{_TRACK}{name}": np.concatenate(tracks) for name, tracks in self.tracks.items()}
        return {
            "index": _Chunks.of_bytes([index.to_json()]),
            **{name: _Chunks.of_array(array) for name, array in numbers.items()},
            "still": _Chunks.of_bytes(self.masks),
            "frames": _Chunks.of_file(self.pictures),
        }


@dataclass(frozen=True)
class _Chunks:
    """The stored form of an array in pieces, so that it is never in memory as a whole."""

    header: dict[str, Any]
    num_bytes: int
    chunks: Iterable[bytes]

    @classmethod
    def of_bytes(cls, chunks: Sequence[bytes]) -> "_Chunks":
        num_bytes = sum(map(len, chunks))
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_bytes,)}
        return cls(header, num_bytes, chunks)

    @classmethod
    def of_file(cls, file: IO[bytes]) -> "_Chunks":
        num_bytes = file.tell()
        header = {"descr": "|u1", "fortran_order": False, "shape": (num_bytes,)}
        return cls(header, num_bytes, _chunks_of(file))

    @classmethod
    def of_array(cls, array: NDArray[Any]) -> "_Chunks":
        header = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(array))
        return cls(header, array.nbytes, [np.ascontiguousarray(array).tobytes()])


def _chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk


def _write_members(file: IO[bytes], members: dict[str, _Chunks]) -> None:
    """Write the zip file that np.savez would write, with a constant date.

    (np.savez also hides that a disk is full, as numpy bypasses Python's files.)
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, array.header)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every system
            info.file_size = header.tell() + array.num_bytes  # determines whether zip64 is used
            with archive.open(info, "w") as member:
                member.write(header.getvalue())
                for chunk in array.chunks:
                    member.write(chunk)


def _starts(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Return the start of each of several consecutive pieces, and the end of the last."""
    return np.cumsum([0, *lengths], dtype="<i8")


def _as_float(numbers: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(numbers, dtype="<f4")


def _check_frames(clip: RawClip, *, size: int | None) -> None:
    frames, mask = clip.frames, clip.still
    height, width = (size, size) if size is not None else frames.shape[1:3]
    if frames.dtype != np.uint8 or frames.shape[1:] != (height, width, 3) or not len(frames):
        raise UserError(
            f"{clip.name}: its frames are {frames.dtype} {frames.shape}, not uint8 "
            f"(1 or more, {height}, {width}, 3): correct its source"
        )
    if not (math.isfinite(clip.fps) and clip.fps > 0):
        raise UserError(f"{clip.name}: {clip.fps} frames per second: use a number above 0")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != (height, width)):
        raise UserError(
            f"{clip.name}: its still mask is {mask.dtype} {mask.shape}, not bool "
            f"({height}, {width}): correct its source"
        )


def _check_numbers(
    clip: RawClip,
    tracks: dict[str, NDArray[np.float32]],
    confidence: NDArray[np.float32],
    plan: ShardPlan,
) -> None:
    count = len(clip.frames)
    for name, track in tracks.items():
        if track.ndim != 2 or len(track) != count:
            raise UserError(
                f"{clip.name}: its track {name} is {track.shape}, not ({count}, numbers per "
                "frame): correct its source"
            )
    if confidence.shape != (count,):
        raise UserError(
            f"{clip.name}: its confidence is {confidence.shape}, not ({count},): correct its source"
        )
    if plan.control is not None and plan.control.name not in tracks:
        raise UserError(
            f"{clip.name}: it has no track {plan.control.name}, which is the data set's control: "
            "leave the clip out"
        )


def _check_same(
    name: str, tracks: dict[str, NDArray[np.float32]], other: str, widths: dict[str, int]
) -> None:
    mine = {name: track.shape[1] for name, track in tracks.items()}
    if mine != widths:
        raise UserError(
            f"{name} has the tracks {mine} (numbers per frame), {other} has {widths}: "
            "prepare clips of different tracks in separate folders"
        )


def _info_of(clip: RawClip, plan: ShardPlan) -> ClipInfo:
    value: tuple[float, ...] | None = None
    if plan.control is not None:
        track = np.asarray(clip.tracks[plan.control.name], dtype=np.float32)
        eta = plan.control.of(track, first=0, last=len(track) - 1)
        value = tuple(map(float, eta)) if np.isfinite(eta).all() else None
    height, width = clip.frames.shape[1:3] if plan.size is None else (None, None)
    return ClipInfo(
        clip=clip.name,
        source=clip.source,
        split=plan.split,
        frames=len(clip.frames),
        fps=float(clip.fps),
        control=value,
        start=clip.start,
        height=height,
        width=width,
        label=clip.label,
        stride=clip.stride,
        origin=clip.origin,
        licence=clip.licence,
    )


def _encode_mask(mask: NDArray[np.bool_]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(mask).save(content, format="PNG")
    return content.getvalue()


@dataclass(frozen=True)
class _Member:
    """The location of an array in a shard's file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int  # of the member, npy header included
    offset: int  # of the numbers
    end: int
    crc32: int


class Shard:
    """A memory-mapped shard: only requested data are loaded.

    The file is mapped into memory at the first read. Its arrays (except the pictures)
    are checked against the zip file's checksums on opening, a clip's pictures against their
    CRC-32 the first time a process reads any of them. The object can be pickled and survives a
    fork; the other process maps the file again or shares the map.

    Args:
        path: The file.

    Attributes:
        path: The file.
        encoding: Format of pictures: "png", "jpeg", "webp" or "raw".

    Raises:
        UserError: The file is missing, truncated, compressed, or not a shard; one of its
            checksums is wrong.

    Example:
        >>> shard = Shard(Path("bair-packed/train-00003.npz"))
        >>> shard.frames(0, [0, 15]).shape
        (2, 64, 64, 3)
    """

    def __init__(self, path: Path) -> None:
        self.path = check_input_file(path, kind="a shard")
        self._map: mmap.mmap | None = None
        self._num_bytes = path.stat().st_size
        self._members = self._guarded(_read_layout)
        for name in sorted(self._members.keys() - {"frames"}):
            member = self._members[name]
            if zlib.crc32(memoryview(self._open())[member.begin : member.end]) != member.crc32:
                raise self._damaged(f"the checksum of its {name} is wrong")
        index = self.index()
        widths = {
            name.removeprefix(_TRACK): member.shape[1]
            for name, member in self._members.items()
            if name.startswith(_TRACK)
        }
        if widths != index.tracks:
            raise self._damaged(f"its tracks are {widths}, its index says {index.tracks}")
        self._tracks = sorted(widths)
        self.encoding = index.encoding
        self._shapes = [
            (clip.height or index.size or 0, clip.width or index.size or 0) for clip in index.clips
        ]
        self._is_checked = np.zeros(len(self), dtype=bool)

    def __len__(self) -> int:
        """Return the number of clips."""
        return int(self._members["crc32"].shape[0])

    def index(self) -> ShardIndex:
        """Return the shard's index. It is not kept: the indexes of many shards take much memory."""
        content = self._array("index").tobytes()
        return ShardIndex.from_json(content, source=self.path)

    def frames(
        self, clip: int, numbers: Sequence[int] | None = None
    ) -> UInt8[np.ndarray, "k h w 3"]:
        """Return frames of a clip, in RGB.

        Args:
            clip: Position of the clip in the shard.
            numbers: Numbers of the frames, from 0, in any order; all frames if None.

        Raises:
            UserError: The clip's checksum is wrong.
            IndexError: There is no such frame.
        """
        first, last = self._span(clip)
        numbers = range(last - first) if numbers is None else numbers
        offsets, content = self._array("offsets"), self._array("frames")
        if not self._is_checked[clip]:
            self._check(clip, content[offsets[first] : offsets[last]])
        shape = self._shapes[clip]
        pictures = np.empty((len(numbers), *shape, 3), dtype=np.uint8)
        for picture, number in zip(pictures, numbers, strict=True):
            if not 0 <= number < last - first:
                raise IndexError(f"frame {number} of a clip with {last - first} frames")
            begin, end = offsets[first + number : first + number + 2]
            picture[:] = self._decode(content[begin:end], shape)
        return pictures

    def tracks(self, clip: int) -> dict[str, Float32[np.ndarray, "t _"]]:
        """Return the tracks of a clip by name, a row of values for each frame."""
        span = slice(*self._span(clip))
        return {name: self._array(f"{_TRACK}{name}")[span].copy() for name in self._tracks}

    def confidence(self, clip: int) -> Float32[np.ndarray, "t"] | None:
        """Return the confidence of the control at each frame of a clip; None if it is exact."""
        confidence = self._array("confidence")[slice(*self._span(clip))]
        return None if (confidence == 1).all() else confidence.copy()

    def still(self, clip: int) -> Bool[np.ndarray, "h w"] | None:
        """Return the mask of points that do not move during a clip; None if unknown."""
        begin, end = self._array("still_offsets")[clip : clip + 2]
        content = self._array("still")[begin:end]
        if not content.size:
            return None
        mask = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != self._shapes[clip]:
            raise self._damaged("a still mask cannot be decoded")
        return np.asarray(mask > 0)

    def close(self) -> None:
        """Release the file; the next read maps it again. Returned arrays stay valid."""
        self._map = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}

    def _span(self, clip: int) -> tuple[int, int]:
        if not 0 <= clip < len(self):
            raise IndexError(f"clip {clip} of a shard with {len(self)} clips")
        first, last = self._array("first")[clip : clip + 2]
        return int(first), int(last)

    def _check(self, clip: int, content: NDArray[np.uint8]) -> None:
        if zlib.crc32(content.data) != self._array("crc32")[clip]:
            name = self.index().clips[clip].clip
            raise self._damaged(f"the checksum of its clip {name} is wrong")
        self._is_checked[clip] = True

    def _decode(self, content: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
        try:
            return decode_picture(content, self.encoding, shape=shape)
        except ValueError as error:
            raise self._damaged(f"a picture cannot be decoded: {error}") from error

    def _array(self, name: str) -> NDArray[Any]:
        member = self._members[name]
        count = math.prod(member.shape)
        flat = np.frombuffer(self._open(), member.dtype, count=count, offset=member.offset)
        return flat.reshape(member.shape)

    def _open(self) -> mmap.mmap:
        if self._map is None:
            self._map = self._guarded(_map_file)
            if len(self._map) != self._num_bytes:  # reading past its end would kill the process
                raise self._damaged("it has changed since it was opened")
        return self._map

    def _guarded(self, read: Callable[[Path], Any]) -> Any:  # noqa: ANN401 - what `read` returns
        try:
            return read(self.path)
        except Exception as error:  # damaged headers raise almost anything
            raise self._damaged(" ".join(str(error).split()) or type(error).__name__) from error

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self.path} is damaged ({reason}): delete it and run the command that made it again"
        )


def _map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_layout(path: Path) -> dict[str, _Member]:
    """Find each array of an uncompressed npz file by the zip file's headers."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {
            info.filename.removesuffix(".npy"): _read_member(file, info)
            for info in archive.infolist()
        }
    if absent := _TYPES.keys() - members.keys():
        raise ValueError(f"it has no {', '.join(sorted(absent))}")
    for name, member in members.items():
        num_axes, kind = (2, _TRACK_TYPE) if name.startswith(_TRACK) else (1, _TYPES.get(name))
        if len(member.shape) != num_axes or member.dtype.str != kind:
            raise ValueError(f"its {name} is {member.dtype} {member.shape}")
    return members


def _read_member(file: io.BufferedReader, info: zipfile.ZipInfo) -> _Member:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed, which cannot be read in place")
    # The lengths of name and extra field are the local header's own: the directory's may differ.
    file.seek(info.header_offset + _LOCAL_HEADER - 4)
    lengths = file.read(4)
    begin = info.header_offset + _LOCAL_HEADER
    begin += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    file.seek(begin)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = read_header(file)
    member = _Member(dtype, shape, begin, file.tell(), begin + info.file_size, info.CRC)
    if is_fortran or member.offset + math.prod(shape) * dtype.itemsize != member.end:
        raise ValueError(f"the length of {info.filename} is not that of its array")
    return member
