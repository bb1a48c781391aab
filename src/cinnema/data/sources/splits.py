"""Division of source videos into the splits train, validation and test."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.data.manifest import ClipEntry, Manifest, list_names
from cinnema.data.records import SPLITS, BadRecord, ClipSource, Control, Item, RawClip, Split

# Consecutive frames that the shipped models need; shorter parts of a video are not useful.
_USEFUL = 17


def split_by_name(names: Iterable[str], *, validation: float, test: float) -> dict[str, Split]:
    """Split videos by a hash u of their names, uniform in [0, 1): test < validation < train.

    Adding a video does not move the others. A split that the hash leaves empty gets the video with
    the nearest hash: of two or more videos, at least one is for validation, of three or more, at
    least one for testing (if their shares are above 0), and at least one always for training.

    Args:
        names: Names of the videos, or of groups that must stay together, such as actors.
        validation: Share for validation, in [0, 1).
        test: Share for testing; at most 1 together with `validation`.

    Returns:
        The split of each name.
    """
    ordered = sorted(set(names), key=lambda name: (_uniform(name), name))
    hashes = [_uniform(name) for name in ordered]
    num_test = sum(u < test for u in hashes)
    num_validation = sum(test <= u < test + validation for u in hashes)
    if test > 0 and len(ordered) >= 3:
        num_test = max(1, num_test)
    num_test = min(num_test, max(0, len(ordered) - 2))
    if validation > 0 and len(ordered) >= 2:
        num_validation = max(1, num_validation)
    num_validation = min(num_validation, max(0, len(ordered) - num_test - 1))
    return {
        name: "test" if k < num_test else "validation" if k < num_test + num_validation else "train"
        for k, name in enumerate(ordered)
    }


def split_by_label(labels: Mapping[str, str | None]) -> dict[str, Split]:
    """Hold out every third video of each label, in the order of file names, from the first on.

    Held-out videos are alternately for validation and testing. The only video of a label is for
    training, unless no video would be held out; fewer than three videos are all for training (see
    `divide_in_time`).

    Args:
        labels: The label of each video, by its name.

    Returns:
        The split of each name.
    """
    ordered = sorted(labels, key=lambda name: (labels[name] or "", PurePosixPath(name).stem, name))
    splits: dict[str, Split] = dict.fromkeys(ordered, "train")
    if len(ordered) < 3:
        return splits
    groups: dict[str | None, list[str]] = {}
    for name in ordered:
        groups.setdefault(labels[name], []).append(name)
    several = [group for group in groups.values() if len(group) > 1] or [ordered]
    held_out = [name for group in several for name in group[::3]]
    for number, name in enumerate(held_out):
        splits[name] = "test" if number % 2 else "validation"
    return splits


def divide_in_time(manifest: Manifest) -> Manifest:
    """Fill empty splits with parts of source videos, where there are too few videos.

    If only the test split is empty, the second half of each validation video becomes the test
    split. If no video is held out, the last third of each is: first validation, then test. Parts
    are consecutive and share no frame.

    Args:
        manifest: Manifest of a data set whose clips lie in one or two splits.

    Returns:
        A manifest with clips in more splits, and a note about it; unchanged if all splits have
        clips, or if only the test split is empty and there is no validation video.
    """
    present = {clip.split for clip in manifest.clips}
    if not present or "test" in present:
        return manifest
    divided: Split = "validation" if "validation" in present else "train"
    by_source: dict[str, list[ClipEntry]] = {}
    for clip in manifest.clips:
        if clip.split == divided:
            by_source.setdefault(clip.source, []).append(clip)
    parts = {
        source: list(_divide(clips, _lengths(sum(c.frames for c in clips), divided)))
        for source, clips in by_source.items()
    }
    rest = [clip for clip in manifest.clips if clip.split != divided]
    names = list_names(parts)
    note = (
        f"too few videos to hold some out whole: the end of {names} is held out instead, with no "
        "frame in common with what is trained on"
        if divided == "train"
        else f"few videos are held out: the first half of {names} validates, the second half tests"
    )
    clips = [*rest, *(clip for clips in parts.values() for clip in clips)]
    clips.sort(key=lambda clip: (clip.shard, clip.index, clip.first))
    return replace(manifest, clips=tuple(clips), notes=(*manifest.notes, note))


def _lengths(num_frames: int, divided: Split) -> dict[Split, int]:
    """Return how many frames of a video go to each split, in order of time."""
    if divided == "validation":
        return {"validation": num_frames - num_frames // 2, "test": num_frames // 2}
    if 2 * _USEFUL <= num_frames < 3 * _USEFUL:
        return {"train": num_frames - _USEFUL, "test": _USEFUL}
    part = num_frames // 6 if num_frames < 2 * _USEFUL else max(num_frames // 6, _USEFUL)
    return {"train": num_frames - 2 * part, "validation": part, "test": part}


def _divide(clips: Sequence[ClipEntry], lengths: Mapping[Split, int]) -> Iterator[ClipEntry]:
    """Cut consecutive clips of one video where the splits meet."""
    splits = iter(lengths.items())
    split, left = next(splits)
    for clip in clips:
        start = 0
        while start < clip.frames:
            while not left:
                split, left = next(splits)
            length = min(left, clip.frames - start)
            yield replace(
                clip,
                clip=f"{clip.clip}@{start}" if start else clip.clip,
                split=split,
                frames=length,
                first=clip.first + start,
                control=clip.control if length == clip.frames else None,
            )
            start, left = start + length, left - length


def read_splits(path: Path, names: Sequence[str]) -> dict[str, Split]:
    """Read the splits of videos from a file.

    The file contains a JSON object with up to three lists, "train", "validation" and "test". A
    video is named by its path below the folder, or by enough of its last parts to be unique; the
    suffix may be omitted.

    Args:
        path: The file.
        names: Paths of all videos below their folder.

    Returns:
        The split of each listed video, in the order of `names`; the others are left out.

    Raises:
        UserError: The file has another form, lists a video twice, or a name that fits no video or
            several.
    """
    check_input_file(path, kind="a list of splits")
    try:
        listed = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); repair it") from error
    are_lists = isinstance(listed, dict) and all(isinstance(v, list) for v in listed.values())
    if not are_lists or not listed.keys() <= set(SPLITS) or not listed:
        raise UserError(
            f'{path}: must be an object of lists named {", ".join(SPLITS)}, as {{"test": ["sea"]}}'
        )
    found: dict[str, Split] = {}
    for split in SPLITS:
        for called in listed.get(split, []):
            name = _find(called, names, path)
            if name in found:
                raise UserError(f"{path}: {called} is listed twice; keep one of them")
            found[name] = split
    return {name: found[name] for name in names if name in found}


def _find(called: object, names: Sequence[str], path: Path) -> str:
    fitting = [n for n in names if isinstance(called, str) and _is_called(n, called)]
    if len(fitting) != 1:
        what = f"is called so {len(fitting)} times" if fitting else "is not among the videos"
        raise UserError(f"{path}: {called!r} {what}; write its path below the folder")
    return fitting[0]


def _is_called(name: str, called: str) -> bool:
    ends = (name, str(Path(name).with_suffix("")))
    return any(end == called or end.endswith(f"/{called}") for end in ends)


def check_shares(*, validation: float, test: float = 0.0) -> None:
    """Raise a UserError unless the shares leave clips for training."""
    if min(validation, test) < 0 or not validation + test < 1:
        raise UserError(
            "the shares for validation and test must be at least 0 and together below 1, got "
            f"{validation:g} and {test:g}"
        )


def _uniform(name: str) -> float:
    # Not hash(): that differs from one run of Python to the next.
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True)
class OneSplit:
    """The items of one split of another source, or the first of them.

    Used to simulate many futures of the test starts separately from the training starts, with the
    split unchanged.

    Args:
        source: The other source.
        split: The split to keep.
        most: Largest number of items; None keeps all.

    Raises:
        UserError: `most` is below 1.

    Example:
        >>> source = OneSplit(Push(num_starts=1000, futures=32), "test", most=10)
    """

    source: ClipSource
    split: Split
    most: int | None = None

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise UserError(
                f"at least 1 start is needed, got {self.most}: choose a number from 1 on"
            )

    @property
    def name(self) -> str:
        """Name of the other source."""
        return self.source.name

    @property
    def size(self) -> int | None:
        """Width and height of the frames, in pixels."""
        return self.source.size

    @property
    def control(self) -> Control | None:
        """Control of the other source."""
        return self.source.control

    def settings(self) -> dict[str, Any]:
        """Return the settings of the other source, and the split."""
        return {**self.source.settings(), "split": self.split, "most": self.most}

    def items(self) -> Sequence[Item]:
        """List the items of the split.

        Raises:
            UserError: The split has no items; or as the other source.
        """
        chosen = [item for item in self.source.items() if item.split == self.split]
        if not chosen:
            raise UserError(f"{self.name} has nothing in the split {self.split}: choose another")
        return chosen[: self.most]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the clips of one item."""
        return self.source.read(item)
