"""Data sets: folders of packed clips with random access, and folders of videos packed on first use.

A folder of videos is packed into a cache: `.cinnema-cache` beside the folder or, if that cannot be
written, a folder of the user's (`CINNEMA_CACHE`, or `~/.cache/cinnema`).
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.core.files import cache_folder, locked
from cinnema.data.manifest import (
    MANIFEST,
    SHARD_NAME,
    ClipEntry,
    Manifest,
    ShardEntry,
    list_names,
)
from cinnema.data.prepare import prepare
from cinnema.data.records import Split
from cinnema.data.shards import Shard
from cinnema.data.sources.folder import Folder, Photographs
from cinnema.data.sources.frames import square
from cinnema.data.sources.splits import divide_in_time

OpenProgress: TypeAlias = Callable[[str, int, int], None]
"""Callback with a description, the number of finished clips, and the expected total."""

_CACHE = ".cinnema-cache"
_MIN_FRAMES, _MAX_FRAMES = 2, 300  # frames of a clip that is cut from a video
_LAYOUT = 1  # version of the cache's layout; changing it packs everything again

# Largest number of memory maps: each holds a file open, and many systems allow 1024 of them.
MAX_OPEN_SHARDS = 128


@dataclass(frozen=True, kw_only=True)
class PackedClip:
    """A clip, with all or some of its frames.

    Attributes:
        entry: The clip's entry in the manifest.
        frames: The requested frames, RGB.
        tracks: Values of every frame of the clip by name, also of frames not requested.
        confidence: Confidence of the control's track at every frame, in [0, 1]; None if exact.
        still: Mask, True where nothing moves throughout the clip; None if unknown.
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
        size: Width and height in pixels to which frames are resized when they are read, if the
            clips keep their own shape; None does not resize.

    Attributes:
        folder: Folder of the data set.
        manifest: Its manifest; `manifest.clips[i]` describes clip i.
        size: Width and height of the frames in pixels. If clips keep their own shape and `size`
            is not given, the shortest side of any of them.

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
        self._resize_to = size if self.manifest.size is None else None
        self.size = self.manifest.size or size or _shortest_side(self.manifest)
        self._indices = _indices_by_split(self.manifest)
        self._shards: dict[int, Shard] = {}
        self._mapped: dict[int, None] = {}  # mapped shards, the most recent last

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

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which states that of every shard; 64 hexadecimal digits."""
        return hashlib.sha256(self.manifest.to_json()).hexdigest()

    @property
    def cache(self) -> Path:
        """Folder for what is computed from the data set, created on first use.

        It is `cache` in the data set's folder or, if that cannot be written, one in the user's
        cache with a hash of the manifest.
        """
        beside = self.folder / "cache"
        if _is_writable(beside):
            return beside
        return _user_cache() / f"{self.folder.name}-{self.digest[:12]}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": {}, "_mapped": {}}

    def _shard(self, number: int) -> Shard:
        """Return a shard; if many are mapped, release the one read least recently."""
        if number not in self._shards:
            self._shards[number] = Shard(self.folder / self.manifest.shards[number].file)
        self._mapped.pop(number, None)
        self._mapped[number] = None
        if len(self._mapped) > MAX_OPEN_SHARDS:
            oldest = next(iter(self._mapped))
            del self._mapped[oldest]
            self._shards[oldest].close()
        return self._shards[number]


def open_dataset(
    path: str | Path,
    *,
    size: int | None = None,
    photographs: Photographs = "ignore",
    cache: Path | None = None,
    progress: OpenProgress | None = None,
) -> PackedDataset:
    """Open a packed data set, or a folder of videos, which is packed on first use.

    A folder of videos may contain files, animated pictures, arrays and folders of frames, at any
    depth (`cinnema.data.sources.folder.Folder`). Its clips keep their shape, up to 360 pixels high,
    and are encoded without loss. Some source videos are held out for validation and testing, or
    the ends of videos if there are fewer than three; `manifest.notes` states this. If a file
    changes, the folder is packed again.

    Args:
        path: A folder written by `cinnema data`, or a folder of videos.
        size: Width and height in pixels to which frames are resized when they are read, if the
            clips keep their own shape; None does not resize.
        photographs: What to do with numbered pictures that are in one folder with videos: report
            an error, take them as the frames of one more video, or ignore them.
        cache: Folder for packed videos; defaults to one beside `path`.
        progress: Called regularly while a folder of videos is packed.

    Raises:
        UserError: The folder is missing, damaged, or contains no video that can be read.

    Example:
        >>> clips = open_dataset("holidays", size=128)
        >>> clips.read(0, range(17)).frames.shape
        (17, 128, 128, 3)
    """
    path = Path(path)
    if is_packed(path):
        return PackedDataset(path, size=size)
    source = Folder(
        path,
        size=None,
        min_frames=_MIN_FRAMES,
        max_frames=_MAX_FRAMES,
        photographs=photographs,
    )
    folder = _find_cache(path, _digest(source), cache)
    if not (folder / MANIFEST).is_file():
        with locked(folder):  # several processes may open it at once
            if not (folder / MANIFEST).is_file():
                _pack_videos(source, folder, progress)
    return PackedDataset(folder, size=size)


def is_packed(folder: Path) -> bool:
    """Return whether a folder is a packed data set, finished or not."""
    if any(SHARD_NAME.fullmatch(path.name) for path in folder.glob("*.npz")):
        return True
    try:
        return f'"{Manifest.FORMAT}"' in (folder / MANIFEST).read_text(encoding="utf-8")[:100]
    except (OSError, ValueError):
        return False


def _pack_videos(source: Folder, folder: Path, progress: OpenProgress | None) -> None:
    what = f"packing {source.root} into {folder}, for this and later uses"
    left_out = source.left_out()

    def finish(manifest: Manifest) -> Manifest:
        if not manifest.clips:
            first = manifest.skipped[0]
            raise UserError(
                f"{source.root}: none of its {len(manifest.skipped)} videos can be used (the "
                f"first: {first.record}: {first.reason}); use longer or other ones"
            )
        skipped = tuple(f"skipped {s.record}: {s.reason}" for s in manifest.skipped)
        skipped += tuple(
            f"skipped {name}: the manifest says that most of its frames are duplicates"
            for name in left_out
        )
        return divide_in_time(replace(manifest, notes=skipped))

    prepare(
        source,
        folder,
        encoding="webp",
        skip_bad=True,
        clips_per_shard=1,
        finish=finish,
        progress=None if progress is None else lambda *counts: progress(what, *counts),
    )
    for other in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        if other != folder and re.fullmatch("[0-9a-f]{12}", other.name.rpartition("-")[2]):
            shutil.rmtree(other, ignore_errors=True)  # an earlier version of the same folder
            other.with_name(f".{other.name}.lock").unlink(missing_ok=True)


def _digest(source: Folder) -> str:
    """Return a hash of the files, by name, size and time: reading them all would take long."""
    paths = [source.root / item.name for item in source.items()]
    files = [f for path in paths for f in (sorted(path.iterdir()) if path.is_dir() else [path])]
    stats = [(str(file.relative_to(source.root)), file.stat()) for file in files]
    about = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    text = json.dumps([about, source.settings(), _LAYOUT])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _find_cache(path: Path, digest: str, cache: Path | None) -> Path:
    """Return the folder of a packed folder of videos: one that exists, or where it can be made."""
    path = path.resolve()
    place = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    options = [(cache or _user_cache()) / f"{path.name}-{place}-{digest}"]
    if cache is None and "CINNEMA_CACHE" not in os.environ:
        options.insert(0, path.parent / _CACHE / f"{path.name}-{digest}")
    for folder in options:
        if (folder / MANIFEST).is_file():
            return folder
    return next((folder for folder in options if _is_writable(folder.parent)), options[-1])


def _user_cache() -> Path:
    if "CINNEMA_CACHE" in os.environ:
        return Path(os.environ["CINNEMA_CACHE"])
    return cache_folder() / "cinnema"


def _is_writable(folder: Path) -> bool:
    """Return whether files can be written to a folder, which is created if it is missing.

    A folder without write permissions counts as read-only, even for root.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.stat().st_mode & 0o222:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


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
    small = [square(frame, size) for frame in frames]
    return np.array(small, dtype=np.uint8).reshape(-1, size, size, 3)


def _resized_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    shrunk = cv2.resize(mask.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(shrunk > 0)


def _indices_by_split(manifest: Manifest) -> dict[str, NDArray[np.int64]]:
    splits = np.array([clip.split for clip in manifest.clips], dtype=str)
    return {str(split): np.flatnonzero(splits == split) for split in np.unique(splits)}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # missing, or a disk error: damaged in both cases
        return ""
