"""Loose clips of somebody's own: a folder of videos, no manifest, at any size and frame rate.

Frames are taken at the model's rate (or twice that, for other speeds). Of three clips or more some
are held out whole, of fewer the end of each: what is measured was never trained on.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.data.scenes import Scene, SceneCrops, distinct_frames, load_crops
from cinnema.data.sources.folder import Folder
from cinnema.data.sources.splits import split_by_name
from cinnema.media.videos import iterate_frames, read_video

TEXTURE = "footage"
"""The texture of all loose clips."""

# Clips are cut from frames at most this tall, or twice the model's size.
_HEIGHT = 240
# Frames of one clip that are held in memory; 37 s at twice 8 frames a second.
_MAX_FRAMES = 600
# From so many clips on, some are held out whole.
_MANY = 3


@dataclass(frozen=True)
class LooseClip:
    """One video of the folder that can be used.

    Attributes:
        name: Path below the folder.
        step: Every which frame of the file is taken, at least 1; not a whole number.
        stride: Every which of those makes a clip of natural speed: 1 or 2.
        num_frames: Distinct frames that are taken.
    """

    name: str
    step: float
    stride: int
    num_frames: int


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        clips: The videos that can be used, by name.
        skipped: A sentence for each that cannot.
        digest: Of the files, their sizes and times, and of the speed.
    """

    clips: tuple[LooseClip, ...]
    skipped: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Footage:
    """Clips to train on and clips to measure on, cut from disjoint frames.

    Attributes:
        train: By source video.
        held_out: Likewise.
        rule: What was held out, as a sentence.
    """

    train: list[SceneCrops]
    held_out: list[SceneCrops]
    rule: str


def survey(
    root: Path,
    *,
    fps: float,
    speed: float,
    num_frames: int,
    tell: Callable[[str], None] = print,
    cache: Path | None = None,
) -> Survey:
    """Look through a folder: which videos there are, and which can be used.

    Args:
        root: The folder; videos are found however deep.
        fps: Of the model.
        speed: How fast the clips are to be seen: 1 as they were filmed, 0.25 four times slower.
        num_frames: T; a clip of the model has T + 1 frames.
        tell: Called with a sentence for each video that cannot be used.
        cache: Folder that keeps what was found, for the same files.

    Raises:
        UserError: The folder is missing or holds no video, or none of them can be used.
    """
    names = [item.name for item in Folder(root).items()]
    digest = _digest(root, names, fps=fps, speed=speed, num_frames=num_frames)
    kept = None if cache is None else cache / f"survey-{digest}.json"
    if kept is not None and kept.exists():
        return _read_survey(kept)
    clips, skipped = [], []
    for name in names:
        try:
            clips.append(_look(root, name, fps=fps, speed=speed, num_frames=num_frames))
        except UserError as error:
            skipped.append(f"skipped: {error}")
            tell(skipped[-1])
    if not clips:
        raise UserError(
            f"{root}: none of its {len(names)} videos can be used (the first: "
            f"{skipped[0].removeprefix('skipped: ')}); give longer or other ones"
        )
    found = Survey(tuple(clips), tuple(skipped), digest)
    if kept is not None:
        with atomic_path(kept, overwrite=True) as part:
            part.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return found


def cut_footage(
    root: Path,
    found: Survey,
    *,
    share: float,
    num_train: int,
    num_held_out: int,
    size: int,
    num_frames: int,
    grid: int,
    cache: Path,
    seed: int = 0,
) -> Footage:
    """Cut clips of the model's size, or take those that are kept; flow and all.

    Args:
        root: The folder.
        found: What is in it.
        share: Of the videos, or of the time of each, that is held out; above 0, at most 0.5.
        num_train: Clips to train on, of all videos together, about.
        num_held_out: Clips to measure on, likewise.
        size: Width and height of a clip in pixels; the aspect ratio is not kept.
        num_frames: T; a clip has T + 1 frames.
        grid: Rows and columns of the flow volume.
        cache: Folder that keeps the clips.
        seed: Of the draws, which are those of `load_crops`.

    Raises:
        UserError: Nothing can be held out; a video cannot be read any more.
    """
    plan, rule = _hold_out(root, found, share=share, num_frames=num_frames)

    def crops(scene: Scene, frames: range, *, num: int) -> SceneCrops:
        clip = next(c for c in found.clips if c.name == scene.source)
        read = partial(_frames_of, clip=clip, chosen=frames, height=max(_HEIGHT, 2 * size))
        return load_crops(
            scene, num=num, size=size, num_frames=num_frames, grid=grid,
            cache=cache / found.digest, seed=seed, read=read,
        )  # fmt: skip

    train = [pair for pair in plan if pair[0].split == "train"]
    held_out = [pair for pair in plan if pair[0].split == "validation"]
    each_train = max(8, min(200, math.ceil(num_train / len(train))))
    each_held_out = max(1, math.ceil(num_held_out / len(held_out)))
    return Footage(
        train=[crops(scene, frames, num=each_train) for scene, frames in train],
        held_out=[crops(scene, frames, num=each_held_out) for scene, frames in held_out],
        rule=rule,
    )


