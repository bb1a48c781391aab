"""iPER: people who turn in an A-pose or move at random, recorded with a fixed camera."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, Item, RawClip, Split
from cinnema.data.sources.frames import (
    Cutting,
    below,
    check_at_least_one,
    check_root,
    count_pictures,
    numbered_pictures,
    picture_frames,
    subfolders,
)
from cinnema.data.sources.splits import split_by_name

_VIDEO = ".mp4"
_FPS = 30.0  # frame rate of the published videos, also used for folders of frames
_NAME = re.compile(r"(?P<actor>\d+)_(?P<cloth>\d+)_(?P<action>\d+)")
_LISTS: dict[str, Split] = {"train.txt": "train", "val.txt": "validation", "test.txt": "test"}
_VALIDATION_SHARE, _TEST_SHARE = 0.1, 0.2  # of the actors; about those of the lists


@dataclass(frozen=True)
class IPer:
    """iPER (Liu et al. 2019): `<actor>_<cloth>_<action>.mp4`, or folders of frames of that name.

    Both are searched for in `root` and in its folders; if a video exists in both forms, its frames
    are read. The lists train.txt, val.txt and test.txt (lines "006/1/1") decide the splits; videos
    that they do not name are left out (`settings` counts them). They are searched for in `root`,
    `root`/iPER, `root`/lists and beside `root`. Without lists all videos of an actor are in one
    split, by a hash of the actor's number: about 10 % are for validation and 20 % for testing.

    Videos are cut into consecutive clips of one source; a remainder of fewer than `min_frames`
    frames is dropped. Folders with fewer frames are left out; `too_short` lists them and `settings`
    counts them.

    The track "weight" (one number, the same for all frames) is how often a clip should be drawn in
    training relative to others: the action's digit, as in the reference, so random movement (2) is
    drawn twice as often as an A-pose (1).

    Args:
        root: The folder.
        size: Width and height of the frames in pixels.
        min_frames: Smallest number of frames of a clip, T + 1.
        max_frames: Largest number of frames of a clip.

    Example:
        >>> source = IPer(Path("iPER"))
        >>> clip = next(source.read(source.items()[0]))
    """

    root: Path
    _: KW_ONLY
    size: int = 64
    min_frames: int = 17
    max_frames: int = 300

    def __post_init__(self) -> None:
        """Check the options."""
        check_at_least_one(size=self.size, min_frames=self.min_frames)
        if self.max_frames < self.min_frames:
            raise UserError(
                f"max_frames must be at least min_frames ({self.min_frames}), got {self.max_frames}"
            )

    @property
    def name(self) -> str:
        """Name of the packed data set."""
        return "iper"

    @property
    def control(self) -> None:
        """None: the pose is unknown."""
        return

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the clips, and counts of skipped videos."""
        videos, lists = self._videos(), self._lists()
        return {
            "source": self.name, "root": self.root.resolve().name, "size": self.size,
            "min_frames": self.min_frames, "max_frames": self.max_frames,
            "splits": "lists" if lists else "actors", "too_short": len(self.too_short()),
            "unlisted": len(videos.keys() - lists.keys()) if lists else 0,
        }  # fmt: skip

    def too_short(self) -> list[str]:
        """List the folders that are left out because they have fewer than `min_frames` frames."""
        return [
            below(path, self.root) for path in self._videos().values() if not self._is_long(path)
        ]

    def items(self) -> list[Item]:
        """List the videos; nothing is opened. Missing videos of the lists are reported by `read`.

        Raises:
            UserError: The folder is missing or contains no such video; a list is damaged.
        """
        videos = self._videos()
        if not any(self._is_long(path) for path in videos.values()):
            raise UserError(
                f"{self.root} has no video of iPER: it needs <actor>_<cloth>_<action>.mp4, or "
                f"folders of that name with frame_<i>.png, at least {self.min_frames} of them"
            )
        splits = self._lists() or _split_by_actor(videos)
        items = []
        for name in sorted(splits):
            path = videos.get(name, self.root / name)
            if name not in videos or self._is_long(path):
                clips = self._num_clips(path)
                items.append(Item(name=below(path, self.root), split=splits[name], clips=clips))
        return items

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one video."""
        path = self.root / item.name
        match = _NAME.fullmatch(path.name.removesuffix(_VIDEO))
        weight = float(match["action"]) if match else 1.0
        for clip in self._clips(path, item.name):
            if isinstance(clip, RawClip):
                track = np.full((len(clip.frames), 1), weight, np.float32)
                yield replace(clip, tracks={"weight": track})
            else:
                yield clip

    def _clips(self, path: Path, name: str) -> Iterator[RawClip | BadRecord]:
        cutting = Cutting(size=self.size, min_frames=self.min_frames, max_frames=self.max_frames)
        if path.is_dir():
            frames = picture_frames(numbered_pictures(path, root=self.root), root=self.root)
            yield from cutting.cut(frames, name=name, source=name, fps=_FPS)
        elif path.suffix == _VIDEO:
            yield from cutting.cut_video(path, root=self.root)
        else:
            reason = "it is listed, but neither its mp4 nor its folder exists"
            yield BadRecord(name=name, reason=reason)

    def _videos(self) -> dict[str, Path]:
        """Find the videos by name: folders of frames, and mp4 files without such a folder."""
        check_root(self.root)
        places = [self.root, *(f for f in subfolders(self.root) if not _NAME.fullmatch(f.name))]
        found: dict[str, Path] = {}
        for files in (False, True):
            for place in places:
                for path in sorted(place.glob(f"*{_VIDEO}")) if files else subfolders(place):
                    name = path.name.removesuffix(_VIDEO)
                    if _NAME.fullmatch(name):
                        found.setdefault(name, path)
        return found

    def _is_long(self, path: Path) -> bool:
        """Return whether a folder has enough frames; the length of a file is not known yet."""
        return not path.is_dir() or count_pictures(path) >= self.min_frames

    def _num_clips(self, path: Path) -> int:
        return -(-count_pictures(path) // self.max_frames) if path.is_dir() else 1

    def _lists(self) -> dict[str, Split]:
        """Read the lists of the first place that has one; empty if none has."""
        places = (self.root, self.root / "iPER", self.root / "lists", self.root.resolve().parent)
        for place in places:
            splits: dict[str, Split] = {}
            for file, split in _LISTS.items():
                for name in _read_list(place / file):
                    if splits.setdefault(name, split) != split:
                        raise UserError(f"{place / file} names {name}, as another list does")
            if splits:
                return splits
        return {}


def _read_list(path: Path) -> list[str]:
    """Return the names in a list; none if the file is missing or lists something else."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): repair or remove it") from error
    names = [line.replace("/", "_") for line in lines]
    if not names or not _NAME.fullmatch(names[0]):  # other data sets have files of this name too
        return []
    for line, name in zip(lines, names, strict=True):
        if not _NAME.fullmatch(name):
            raise UserError(f"{path} has a line {line!r}: write <actor>/<cloth>/<action>")
    return names


def _split_by_actor(videos: Mapping[str, Path]) -> dict[str, Split]:
    actors = {name: name.split("_")[0] for name in videos}
    splits = split_by_name(set(actors.values()), validation=_VALIDATION_SHARE, test=_TEST_SHARE)
    return {name: splits[actor] for name, actor in actors.items()}
