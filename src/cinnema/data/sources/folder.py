"""Any folder of videos: files, animated pictures, arrays, folders of frames."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.records import BadRecord, Item, RawClip, Split
from cinnema.data.sources.arrays import holds_clips, npz_clips
from cinnema.data.sources.frames import (
    Fit,
    Stream,
    bad_record,
    below,
    check_at_least_one,
    check_root,
    cut,
    cut_video,
    is_picture,
    picture_frames,
)
from cinnema.data.sources.splits import check_shares, read_splits, split_by_name
from cinnema.media.formats import DEFAULT_FPS, pictures_in
from cinnema.media.pictures import open_picture

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv",
    ".ogv", ".gif", ".apng",
)  # fmt: skip
"""By these a file is known as a video, in lower case; webp and png are if they are animated."""

_ARRAYS = (".npy", ".npz")
_PERHAPS_ANIMATED = {".webp": True, ".png": False}  # and what they count as if none opens
_MANIFEST = "manifest.json"
_FOLDERS: dict[str, Split] = {
    "train": "train", "val": "validation", "validation": "validation", "eval": "validation",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """Any folder with videos in it, however deep.

    A source video is one of these, and is called by its path below `root`:

    - a file of `VIDEO_SUFFIXES`, or an animated WebP or PNG;
    - an npy file, or each array of an npz file, of uint8 (frames, height, width, 3); other arrays
      are passed over;
    - a folder with at least two pictures that have a number in their names (but not that of a video
      beside them, whose thumbnails they are): its frames, in natural order.

    Hidden files and all others are passed over. If `root` has a `manifest.json`, a list of entries
    with "path" and perhaps "suggested_stride", then the entries are the videos and these their
    strides, which `stride` multiplies.

    `splits` decides which videos train, validate and test where it is given, and what it does not
    list is left out. Else, if folders named train, val, validation, eval (which validates) or test
    lie at the top, they decide, and what lies elsewhere trains. Else a hash of each video's name
    does, by `shares`: a new video leaves the others where they are. Few videos: one trains; the
    second validates; of three or more each side has one.

    Long videos are cut into consecutive clips, "<video>/0", "<video>/1", ...; a remainder of less
    than `min_frames` is dropped. A video of less than `min_frames` is a `BadRecord`.

    Args:
        root: The folder.
        size: Width and height of the frames.
        fit: "stretch" gives the aspect up, "crop" takes the middle of each frame.
        stride: Take each `stride`-th frame; the frame rate is divided by it.
        min_frames: Of a clip; T + 1.
        max_frames: Of a clip.
        shares: Of the videos that train, validate and test; they add up to 1.
        splits: A file that lists them, see `cinnema.data.sources.splits.read_splits`.

    Example:
        >>> source = Folder(Path("holidays"), size=128, fit="crop")
        >>> clip = next(source.read(source.items()[0]))
    """

    root: Path
    _: KW_ONLY
    size: int = 128
    fit: Fit = "stretch"
    stride: int = 1
    min_frames: int = 17
    max_frames: int = 300
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    splits: Path | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_one(size=self.size, stride=self.stride, min_frames=self.min_frames)
        if self.max_frames < self.min_frames:
            raise UserError(
                f"max_frames must be at least min_frames ({self.min_frames}), got {self.max_frames}"
            )
        check_shares(validation=self.shares[1], test=self.shares[2])
        if abs(sum(self.shares) - 1) > 1e-6:
            raise UserError(f"shares must add up to 1, got {self.shares}")

    @property
    def name(self) -> str:
        """What the packed data set is called: as the folder."""
        return self.root.resolve().name or "folder"

    @property
    def control(self) -> None:
        """None: nothing is known about the motion."""
        return

    def settings(self) -> dict[str, Any]:
        """Return what decides the clips; of a manifest, the SHA-256 of its paths and strides."""
        check_root(self.root)
        listed = _read_manifest(self.root)
        text = json.dumps(sorted(listed.items())) if listed is not None else ""
        return {
            "source": "folder", "root": self.name, "size": self.size, "fit": self.fit,
            "stride": self.stride, "min_frames": self.min_frames, "max_frames": self.max_frames,
            "shares": list(self.shares),
            "manifest": hashlib.sha256(text.encode()).hexdigest() if text else None,
            "splits": None if self.splits is None else self._splits_digest(),
        }  # fmt: skip

    def _splits_digest(self) -> str:
        assert self.splits is not None
        check_input_file(self.splits, kind="a list of splits")
        return hashlib.sha256(self.splits.read_bytes()).hexdigest()

    def items(self) -> list[Item]:
        """List the videos; of some only the header is read.

        Raises:
            UserError: The folder is missing or holds no video; its manifest is damaged.
        """
        check_root(self.root)
        listed = _read_manifest(self.root)
        names = sorted(_find_videos(self.root) if listed is None else listed)
        if not names:
            raise UserError(
                f"{self.root} holds no video: it needs files (mp4, mov, avi, webm, gif, ...), "
                "uint8 arrays (npy, npz) of (frames, height, width, 3), or folders of frames"
            )
        splits = self._split(names)
        return [Item(name=name, split=splits[name]) for name in names if name in splits]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one video."""
        path = self.root / item.name
        stride = self.stride * (_read_manifest(self.root) or {}).get(item.name, 1)
        if path.suffix.lower() == ".npz":
            for name, frames in npz_clips(path, root=self.root, stride=stride):
                yield from self._cut(frames, f"{item.name}/{name}", item.name, stride)
        elif path.is_dir():
            pictures = picture_frames(_pictures(path, self.root, stride), root=self.root)
            yield from self._cut(pictures, item.name, item.name, stride)
        else:
            yield from cut_video(
                path, root=self.root, stride=stride, size=self.size, fit=self.fit,
                min_frames=self.min_frames, max_frames=self.max_frames,
            )  # fmt: skip

    def _cut(
        self, frames: Stream, name: str, source: str, stride: int
    ) -> Iterator[RawClip | BadRecord]:
        return cut(
            frames, name=name, source=source, fps=DEFAULT_FPS / stride, size=self.size,
            fit=self.fit, min_frames=self.min_frames, max_frames=self.max_frames,
        )  # fmt: skip

    def _split(self, names: Sequence[str]) -> Mapping[str, Split]:
        if self.splits is not None:
            return read_splits(self.splits, names)
        tops = {name: name.split("/")[0].lower() if "/" in name else "" for name in names}
        if not _FOLDERS.keys().isdisjoint(tops.values()):
            return {name: _FOLDERS.get(top, "train") for name, top in tops.items()}
        return split_by_name(names, validation=self.shares[1], test=self.shares[2])