def _look(root: Path, name: str, *, fps: float, speed: float, num_frames: int) -> LooseClip:
    path = root / name
    ratio = read_video(path, max_frames=1).fps * speed / fps
    stride = 2 if ratio >= 2 else 1
    clip = LooseClip(name, step=max(1.0, ratio / stride), stride=stride, num_frames=0)
    count = len(_frames_of(path, clip=clip, height=32))
    if count <= num_frames:
        raise UserError(
            f"{path} is too short: a clip needs {num_frames + 1} distinct frames, it has {count}"
        )
    return replace(clip, num_frames=count)


def _frames_of(
    path: Path, *, clip: LooseClip, height: int, chosen: range | None = None
) -> UInt8[np.ndarray, "t h w 3"]:
    """Read the distinct frames of a clip at its step, or some of them."""
    frames = distinct_frames(_stepped(path, clip.step), max_height=height)
    return frames if chosen is None else frames[chosen.start : chosen.stop]


def _stepped(path: Path, step: float) -> Iterator[NDArray[np.uint8]]:
    """Yield every `step`-th frame, each time the first one that is due."""
    count = 0
    for index, frame in enumerate(iterate_frames(path)):
        if index + 1e-6 >= count * step:
            yield frame
            count += 1
        if count == _MAX_FRAMES:
            return


def _hold_out(
    root: Path, found: Survey, *, share: float, num_frames: int
) -> tuple[list[tuple[Scene, range]], str]:
    """Return which frames of which clip train and which are held out, and that as a sentence."""
    if len(found.clips) >= _MANY:
        splits = split_by_name([c.name for c in found.clips], validation=share, test=0.0)
        parts = [
            (_scene(root, c, held_out=splits[c.name] == "validation"), range(c.num_frames))
            for c in found.clips
        ]
        out = [scene.source for scene, _ in parts if scene.split == "validation"]
        return parts, f"whole clips are held out: {', '.join(out)}"
    parts = []
    for clip in found.clips:
        start = clip.num_frames - _tail(clip, share=share, num_frames=num_frames)
        parts.append((_scene(root, clip, held_out=False), range(start)))
        if start < clip.num_frames:
            parts.append((_scene(root, clip, held_out=True), range(start, clip.num_frames)))
    if not any(scene.split == "validation" for scene, _ in parts):
        clip = max(found.clips, key=lambda c: c.num_frames)
        raise UserError(
            f"{root / clip.name}: nothing can be held out, as it takes {2 * (num_frames + 1)} "
            f"distinct frames to train on some and measure on others, and it has "
            f"{clip.num_frames}; give a longer clip, or more of them"
        )
    return parts, f"the end of each clip is held out, {share:.0%} of it or one clip's length"


def _tail(clip: LooseClip, *, share: float, num_frames: int) -> int:
    """Return how many frames at the end are held out: room for one clip at least, or none."""
    if clip.num_frames < 2 * (num_frames + 1):
        return 0
    natural = min(clip.stride * num_frames + 1, clip.num_frames // 2)
    return max(round(share * clip.num_frames), natural)


def _scene(root: Path, clip: LooseClip, *, held_out: bool) -> Scene:
    # By it crops are kept in files: no slash in it, and a/b is not a_b.
    flat = f"{clip.name.replace('/', '_')}-{hashlib.sha256(clip.name.encode()).hexdigest()[:6]}"
    return Scene(
        name=f"{flat}-{'held-out' if held_out else 'train'}",
        texture=TEXTURE,
        path=root / clip.name,
        stride=clip.stride,
        split="validation" if held_out else "train",
        source=clip.name,
        licence="the user's own",
    )


def _digest(root: Path, names: Sequence[str], **settings: float) -> str:
    """Return a hash of the files, by name, size and time: reading them all would take long."""
    files = [path for name in names for path in _files(root / name)]
    about = [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    text = json.dumps([about, settings, _MAX_FRAMES])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _read_survey(path: Path) -> Survey:
    values = json.loads(path.read_text(encoding="utf-8"))
    clips = tuple(LooseClip(**clip) for clip in values["clips"])
    return Survey(clips, tuple(values["skipped"]), values["digest"])
