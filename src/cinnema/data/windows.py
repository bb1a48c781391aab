"""Square windows of scenes for the nature model, at natural speed, cut once and cached.

A window has T + 1 frames. Of each scene a few starts are taken, spread over its length, and of each
start a square at the left, in the middle and at the right (or the top and the bottom) of the
picture, if the picture is much longer than high. On demand, each start also gives one closer view:
a smaller square at random, whose motion is larger by as much as it is enlarged.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_folder, locked
from cinnema.data.dataset import PackedDataset
from cinnema.data.scenes import Scene
from cinnema.media.videos import write_array

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
        closer: Whether each window is a closer view than the whole height or width.
    """

    scene: Scene
    frames: UInt8[np.ndarray, "n t1 s s 3"]
    closer: Bool[np.ndarray, " n"]


def load_windows(
    dataset: PackedDataset,
    scenes: Sequence[Scene],
    *,
    size: int,
    num_frames: int,
    fps: float,
    starts: int,
    closest: float = 1.0,
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
        closest: Largest factor by which closer views are enlarged; 1 makes none.
        progress: Called with a description, the number of scenes done and of all scenes.

    Raises:
        UserError: No scene is long enough, or cached windows are damaged.
    """
    found = []
    for number, scene in enumerate(scenes):
        if progress is not None:
            progress("cutting windows", number, len(scenes))
        cut = _Cut(size=size, steps=num_frames, fps=fps, starts=starts, closest=closest)
        windows = _load(dataset, scene, cut)
        if len(windows.frames):
            found.append(windows)
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


@dataclass(frozen=True)
class _Cut:
    """How windows are cut, see `load_windows`."""

    size: int
    steps: int
    fps: float
    starts: int
    closest: float


def _load(dataset: PackedDataset, scene: Scene, cut: _Cut) -> SceneWindows:
    about = f"{dataset.digest} {scene.clips} {cut}"
    digest = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()
    name = f"{PurePosixPath(scene.name).name[:60]}-{digest[:12]}"
    folder = dataset.cache / "windows" / name
    if not folder.is_dir():
        with locked(folder.parent):  # several processes may need it at once
            if not folder.is_dir():
                windows = _cut(dataset, scene, cut)
                with atomic_folder(folder) as part:
                    if len(windows.frames):  # an empty file cannot be mapped into memory
                        write_array(part / "closer.npy", windows.closer)
                        write_array(part / "frames.npy", windows.frames)
    if not (folder / "frames.npy").exists():
        return _no_windows(scene, cut)
    try:
        frames = np.asarray(np.load(folder / "frames.npy", mmap_mode="r"))
        return SceneWindows(scene, frames, np.load(folder / "closer.npy"))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{folder}: the windows cached there are damaged ({error}); delete the folder"
        ) from error


def _cut(dataset: PackedDataset, scene: Scene, cut: _Cut) -> SceneWindows:
    """Return the windows of a scene; none if it is too short."""
    windows: list[NDArray[np.uint8]] = []
    closer: list[bool] = []
    video, stride = read_distinct(dataset, scene), natural_stride(dataset, scene, cut.fps)
    while stride > 1 and cut.steps * stride >= len(video):
        stride -= 1
    span = cut.steps * stride + 1
    if span <= len(video):
        last = len(video) - span
        distance = max(span, last // max(1, cut.starts - 1))
        for start in range(0, last + 1, distance)[: cut.starts]:
            frames = video[start : start + span : stride]
            squares = _squares(frames, cut.size)
            if cut.closest > 1:
                squares.append(_closer(frames, cut, seed=f"{scene.name} {start}"))
                closer += [False] * (len(squares) - 1) + [True]
            else:
                closer += [False] * len(squares)
            windows += squares
    if not windows:
        return _no_windows(scene, cut)
    return SceneWindows(scene, np.stack(windows), np.array(closer))


def _no_windows(scene: Scene, cut: _Cut) -> SceneWindows:
    shape = (0, cut.steps + 1, cut.size, cut.size, 3)
    return SceneWindows(scene, np.zeros(shape, np.uint8), np.zeros(0, bool))


def _squares(frames: Sequence[NDArray[Any]], size: int) -> list[NDArray[np.uint8]]:
    height, width = frames[0].shape[:2]
    side, rest = min(height, width), abs(height - width)
    places = sorted({0, rest // 2, rest}) if max(height, width) >= _LONG * side else [rest // 2]
    corners = [(place, 0) if height > width else (0, place) for place in places]
    return [_square(frames, corner, side, size) for corner in corners]


def _closer(frames: Sequence[NDArray[Any]], cut: _Cut, *, seed: str) -> NDArray[np.uint8]:
    """Return a square at random, enlarged by up to `closest`, evenly in the logarithm."""
    digest = hashlib.sha256(seed.encode("utf-8", "surrogateescape")).digest()
    random = np.random.default_rng(list(digest[:8]))
    height, width = frames[0].shape[:2]
    side = round(min(height, width) / cut.closest ** random.uniform())
    corner = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    return _square(frames, (int(corner[0]), int(corner[1])), side, cut.size)


def _square(
    frames: Sequence[NDArray[Any]], corner: tuple[int, int], side: int, size: int
) -> NDArray[np.uint8]:
    """Return frames of a square with its top and left corner, resized."""
    top, left = corner
    how = cv2.INTER_AREA if side >= size else cv2.INTER_CUBIC
    cut = [frame[top : top + side, left : left + side] for frame in frames]
    return np.stack([cv2.resize(f, (size, size), interpolation=how) for f in cut]).astype(np.uint8)