def _find_videos(root: Path) -> list[str]:
    """Walk through the folder, also behind links, but not twice through the same place."""
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
        found += [below(path, root) for path in _videos_in(Path(folder), visible)]
    return found


def _refuse(error: OSError) -> None:
    raise UserError(
        f"{error.filename} cannot be listed ({error.strerror}): check its rights"
    ) from None


def _videos_in(folder: Path, names: list[str]) -> list[Path]:
    """Return the videos among a folder's files, and the folder itself if it is one."""
    videos = _files_in(folder, names)
    return [*videos, folder] if len(_frames(names, videos)) >= 2 else videos


def _files_in(folder: Path, names: list[str]) -> list[Path]:
    paths = defaultdict[str, list[Path]](list)
    for name in names:
        path = folder / name
        paths[path.suffix.lower()].append(path)
    videos = [path for suffix in VIDEO_SUFFIXES for path in paths[suffix]]
    videos += [path for suffix in _ARRAYS for path in paths[suffix] if holds_clips(path)]
    for suffix, otherwise in _PERHAPS_ANIMATED.items():
        videos += paths[suffix] if _are_animated(paths[suffix], otherwise=otherwise) else []
    return videos


def _are_animated(paths: Iterable[Path], *, otherwise: bool) -> bool:
    """Return whether pictures are animated; the first that opens tells for all.

    They are of one folder and kind, and if they are frames, they may be very many. `otherwise` is
    returned where none opens.
    """
    for path in paths:
        try:
            with open_picture(path, kind="a picture") as image:
                return bool(getattr(image, "is_animated", False))
        except Exception:  # damaged; tell when it is read
            continue
    return otherwise


def _frames(names: Iterable[str], videos: Iterable[Path]) -> list[str]:
    """Return which files of a folder are frames, given its videos."""
    filmed = {path.stem for path in videos}
    return [
        name
        for name in names
        if is_picture(name)
        and any(map(str.isdigit, Path(name).stem))
        and Path(name).stem not in filmed
    ]


def _pictures(folder: Path, root: Path, stride: int) -> list[Path] | BadRecord:
    """Return the frames of a folder in natural order, each `stride`-th."""
    try:
        pictures = pictures_in(folder)
        visible = [path.name for path in folder.iterdir() if path.name[0] != "."]
    except (UserError, OSError) as error:
        return bad_record(error, folder, root)
    frames = set(_frames(visible, _files_in(folder, sorted(visible))))
    return [path for path in pictures if path.name in frames][::stride]


def _read_manifest(root: Path) -> Mapping[str, int] | None:
    """Return the strides of the videos that `root`'s manifest lists; None if it has none."""
    path = root / _MANIFEST
    try:
        return _parse_manifest(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights") from error


@lru_cache(maxsize=4)  # each video's reading asks for it
def _parse_manifest(path: Path, mtime_ns: int) -> Mapping[str, int] | None:  # noqa: ARG001
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); repair or remove it") from error
    if isinstance(entries, dict) and entries.get("format") == "cinnema-clips":
        raise UserError(f"{path.parent} is a packed data set: name the folder it was made from")
    if not isinstance(entries, list):  # some other program's
        return None
    strides: dict[str, int] = {}
    for index, entry in enumerate(entries):
        name, stride = _entry(path, index, entry)
        if name in strides:
            raise UserError(f"{path}: {name} is listed twice; remove one of the entries")
        strides[name] = stride
    return strides


def _entry(path: Path, index: int, entry: object) -> tuple[str, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise UserError(f"{path}: entry {index} has no path; add it")
    name = PurePosixPath(entry["path"])
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise UserError(f"{path}: entry {index} lies outside of the folder; give a path below it")
    stride = entry.get("suggested_stride", 1)
    if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
        raise UserError(
            f"{path}: entry {index} has a stride of {stride!r}; give a number from 1 on"
        )
    return name.as_posix(), stride
