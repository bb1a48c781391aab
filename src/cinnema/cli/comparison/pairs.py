"""Pairs of videos, their order, and which of each pair is on the left."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of

Letter = Literal["A", "B"]
Side = Literal["left", "right"]

MIME_TYPES = {".mp4": "video/mp4", ".webp": "image/webp", ".gif": "image/gif"}
"""Formats that every browser plays, by suffix."""

_OTHER_VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".webm", ".wmv"})
_OVERVIEW = "_grid"  # file of all videos in one that `cinnema animate` writes beside them


@dataclass(frozen=True)
class Clip:
    """A video.

    Attributes:
        path: Path of the file.
        name: Name of the file behind as many of its folders as make A and B differ.
        sha256: SHA-256 of the file.
    """

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class Trial:
    """Two videos, one of which is chosen.

    Attributes:
        pair: Name of the pair.
        a: The video of the first folder.
        b: The video of the second.
        left: The set whose video is on the left.
    """

    pair: str
    a: Clip
    b: Clip
    left: Letter

    @property
    def right(self) -> Letter:
        """The set whose video is on the right."""
        return "B" if self.left == "A" else "A"

    def letter(self, side: Side) -> Letter:
        """Return the set whose video is on a side."""
        return self.left if side == "left" else self.right

    def clip(self, side: Side) -> Clip:
        """Return the video on a side."""
        return self.a if self.letter(side) == "A" else self.b


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        trials: Trials in the order in which they are shown.
        remarks: Sentences for the person who runs it: how pairs were found, and what would tell
            the sets apart.
    """

    trials: tuple[Trial, ...]
    remarks: tuple[str, ...]


def plan_comparison(a: Path, b: Path, *, seed: int = 0, most: int | None = None) -> Plan:
    """Pair the videos of two folders in random order.

    Videos of the same name (without suffix) are a pair; if no name is in both folders, videos are
    paired in natural order. A is on the left in half of all pairs. The same seed gives the same
    order and sides, and a smaller `most` the first of them.

    Args:
        a: First folder.
        b: Second folder.
        seed: Seed of the order and the sides.
        most: Greatest number of pairs; all if None.

    Raises:
        UserError: A folder is missing or has no video; both are the same folder; browsers cannot
            play a video; there is no pair.
    """
    if most is not None and most < 1:
        raise UserError(f"--pairs must be at least 1, got {most}")
    files_a, files_b = videos_in(a), videos_in(b)
    if a.resolve() == b.resolve():
        raise UserError(f"{a} and {b} are the same folder: give two folders")
    pairs, remarks = _paired(a, b, files_a, files_b)
    generator = random.Random(seed)
    generator.shuffle(pairs)
    letters: list[Letter] = ["A" if i % 2 else "B" for i in range(len(pairs))]
    generator.shuffle(letters)
    label_a, label_b = _labels(a, b)
    trials = [
        Trial(name, _clip(file_a, label_a), _clip(file_b, label_b), left)
        for (name, file_a, file_b), left in zip(pairs[:most], letters[:most], strict=True)
    ]
    return Plan(tuple(trials), (*remarks, *_giveaways(trials)))


def videos_in(folder: Path) -> list[Path]:
    """Return the videos of a folder in natural order, without grids of videos and other files.

    Args:
        folder: The folder; its subfolders are not searched.

    Raises:
        UserError: The folder cannot be read, has no video, or has one that browsers cannot play.
    """
    try:
        files = sorted((f for f in folder.iterdir() if f.name[0] != "."), key=_natural_order)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}): give a folder of videos"
        ) from None
    for file in files:
        if file.suffix.lower() in _OTHER_VIDEOS:
            raise UserError(
                f"{file}: not all browsers play {file.suffix}: convert it to mp4 (H.264), webp or "
                "gif, or move it away"
            )
    videos = [file for file in files if file.suffix.lower() in MIME_TYPES]
    single = [file for file in videos if not file.stem.endswith(_OVERVIEW)]
    if not single:
        raise UserError(f"{folder} has no video (mp4, webp or gif): give another folder")
    return single


def _paired(
    a: Path, b: Path, files_a: Sequence[Path], files_b: Sequence[Path]
) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    by_name_a, by_name_b = _by_name(files_a), _by_name(files_b)
    common = [name for name in by_name_a if name in by_name_b]
    if common:
        alone = len(files_a) + len(files_b) - 2 * len(common)
        remarks = [f"pairs by file name: {len(common)}"]
        if alone:
            remarks.append(f"videos in one folder only, and left out: {alone}")
        return [(name, by_name_a[name], by_name_b[name]) for name in common], remarks
    if len(files_a) != len(files_b):
        raise UserError(
            f"{a} and {b} have no file name in common, and {len(files_a)} and {len(files_b)} "
            "videos, so that they cannot be paired by order either: give pairs the same name"
        )
    pairs = [
        (f"{file_a.stem} | {file_b.stem}", file_a, file_b)
        for file_a, file_b in zip(files_a, files_b, strict=True)
    ]
    return pairs, [f"pairs by order, as no file name is in both folders: {len(pairs)}"]


def _by_name(files: Sequence[Path]) -> dict[str, Path]:
    by_name: dict[str, Path] = {}
    for file in files:
        if file.stem in by_name:
            raise UserError(
                f"{by_name[file.stem]} and {file} have the same name, so that pairs are not "
                "clear: keep one of them"
            )
        by_name[file.stem] = file
    return by_name


def _labels(a: Path, b: Path) -> tuple[str, str]:
    """Return the shortest ends of both paths that differ."""
    parts_a, parts_b = a.resolve().parts, b.resolve().parts
    longest = max(len(parts_a), len(parts_b))
    length = next(n for n in range(1, longest + 1) if parts_a[-n:] != parts_b[-n:])
    return "/".join(parts_a[-length:]), "/".join(parts_b[-length:])


def _clip(file: Path, label: str) -> Clip:
    return Clip(check_playable(file), f"{label}/{file.name}", sha256_of(file))


def check_playable(file: Path) -> Path:
    """Return the file if it can be read, and played by browsers.

    Args:
        file: Video with a suffix of `MIME_TYPES`.

    Raises:
        UserError: The file is damaged, or an mp4 that is not H.264.
    """
    from cinnema.media.videos import iterate_frames

    next(iter(iterate_frames(file, max_frames=1)))
    if file.suffix.lower() == ".mp4":
        import av

        with av.open(str(file.absolute())) as container:
            codec = container.streams.video[0].codec_context.name
        if codec != "h264":
            raise UserError(
                f"{file} is encoded as {codec}, which not all browsers play: convert it to H.264"
            )
    return file


def _giveaways(trials: Sequence[Trial]) -> list[str]:
    """Return remarks on differences between A and B that are not in the pictures."""
    remarks = []
    formats = [{clip.path.suffix.lower() for clip in clips} for clips in _sides(trials)]
    if formats[0] != formats[1]:
        names = [", ".join(sorted(each)) for each in formats]
        remarks.append(f"A is {names[0]}, B {names[1]}: viewers may recognise the format")
    same = sum(trial.a.sha256 == trial.b.sha256 for trial in trials)
    if same:
        remarks.append(f"pairs of two equal files: {same}")
    return remarks


def _sides(trials: Sequence[Trial]) -> tuple[list[Clip], list[Clip]]:
    return [trial.a for trial in trials], [trial.b for trial in trials]


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts clip_2 before clip_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), part) if part.isdigit() else (-1, part.lower()) for part in parts]
