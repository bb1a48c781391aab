"""Any folder of videos: files, animated pictures, arrays, folders of frames."""

import hashlib
import json
import os
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.lib import format as npy_format

from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.manifest import list_names
from cinnema.data.records import BadRecord, Item, RawClip, Split
from cinnema.data.sources.frames import (
    Cutting,
    Fit,
    Stream,
    bad_record,
    below,
    check_at_least_one,
    check_root,
    is_picture,
    picture_frames,
)
from cinnema.data.sources.splits import read_splits, split_by_label
from cinnema.media.formats import DEFAULT_FPS, check_size, generated_in, pictures_in
from cinnema.media.pictures import is_animated

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv",
    ".ogv", ".gif", ".apng",
)  # fmt: skip
"""Suffixes of videos, in lower case; webp and png count as videos if they are animated."""

Photographs: TypeAlias = Literal["error", "frames", "ignore"]
"""Handling of numbered pictures beside videos: an error, frames of one video, or left out."""

_ARRAYS = (".npy", ".npz")
_NPY = ".npy"
_PERHAPS_ANIMATED = {".webp": True, ".png": False}  # whether animated, if none opens
_MANIFEST = "manifest.json"
_MAX_DUPLICATE_SHARE = 0.5
_CHUNK = 1 << 20
_Shape: TypeAlias = tuple[int, ...]
_FOLDERS: dict[str, Split] = {
    "train": "train", "val": "validation", "validation": "validation", "eval": "validation",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """Any folder that contains videos, at any depth.

    A source video is one of these, and is named by its path below `root`:

    - a file with one of `VIDEO_SUFFIXES`, or an animated WebP or PNG;
    - an npy file, or each array of an npz file, of uint8 (frames, height, width, 3); other arrays
      are ignored;
    - a folder with at least two pictures that have a number in their names (pictures named like a
      video beside them are its thumbnails and do not count): its frames, in natural order.

    Hidden files and all others are ignored. A clip's label is the name of the folder that its
    video is in, if that is not `root` itself.

    If `root` has a `manifest.json` with a list of entries, then these are the videos. An entry has
    "path" and, optionally, "texture" (the label), "suggested_stride" (every which frame plays at
    natural speed), "duplicate_share" (videos with more than half duplicate frames are left out),
    "source" and "licence".

    The split is decided by `splits`, if given; unlisted videos are left out. Otherwise, if there
    are folders named train, val, validation, eval (both validation) or test at the top, they
    decide, and videos elsewhere train. Otherwise every third video of each label is held out
    (`cinnema.data.sources.splits.split_by_label`).

    Long videos are cut into consecutive clips, "<video>/0", "<video>/1", ... With a `size`, a
    remainder of fewer than `min_frames` is dropped. A video of fewer than `min_frames` frames is a
    `BadRecord`.

    Args:
        root: The folder.
        size: Width and height of the frames in pixels. None keeps every frame in its own shape, up
            to 360 pixels high, and stores strides without applying them.
        fit: "stretch" changes the aspect ratio, "crop" keeps the middle of each frame.
        stride: Take every `stride`-th frame, times the stride in the manifest; the frame rate is
            divided by it.
        min_frames: Smallest number of frames of a clip, T + 1.
        max_frames: Largest number of frames of a clip.
        splits: A JSON file that lists videos, see `cinnema.data.sources.splits.read_splits`.
        photographs: What to do with numbered pictures that are in one folder with videos: ignore
            them with a warning, take them as the frames of one more video, or report an error.

    Example:
        >>> source = Folder(Path("holidays"), size=128, fit="crop")
        >>> clip = next(source.read(source.items()[0]))
    """

    root: Path
    _: KW_ONLY
    size: int | None = 128
    fit: Fit = "stretch"
    stride: int = 1
    min_frames: int = 17
    max_frames: int = 300
    splits: Path | None = None
    photographs: Photographs = "ignore"

    def __post_init__(self) -> None:
        """Check the options."""
        size = 1 if self.size is None else self.size
        check_at_least_one(size=size, stride=self.stride, min_frames=self.min_frames)
        if self.max_frames < self.min_frames:
            raise UserError(
                f"max_frames must be at least min_frames ({self.min_frames}), got {self.max_frames}"
            )

    @property
    def name(self) -> str:
        """Name of the packed data set: that of the folder."""
        return self.root.resolve().name or "folder"

    @property
    def control(self) -> None:
        """None: the motion is unknown."""
        return

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, with the manifest entries' SHA-256."""
        check_root(self.root)
        listed = _read_manifest(self.root)
        text = "" if listed is None else json.dumps([vars(entry) for entry in listed.values()])
        return {
            "source": "folder", "root": self.name, "size": self.size, "fit": self.fit,
            "stride": self.stride, "min_frames": self.min_frames, "max_frames": self.max_frames,
            "photographs": self.photographs,
            "manifest": hashlib.sha256(text.encode()).hexdigest() if text else None,
            "splits": None if self.splits is None else self._splits_digest(),
        }  # fmt: skip

    def _splits_digest(self) -> str:
        assert self.splits is not None
        check_input_file(self.splits, kind="a list of splits")
        return hashlib.sha256(self.splits.read_bytes()).hexdigest()

    def items(self) -> list[Item]:
        """List the videos; at most their headers are read.

        Raises:
            UserError: The folder is missing or contains no video; its manifest is damaged; there
                are photographs beside videos.
        """
        check_root(self.root)
        listed = _read_manifest(self.root)
        if listed is None:
            names = sorted(_find_videos(self.root, self.photographs))
            names = _without_generated(self.root, names)
            if self.photographs != "frames":
                _tell_of_frames(self.root, names)
        else:
            names = sorted(name for name, entry in listed.items() if not entry.is_mostly_duplicates)
        if not names:
            raise UserError(
                f"{self.root} contains no video: it needs files (mp4, mov, avi, webm, gif, ...), "
                "uint8 arrays (npy, npz) of (frames, height, width, 3), or folders of frames"
            )
        splits = self._split(names)
        return [Item(name=name, split=splits[name]) for name in names if name in splits]

    def left_out(self) -> list[str]:
        """List the videos left out because the manifest says that they are mostly duplicates."""
        listed = _read_manifest(self.root) or {}
        return sorted(name for name, entry in listed.items() if entry.is_mostly_duplicates)

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one video."""
        entry = self._entry(item.name)
        applied = 1 if self.size is None else entry.stride or 1
        noted = (entry.stride or self._natural_stride(item.name)) if self.size is None else None
        for clip in self._clips(item.name, self.stride * applied):
            if isinstance(clip, RawClip):
                yield replace(
                    clip,
                    label=entry.label,
                    stride=noted,
                    origin=entry.origin,
                    licence=entry.licence,
                )
            else:
                yield clip

    def _natural_stride(self, name: str) -> int | None:
        """Return 1 for sources without a frame rate, where every frame is natural speed."""
        path = self.root / name
        return 1 if path.is_dir() or path.suffix.lower() in _ARRAYS else None

    def _entry(self, name: str) -> "_Entry":
        listed = _read_manifest(self.root)
        entry = _Entry() if listed is None else listed.get(name, _Entry())
        return replace(entry, label=entry.label or _folder_of(name))

    def _clips(self, name: str, stride: int) -> Iterator[RawClip | BadRecord]:
        path, fps = self.root / name, DEFAULT_FPS / stride
        cutting = Cutting(
            size=self.size, fit=self.fit, min_frames=self.min_frames, max_frames=self.max_frames
        )
        if path.suffix.lower() == ".npz":
            for array, frames in _npz_clips(path, root=self.root, stride=stride):
                yield from cutting.cut(frames, name=f"{name}/{array}", source=name, fps=fps)
        elif path.is_dir():
            pictures = _pictures(path, self.root)
            if not isinstance(pictures, BadRecord):
                pictures = pictures[::stride]
            frames = picture_frames(pictures, root=self.root)
            yield from cutting.cut(frames, name=name, source=name, fps=fps)
        else:
            yield from cutting.cut_video(path, root=self.root, stride=stride)

    def _split(self, names: Sequence[str]) -> Mapping[str, Split]:
        if self.splits is not None:
            return read_splits(self.splits, names)
        tops = {name: name.split("/")[0].lower() if "/" in name else "" for name in names}
        if not _FOLDERS.keys().isdisjoint(tops.values()):
            return {name: _FOLDERS.get(top, "train") for name, top in tops.items()}
        return split_by_label({name: self._entry(name).label for name in names})


def _folder_of(name: str) -> str | None:
    """Return the name of the folder that a video is in; None at the top."""
    parent = PurePosixPath(name).parent
    return parent.name if parent.name and str(parent).lower() not in _FOLDERS else None


# --- Finding videos -------------------------------------------------------------------------------


def _find_videos(root: Path, photographs: Photographs) -> list[str]:
    """Walk through the folder, following links, but not twice through the same place."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        here = os.path.realpath(folder)
        if here in seen:
            subfolders.clear()
            continue
        seen.add(here)
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        visible = sorted(name for name in files if name[0] != ".")
        for path in _videos_in(Path(folder), visible, photographs):
            try:
                found.append(below(path, root))
            except UserError as error:  # its name cannot be stored
                warnings.warn(f"{error}; it is left out", stacklevel=2)
    return found


def _without_generated(root: Path, names: list[str]) -> list[str]:
    """Leave out videos that commands have written, unless there are no others."""
    folders = {(root / name).parent for name in names if name != "."}
    made = {
        folder / name
        for folder in folders
        for name in generated_in(path.name for path in folder.iterdir())
    }
    generated = [name for name in names if root / name in made]
    if not generated or len(generated) == len(names):
        return names
    warnings.warn(
        f"{root}: {list_names(generated)} lie beside other videos, and a command of cinnema wrote "
        "them: they are left out; to read them, move them to a folder of their own",
        stacklevel=3,
    )
    return sorted(set(names) - set(generated))


def _tell_of_frames(root: Path, names: Sequence[str]) -> None:
    """Warn of folders that are taken for videos, as they may hold photographs."""
    shown = [name if name != "." else root.name for name in names if (root / name).is_dir()]
    if shown:
        warnings.warn(
            f"{root}: the numbered pictures in {list_names(shown)} are read as the frames of a "
            "video, in the order of their numbers: if they are photographs, move them elsewhere",
            stacklevel=3,
        )


def _refuse(error: OSError) -> None:
    raise UserError(
        f"{error.filename} cannot be listed ({error.strerror}): check its rights"
    ) from None


def _videos_in(folder: Path, names: list[str], photographs: Photographs) -> list[Path]:
    """Return the videos among a folder's files, and the folder itself if it is one."""
    videos = _files_in(folder, names)
    frames = _numbered(names, videos)
    if len(frames) < 2 or not videos:
        return [folder] if len(frames) > 1 else videos
    found = (
        f"{folder} contains {len(frames)} photographs ({list_names(frames[:3])}, ...) beside "
        f"videos ({list_names([path.name for path in videos[:3]])})"
    )
    if photographs == "error":
        raise UserError(f"{found}: move them to another folder, or choose `ignore` or `frames`")
    if photographs == "ignore":
        warnings.warn(
            f"{found}, which are left out: if they are the frames of a video, move them to another "
            "folder, or pack it with `cinnema data prepare folder` and `--photographs frames`",
            stacklevel=2,
        )
        return videos
    return [*videos, folder]


def _files_in(folder: Path, names: list[str]) -> list[Path]:
    paths = defaultdict[str, list[Path]](list)
    for name in names:
        path = folder / name
        paths[path.suffix.lower()].append(path)
    videos = [path for suffix in VIDEO_SUFFIXES for path in paths[suffix]]
    videos += [path for suffix in _ARRAYS for path in paths[suffix] if _holds_clips(path)]
    for suffix, otherwise in _PERHAPS_ANIMATED.items():
        videos += _animated(paths[suffix], otherwise=otherwise)
    return videos


def _animated(paths: Sequence[Path], *, otherwise: bool) -> list[Path]:
    """Return the animated ones of pictures; if none opens, all of them if `otherwise`."""
    animated, num_opened = [], 0
    for path in paths:
        with suppress(Exception):  # damaged; reported when it is read
            if is_animated(path):
                animated.append(path)
            num_opened += 1
    return animated if num_opened or not otherwise else list(paths)


def _numbered(names: Iterable[str], videos: Iterable[Path]) -> list[str]:
    """Return the files of a folder that are frames, given its videos."""
    filmed = {path.stem for path in videos}
    return [
        name
        for name in names
        if is_picture(name)
        and any(map(str.isdigit, Path(name).stem))
        and Path(name).stem not in filmed
    ]


def _pictures(folder: Path, root: Path) -> list[Path] | BadRecord:
    """Return the frames of a folder in natural order."""
    try:
        pictures = pictures_in(folder)
        visible = [path.name for path in folder.iterdir() if path.name[0] != "."]
    except (UserError, OSError) as error:
        return bad_record(error, folder, root)
    frames = set(_numbered(visible, _files_in(folder, sorted(visible))))
    return [path for path in pictures if path.name in frames]


# --- The optional manifest ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """An entry of a manifest."""

    label: str | None = None
    stride: int | None = None
    duplicate_share: float = 0.0
    origin: str | None = None
    licence: str | None = None

    @property
    def is_mostly_duplicates(self) -> bool:
        return self.duplicate_share > _MAX_DUPLICATE_SHARE


def _read_manifest(root: Path) -> Mapping[str, _Entry] | None:
    """Return the entries of `root`'s manifest by video; None if there is no manifest."""
    path = root / _MANIFEST
    try:
        return _parse_manifest(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights") from error


@lru_cache(maxsize=4)  # reading each video needs it
def _parse_manifest(path: Path, mtime_ns: int) -> Mapping[str, _Entry] | None:  # noqa: ARG001
    try:
        entries = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); repair or remove it") from error
    if isinstance(entries, dict) and entries.get("format") == "cinnema-clips":
        raise UserError(f"{path.parent} is a packed data set: name the folder it was made from")
    if not isinstance(entries, list):  # a manifest of another program
        return None
    listed: dict[str, _Entry] = {}
    for index, values in enumerate(entries):
        name, entry = _parse_entry(path, index, values)
        if name in listed:
            raise UserError(f"{path}: {name} is listed twice; remove one of the entries")
        listed[name] = entry
    return listed


def _parse_entry(path: Path, index: int, values: object) -> tuple[str, _Entry]:
    if not isinstance(values, dict) or not isinstance(values.get("path"), str):
        raise UserError(f"{path}: entry {index} has no path; add it")
    name = PurePosixPath(values["path"])
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise UserError(f"{path}: entry {index} lies outside of the folder; give a path below it")
    stride = values.get("suggested_stride")
    if stride is not None and (type(stride) is not int or stride < 1):
        raise UserError(
            f"{path}: entry {index} has a stride of {stride!r}; give a number from 1 on"
        )
    share = values.get("duplicate_share", 0.0)
    return name.as_posix(), _Entry(
        label=_text(values.get("texture")),
        stride=stride,
        duplicate_share=share if isinstance(share, int | float) else 0.0,
        origin=_text(values.get("source")),
        licence=_text(values.get("licence")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


# --- Arrays ---------------------------------------------------------------------------------------


@runtime_checkable
class _Readable(Protocol):
    """A file, or a member of an archive."""

    def read(self, size: int = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        ...


def _holds_clips(path: Path) -> bool:
    """Return whether an npy or npz file contains a clip, or is damaged and may contain one.

    A clip is an array of uint8, (frames, height, width, 3). Only headers are read.
    """
    try:
        if path.suffix.lower() != _NPY:
            return bool(_clips_in(path))
        with path.open("rb") as file:
            return _clip_shape(file) is not None
    except Exception:
        return True


def _clips_in(path: Path) -> dict[str, _Shape]:
    """List the arrays in an npz file that are clips, with their shapes.

    Raises:
        Exception: The file is damaged; the kind depends on where.
    """
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if name.endswith(_NPY)]
        shapes = {name.removesuffix(_NPY): _member_shape(archive, name) for name in members}
        return {name: shape for name, shape in shapes.items() if shape is not None}


def _member_shape(archive: zipfile.ZipFile, member: str) -> _Shape | None:
    with archive.open(member) as file:
        return _clip_shape(file)


def _npz_clips(path: Path, *, root: Path, stride: int) -> Iterator[tuple[str, Stream]]:
    """Yield name and frames of each clip in an npz file.

    Args:
        path: The file.
        root: Folder of the data set, for names.
        stride: Take every `stride`-th frame.
    """
    try:
        clips = _clips_in(path)
    except Exception as error:
        yield "", iter([bad_record(error, path, root)])
        return
    for name, shape in clips.items():
        yield name, _npz_frames(path, name, shape, root=root, stride=stride)


def _npz_frames(path: Path, name: str, shape: _Shape, *, root: Path, stride: int) -> Stream:
    try:
        check_size(shape[2], shape[1], path)
        with zipfile.ZipFile(path) as archive:
            # Read once to verify the checksum, which is known only at the end; then for the frames.
            with archive.open(name + _NPY) as file:
                while file.read(_CHUNK):
                    pass
            with archive.open(name + _NPY) as file:
                _clip_shape(file)  # leaves the file position at the first frame
                yield from _array_frames(file, shape, stride)
    except Exception as error:
        bad = bad_record(error, path, root)
        yield BadRecord(name=f"{bad.name}/{name}", reason=bad.reason)


def _array_frames(file: _Readable, shape: _Shape, stride: int) -> Stream:
    num_frames, *frame = shape
    length = int(np.prod(frame))
    for index in range(num_frames):
        pixels = file.read(length)
        if len(pixels) < length:
            raise ValueError(f"frame {index} of {num_frames} is truncated")
        if index % stride == 0:
            yield np.frombuffer(pixels, np.uint8).reshape(frame)


def _clip_shape(file: _Readable) -> _Shape | None:
    """Read an npy file's header; None if the array is not a clip."""
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy_format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy_format.read_array_header_2_0(file)
    else:  # later versions are for structured arrays, which no clip is
        return None
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
        return None
    if fortran:
        raise UserError("an array is stored column by column: save np.ascontiguousarray of it")
    return tuple(shape)
