"""A folder of packed clips, read at random."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.manifest import (
    MANIFEST,
    PLAN,
    ClipEntry,
    Manifest,
    Plan,
    ShardEntry,
    find_missing,
    list_names,
)
from cinnema.data.records import Split
from cinnema.data.shards import Shard

# Every map holds a file open, and many systems allow a process 1024 of them.
_MAX_MAPS = 128


@dataclass(frozen=True, kw_only=True)
class PackedClip:
    """A clip, or some of its frames.

    Attributes:
        entry: What the manifest says of it.
        frames: The pictures that were asked for, RGB.
        tracks: Numbers of every frame of the clip, by name, whichever pictures were asked for.
        confidence: How far the control's track can be trusted at every frame, in [0, 1]; None
            where it is exact.
        still: Where nothing moves throughout the clip, if that is known.
    """

    entry: ClipEntry
    frames: UInt8[np.ndarray, "k s s 3"]
    tracks: Mapping[str, Float32[np.ndarray, "t _"]]
    confidence: Float32[np.ndarray, "t"] | None
    still: Bool[np.ndarray, "s s"] | None


class PackedDataset:
    """A packed data set, as `cinnema data prepare` and `cinnema data simulate` write it.

    Shards are mapped into memory, so that a read costs the pictures it decodes and nothing is
    kept. A clip's checksum is checked the first time that a process reads any of it. The object
    can be pickled (the other process maps the files anew) and used after a fork.

    Args:
        folder: Of the data set.

    Attributes:
        folder: As given.
        manifest: What it holds; `manifest.clips[i]` is clip i.

    Raises:
        UserError: The folder is missing, holds no packed data set or an unfinished one, or a
            shard is missing or of another size than the manifest says.

    Example:
        >>> clips = PackedDataset(Path("bair-packed"))
        >>> clip = clips.read(int(clips.indices("test")[0]), range(16))
        >>> clip.frames.shape, clip.tracks["end_effector"].shape
        ((16, 64, 64, 3), (30, 3))
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        for shard in self.manifest.shards:
            _check_size(self.folder, shard)
        self._indices = _indices_by_split(self.manifest)
        self._shards: dict[int, Shard] = {}
        self._mapped: dict[int, None] = {}  # the shards that are mapped, the latest last

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.manifest.clips)

    def indices(self, split: Split) -> Int64[np.ndarray, "n"]:
        """Return the positions of a split's clips in `manifest.clips`; there may be none."""
        return self._indices.get(split, np.empty(0, dtype=np.int64)).copy()

    def read(self, index: int, frames: Sequence[int] | None = None) -> PackedClip:
        """Read a clip.

        Args:
            index: Its position in `manifest.clips`, from 0.
            frames: Which of its pictures, from 0 and in any order; all when None.

        Raises:
            UserError: The shard is damaged; the message names it and the clip.
            IndexError: There is no such clip or frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {self.folder}, which has {len(self)} clips")
        entry = self.manifest.clips[index]
        shard = self._shard(entry.shard)
        return PackedClip(
            entry=entry,
            frames=shard.frames(entry.index, frames),
            tracks=shard.tracks(entry.index),
            confidence=shard.confidence(entry.index),
            still=shard.still(entry.index),
        )

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every shard in full and compare its SHA-256 with the manifest's.

        Args:
            progress: Told after each shard how many are done, and of how many.

        Raises:
            UserError: Some differ or are missing; the message names them.
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
        """Return a shard, and let go of the one that was read least recently if they are many."""
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
        raise UserError(f"{folder} is no folder: prepare one with `cinnema data prepare`")
    if not (folder / PLAN).is_file():
        raise UserError(
            f"{folder} holds no packed clips: name a folder that `cinnema data prepare` has made"
        )
    plan = Plan.read(folder / PLAN)
    missing = find_missing(folder, plan)
    lacks = "only its manifest is missing"
    if missing:
        count = f"{len(missing)} of its {len(plan.shards)} shards"
        lacks = f"{count} are missing ({list_names(missing)})"
    raise UserError(
        f"{folder} is unfinished, {lacks}: run the command that began it again, on every machine "
        "that has a share in it, to go on"
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
            f"{path} is damaged, it has {num_bytes} bytes and the manifest says {shard.bytes}: "
            f"{again}"
        )


def _indices_by_split(manifest: Manifest) -> dict[str, NDArray[np.int64]]:
    splits = np.array([clip.split for clip in manifest.clips], dtype=str)
    return {str(split): np.flatnonzero(splits == split) for split in np.unique(splits)}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # it is gone, or the disk fails: damaged either way
        return ""
