"""A folder of packed clips with random access."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.manifest import (
    MANIFEST,
    SHARD_NAME,
    ClipEntry,
    Manifest,
    ShardEntry,
    list_names,
)
from cinnema.data.records import Split
from cinnema.data.shards import Shard
from cinnema.data.sources.frames import square

# Every map holds a file open, and many systems allow a process 1024 of them.
_MAX_MAPS = 128


@dataclass(frozen=True, kw_only=True)
class PackedClip:
    """A clip, with all or some of its frames.

    Attributes:
        entry: The clip's entry in the manifest.
        frames: The requested frames, RGB.
        tracks: Numbers of every frame of the clip, by name, whichever frames were requested.
        confidence: Confidence of the control's track at every frame, in [0, 1]; None if exact.
        still: Where nothing moves throughout the clip; None if unknown.
    """

    entry: ClipEntry
    frames: UInt8[np.ndarray, "k h w 3"]
    tracks: Mapping[str, Float32[np.ndarray, "t _"]]
    confidence: Float32[np.ndarray, "t"] | None
    still: Bool[np.ndarray, "h w"] | None


class PackedDataset:
    """A packed data set, as `cinnema data prepare` and `cinnema data simulate` write it.

    Shards are mapped into memory: reading decodes the requested frames and keeps nothing. A
    clip's checksum is checked the first time a process reads any of it. The object can be pickled
    (the other process maps the files again) and used after a fork.

    Args:
        folder: Folder of the data set.
        size: Width and height in pixels to which frames are resized when they are read; None
            leaves them as they are stored.

    Attributes:
        folder: The folder.
        manifest: What it holds; `manifest.clips[i]` is clip i.
        size: Width and height of the frames in pixels. Where clips keep their own shape, the
            shortest side of any of them.

    Raises:
        UserError: The folder is missing, contains no packed data set or an unfinished one, or a
            shard is missing or has another size than the manifest states.

    Example:
        >>> clips = PackedDataset(Path("bair-packed"))
        >>> clip = clips.read(int(clips.indices("test")[0]), range(16))
        >>> clip.frames.shape, clip.tracks["end_effector"].shape
        ((16, 64, 64, 3), (30, 3))
    """

    def __init__(self, folder: Path, *, size: int | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        for shard in self.manifest.shards:
            _check_size(self.folder, shard)
        self._resize_to = size
        self.size = size or self.manifest.size or _shortest_side(self.manifest)
        self._indices = _indices_by_split(self.manifest)
        self._shards: dict[int, Shard] = {}
        self._mapped: dict[int, None] = {}  # the shards that are mapped, the latest last

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.manifest.clips)

    def indices(self, split: Split) -> Int64[np.ndarray, "n"]:
        """Return the positions of a split's clips in `manifest.clips`; may be empty."""
        return self._indices.get(split, np.empty(0, dtype=np.int64)).copy()

    def read(self, index: int, frames: Sequence[int] | None = None) -> PackedClip:
        """Read a clip.

        Args:
            index: Position of the clip in `manifest.clips`, from 0.
            frames: Numbers of its frames, from 0, in any order; all frames if None.

        Raises:
            UserError: The shard is damaged; the message names it and the clip.
            IndexError: There is no such clip or frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {self.folder}, which has {len(self)} clips")
        entry = self.manifest.clips[index]
        shard = self._shard(entry.shard)
        own = slice(entry.first, entry.first + entry.frames)
        numbers = range(entry.frames) if frames is None else frames
        if not all(0 <= number < entry.frames for number in numbers):
            raise IndexError(f"frames {list(numbers)} of {entry.clip}, which has {entry.frames}")
        confidence = shard.confidence(entry.index)
        pictures = shard.frames(entry.index, [entry.first + number for number in numbers])
        still = shard.still(entry.index)
        if self._resize_to is not None:
            pictures = _resized(pictures, self._resize_to)
            still = None if still is None else _resized_mask(still, self._resize_to)
        return PackedClip(
            entry=entry,
            frames=pictures,
            tracks={name: track[own] for name, track in shard.tracks(entry.index).items()},
            confidence=None if confidence is None else confidence[own],
            still=still,
        )

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every shard in full and compare its SHA-256 with the manifest's.

        Args:
            progress: Called after each shard with the number of shards done and of all shards.

        Raises:
            UserError: Some shards differ or are missing; the message names them.
        """
        damaged = []
        for done, shard in enumerate(self.manifest.shards, start=1):
            if _sha256(self.folder / shard.file) != shard.sha256:
                damaged.append(shard.file)
            if progress is not None:
                progress(done, len(self.manifest.shards))
        if damaged:
            raise UserError(
                f"{self.folder}: {len(damaged)} of {len(self.manifest.shards)} shards are damaged "
                f"({list_names(damaged)}): delete them and run the command that made them again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}, "_mapped": {}}

    def _shard(self, number: int) -> Shard:
        """Return a shard; if many are mapped, release the one read least recently."""
        if number not in self._shards:
            self._shards[number] = Shard(self.folder / self.manifest.shards[number].file)
        self._mapped.pop(number, None)
        self._mapped[number] = None
        if len(self._mapped) > _MAX_MAPS:
            oldest = next(iter(self._mapped))
            del self._mapped[oldest]
            self._shards[oldest].close()
        return self._shards[number]


def _read_manifest(folder: Path) -> Manifest:
    if (folder / MANIFEST).is_file():
        return Manifest.read(folder / MANIFEST)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: create one with `cinnema data prepare`")
    shards = sum(SHARD_NAME.fullmatch(path.name) is not None for path in folder.glob("*.npz"))
    if shards:
        raise UserError(
            f"{folder} is unfinished, it has {shards} shards but no manifest: run the command "
            "that began it again, to continue"
        )
    raise UserError(
        f"{folder} contains no packed clips: name a folder made by `cinnema data prepare`"
    )


def _check_size(folder: Path, shard: ShardEntry) -> None:
    path = folder / shard.file
    again = "run the command that made it again"
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be found ({error.strerror}): {again}") from error
    if num_bytes != shard.bytes:
        raise UserError(
            f"{path} is damaged, it has {num_bytes} bytes and the manifest states {shard.bytes}: "
            f"{again}"
        )


def _shortest_side(manifest: Manifest) -> int:
    return min((min(clip.height or 1, clip.width or 1) for clip in manifest.clips), default=1)


def _resized(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if frames.shape[1:3] == (size, size):
        return frames
    return np.stack([square(frame, size) for frame in frames]).reshape(-1, size, size, 3)


def _resized_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    if mask.shape == (size, size):
        return mask
    shrunk = cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(shrunk > 0)


def _indices_by_split(manifest: Manifest) -> dict[str, NDArray[np.int64]]:
    splits = np.array([clip.split for clip in manifest.clips], dtype=str)
    return {str(split): np.flatnonzero(splits == split) for split in np.unique(splits)}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # missing, or the disk fails: damaged either way
        return ""
