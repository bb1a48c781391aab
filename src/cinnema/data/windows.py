"""Square windows of scenes for the nature model, at natural speed, cut once and cached.

A window has T + 1 frames. Of each scene a few starts are taken, spread over its length, and of each
start a square at the left, in the middle and at the right (or the top and the bottom) of the
picture, if the picture is much longer than high.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_folder, locked
from cinnema.data.dataset import PackedDataset
from cinnema.data.scenes import Scene

DUPLICATE_CORRELATION = 0.93
"""Correlation of two small grey pictures above which they show the same scene."""

_SMALL = 24  # width and height of the pictures by which duplicates are found
_SAME_FRAME = 0.25  # a frame closer to the one before, in grey levels, is a duplicate of it
_LONG = 1.25  # aspect ratio from which there are windows at the ends of a picture, too


@dataclass(frozen=True)
class SceneWindows:
    """The windows of one scene.

    Attributes:
        scene: The scene.
        frames: RGB; the first frame of a window is x0.
    """

    scene: Scene
    frames: UInt8[np.ndarray, "n t1 s s 3"]


def load_windows(
    dataset: PackedDataset,
    scenes: Sequence[Scene],
    *,
    size: int,
    num_frames: int,
    fps: float,
    starts: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[SceneWindows]:
    """Cut the windows of scenes, or read them from the cache beside the data set.

    Args:
        dataset: The data set; a clip's stride, or else its frame rate, gives natural speed.
        scenes: Scenes of it; those that are too short are left out.
        size: Width and height of a window in pixels.
        num_frames: T.
        fps: Frame rate of the model.
        starts: Largest number of starts in each scene.
        progress: Called with a description, the number of scenes done and of all scenes.

    Raises:
        UserError: No scene is long enough, or cached windows are damaged.
    """
    found = []
    for number, scene in enumerate(scenes):
        if progress is not None:
            progress("cutting windows", number, len(scenes))
        frames = _load(dataset, scene, size=size, steps=num_frames, fps=fps, starts=starts)
        if len(frames):
            found.append(SceneWindows(scene, frames))
    if not found:
        raise UserError(
            f"{dataset.manifest.name}: no video has {num_frames + 1} distinct frames: use longer "
            "ones"
        )
    return found


def find_duplicates(first_frames: Mapping[str, UInt8[np.ndarray, "_ h w 3"]]) -> list[set[str]]:
    """Return groups of scenes that show the same, by their first frames.

    Two scenes belong together if any of their first frames, as grey pictures of 24 x 24 pixels,
    correlate by more than `DUPLICATE_CORRELATION`.

    Args:
        first_frames: First frames of one or more windows of each scene, by its name.

    Returns:
        The names of the scenes of each group of two or more.
    """
    names = list(first_frames)
    rows = [_small_greys(first_frames[name]) for name in names]
    groups = {name: {name} for name in names}
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            is_same = (rows[i] @ rows[j].T).max() > DUPLICATE_CORRELATION
            if is_same and groups[one] is not groups[other]:
                groups[one] |= groups[other]
                for name in groups[other]:
                    groups[name] = groups[one]
    joined = {id(group): group for group in groups.values() if len(group) > 1}
    return list(joined.values())


def held_out_together(held_out: Iterable[str], duplicates: Iterable[set[str]]) -> set[str]:
    """Return the scenes that are held out, and those that show the same as one of them."""
    out = set(held_out)
    for group in duplicates:
        if group & out:
            out |= group
    return out


def natural_stride(dataset: PackedDataset, scene: Scene, fps: float) -> int:
    """Return the stride at which a scene plays at natural speed, by its manifest or frame rate."""
    clip = dataset.manifest.clips[scene.clips[0]]
    return clip.stride or max(1, round(clip.fps / fps))


def read_distinct(dataset: PackedDataset, scene: Scene) -> list[NDArray[np.uint8]]:
    """Return the frames of a scene without those that equal the one before."""
    kept: list[NDArray[np.uint8]] = []
    for position in scene.clips:
        for frame in dataset.read(position).frames:
            if not kept or cv2.absdiff(frame, kept[-1]).mean() > _SAME_FRAME:
                kept.append(frame)
    return kept


def _small_greys(pictures: UInt8[np.ndarray, "n h w 3"]) -> NDArray[np.float32]:
    """Return small grey pictures as rows of mean 0 and length 1."""
    rows = [
        cv2.cvtColor(
            cv2.resize(p, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        )
        for p in pictures
    ]
    out = np.stack(rows).reshape(len(rows), -1).astype(np.float32)
    out -= out.mean(1, keepdims=True)
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6))


def _load(
    dataset: PackedDataset, scene: Scene, *, size: int, steps: int, fps: float, starts: int
) -> NDArray[np.uint8]:
    about = f"{dataset.digest} {scene.clips} {size} {steps} {fps} {starts}"
    digest = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()
    name = f"{PurePosixPath(scene.name).name[:60]}-{digest[:12]}"
    folder = dataset.cache / "windows" / name
    if not folder.is_dir():
        with locked(folder.parent):  # several processes may need it at once
            if not folder.is_dir():
                frames = _cut(dataset, scene, size=size, steps=steps, fps=fps, starts=starts)
                with atomic_folder(folder) as part:
                    if len(frames):  # an empty file cannot be mapped into memory
                        np.save(part / "frames.npy", frames)
    if not (folder / "frames.npy").exists():
        return np.zeros((0, steps + 1, size, size, 3), np.uint8)
    try:
        return np.asarray(np.load(folder / "frames.npy", mmap_mode="r"))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{folder}: the windows cached there are damaged ({error}); delete the folder"
        ) from error


def _cut(
    dataset: PackedDataset, scene: Scene, *, size: int, steps: int, fps: float, starts: int
) -> NDArray[np.uint8]:
    """Return the windows of a scene; none if it is too short."""
    windows: list[NDArray[np.uint8]] = []
    video, stride = read_distinct(dataset, scene), natural_stride(dataset, scene, fps)
    while stride > 1 and steps * stride >= len(video):
        stride -= 1
    span = steps * stride + 1
    if span <= len(video):
        last = len(video) - span
        distance = max(span, last // max(1, starts - 1))
        for start in range(0, last + 1, distance)[:starts]:
            windows += _squares(video[start : start + span : stride], size)
    if not windows:
        return np.zeros((0, steps + 1, size, size, 3), np.uint8)
    return np.stack(windows)


def _squares(frames: Sequence[NDArray[Any]], size: int) -> list[NDArray[np.uint8]]:
    height, width = frames[0].shape[:2]
    side, rest = min(height, width), abs(height - width)
    places = sorted({0, rest // 2, rest}) if max(height, width) >= _LONG * side else [rest // 2]
    out = []
    for place in places:
        top, left = (place, 0) if height > width else (0, place)
        cut = [f[top : top + side, left : left + side] for f in frames]
        small = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in cut]
        out.append(np.stack(small).astype(np.uint8))
    return out
