"""Crops with optical flow for the warping model, cut from a data set and cached.

A scene is one source video, or the part of it that is held out. Crops of held-out scenes are for
validation, the others for training.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_folder, locked
from cinnema.data.dataset import PackedDataset

# A frame closer than this to its predecessor, in grey levels, is a duplicate.
_DUPLICATE = 0.02
# Clips whose last frame has moved further, in picture widths, are cut again at a lower speed.
_MAX_MEAN_SHIFT = 0.2
# Largest number of frames of a scene in memory; only the first ones of a longer scene are used.
_MAX_FRAMES = 1500


@dataclass(frozen=True)
class Scene:
    """One source video, or its part for training or its held-out part.

    Attributes:
        name: Path of the video without its suffix, unique in the data set.
        texture: Label of the video, "" if it has none.
        held_out: Whether its clips are of the validation or test split, rather than trained on.
        clips: Positions of its clips in the data set's manifest.
    """

    name: str
    texture: str
    held_out: bool
    clips: tuple[int, ...] = ()


@dataclass(frozen=True)
class SceneCrops:
    """Clips cut from one scene, at the model's size.

    Attributes:
        scene: The scene.
        frames: RGB in [0, 255]; the first of the t + 1 frames is x0.
        flow: Backward optical flow of frames 1..t to frame 0, block means, in picture widths (x)
            and heights (y).
        motion: The longest displacement over the clip around each point, in pixels.
    """

    scene: Scene
    frames: UInt8[np.ndarray, "n t1 h w 3"]
    flow: Float32[np.ndarray, "n 2 t g g"]
    motion: Float32[np.ndarray, "n m m"]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.frames)


@dataclass(frozen=True)
class SplitCrops:
    """Crops of all scenes.

    Attributes:
        train: Crops of the training scenes.
        held_out: Crops of the other scenes.
        skipped: A sentence for each scene that was left out, with the reason.
    """

    train: list[SceneCrops]
    held_out: list[SceneCrops]
    skipped: tuple[str, ...]


def find_scenes(
    dataset: PackedDataset,
    *,
    textures: Collection[str] | None = None,
    excluded: Collection[str] = (),
) -> list[Scene]:
    """List the scenes of a data set.

    Args:
        dataset: The data set.
        textures: Labels to use. If the data set has none of them, or this is None, all scenes are
            used.
        excluded: Names of videos to leave out, without folder and suffix.

    Returns:
        The scenes, in the order of `textures` and then by file name.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for position, clip in enumerate(dataset.manifest.clips):
        if PurePosixPath(clip.source).stem not in excluded:
            groups.setdefault((clip.source, clip.split != "train"), []).append(position)
    names = _scene_names([source for source, _ in groups])
    found = [
        Scene(
            name=f"{names[source]}, end"
            if held_out and (source, False) in groups
            else names[source],
            texture=dataset.manifest.clips[positions[0]].label or "",
            held_out=held_out,
            clips=tuple(positions),
        )
        for (source, held_out), positions in groups.items()
    ]
    found.sort(key=lambda scene: (scene.texture, PurePosixPath(scene.name).name, scene.name))
    order = list(textures or ())
    if not any(scene.texture in order for scene in found):
        return found
    used = [scene for scene in found if scene.texture in order]
    return sorted(used, key=lambda scene: order.index(scene.texture))


def _scene_names(sources: Iterable[str]) -> dict[str, str]:
    """Return the path of each video without its suffix, where that is unique."""
    stems = {source: str(PurePosixPath(source).with_suffix("")) for source in set(sources)}
    counts = Counter(stems.values())
    return {source: stem if counts[stem] == 1 else source for source, stem in stems.items()}


def load_crops(
    dataset: PackedDataset,
    scenes: Sequence[Scene],
    *,
    num_train: int,
    num_held_out: int,
    size: int,
    num_frames: int,
    grid: int,
    fps: float,
    speed: float = 1.0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> SplitCrops:
    """Return random crops of scenes, cut once and then kept beside the data set.

    Places, sizes (60 to 100 % of the height), aspect ratios (square to the video's own), starts
    and speeds (half to one and a half times natural speed) are drawn from the seed. Frames equal
    to the one before are dropped. A scene that is too short is skipped.

    Args:
        dataset: The data set.
        scenes: Scenes of it, from `find_scenes`.
        num_train: Number of clips of each scene to train on.
        num_held_out: Number of clips of each scene held out.
        size: Width and height of a clip in pixels; the aspect ratio is not kept.
        num_frames: T; a clip has T + 1 frames.
        grid: Rows and columns of the flow volume.
        fps: Frames per second of the model, by which natural speed follows from a video's frame
            rate if the data set does not state a stride.
        speed: Playback speed of the clips: 0.25 shows them four times slower than recorded.
        seed: Seed of the draws.
        progress: Called with "cutting clips", the number of scenes done and of all scenes.

    Raises:
        UserError: No scene can be used for training, or none is held out; a video or cached crops
            are damaged; crops cannot be written.
    """
    done: list[SceneCrops] = []
    skipped: list[str] = []
    for number, scene in enumerate(scenes):
        if progress is not None:
            progress("cutting clips", number, len(scenes))
        cutting = _Cutting(
            num=num_held_out if scene.held_out else num_train,
            size=size,
            num_frames=num_frames,
            grid=grid,
            fps=fps,
            speed=speed,
            seed=seed,
        )
        try:
            done.append(_load(dataset, scene, cutting))
        except _TooShortError as error:
            skipped.append(f"skipped {error}")
    if progress is not None:
        progress("cutting clips", len(scenes), len(scenes))
    train, held_out = ([c for c in done if c.scene.held_out == side] for side in (False, True))
    if not train or not held_out:
        what = "nothing is held out" if train else "nothing is left to train on"
        raise UserError(
            f"{dataset.manifest.name}: {what}, as it takes videos of {num_frames + 1} distinct "
            f"frames for both{': ' if skipped else ''}{'; '.join(skipped)}; use more or longer ones"
        )
    return SplitCrops(train, held_out, tuple(skipped))


class _TooShortError(Exception):
    pass


@dataclass(frozen=True)
class _Cutting:
    """Options of `load_crops` for one scene."""

    num: int
    size: int
    num_frames: int
    grid: int
    fps: float
    speed: float
    seed: int


def _load(dataset: PackedDataset, scene: Scene, cutting: _Cutting) -> SceneCrops:
    """Return the crops of a scene from the cache, or cut them."""
    about = f"{dataset.digest} {scene} {cutting}"
    digest = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()
    folder = dataset.cache / "crops" / f"{PurePosixPath(scene.name).name[:60]}-{digest[:12]}"
    if not folder.is_dir():
        with locked(folder.parent):  # several processes may need it at once
            if not folder.is_dir():
                _save(folder, _cut(dataset, scene, cutting))
    try:
        return SceneCrops(
            scene=scene,
            frames=np.load(folder / "frames.npy", mmap_mode="r"),
            flow=np.load(folder / "flow.npy"),
            motion=np.load(folder / "motion.npy"),
        )
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{folder}: the crops cached there are damaged ({error}); delete the folder"
        ) from error


def _save(folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with atomic_folder(folder) as part:
        for name, array in arrays.items():
            _save_array(part / f"{name}.npy", array)


def _save_array(path: Path, array: NDArray[Any]) -> None:
    header = np.lib.format.header_data_from_array_1_0(array)
    with path.open("wb") as file:  # np.save would hide that a disk is full
        np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(array).data)


def _cut(dataset: PackedDataset, scene: Scene, cutting: _Cutting) -> dict[str, NDArray[Any]]:
    """Cut the clips of a scene; returns frames, flow and motion of a `SceneCrops`."""
    step, stride = _pace(dataset, scene, cutting)
    video = _read_distinct(dataset, scene.clips, step)
    if len(video) <= cutting.num_frames:
        raise _TooShortError(
            f"{scene.name}: a clip needs {cutting.num_frames + 1} distinct frames, it has "
            f"{len(video)}"
        )
    rng = np.random.default_rng(cutting.seed)
    clips, volumes, motions = [], [], []
    for _ in range(cutting.num):
        clip, flow = _draw_followable(
            video, stride, size=cutting.size, num_frames=cutting.num_frames, rng=rng
        )
        clips.append(clip)
        volumes.append(to_volume(flow, grid=cutting.grid))
        motions.append(_longest(flow, cells=2 * cutting.grid))
    return {
        "frames": np.stack(clips),
        "flow": np.stack(volumes).astype(np.float32),
        "motion": np.stack(motions),
    }


def _pace(dataset: PackedDataset, scene: Scene, cutting: _Cutting) -> tuple[float, int]:
    """Return the step between frames that are read, and the stride of natural speed.

    Returns:
        `step`, at least 1 and not necessarily an integer: every `step`-th frame is read; and
        `stride`: every `stride`-th of those plays at natural speed, so others can be drawn too.
    """
    clip = dataset.manifest.clips[scene.clips[0]]
    if clip.stride is not None:
        return 1.0, max(1, round(clip.stride * cutting.speed))
    ratio = clip.fps * cutting.speed / cutting.fps
    stride = 2 if ratio >= 2 else 1
    return max(1.0, ratio / stride), stride


def _read_distinct(
    dataset: PackedDataset, clips: Sequence[int], step: float
) -> UInt8[np.ndarray, "t h w 3"]:
    """Read every `step`-th frame of consecutive clips, without duplicates of the one before."""
    kept: list[NDArray[np.uint8]] = []
    start = count = 0
    for position in clips:
        numbers = []
        for number in range(dataset.manifest.clips[position].frames):
            if start + number + 1e-6 >= count * step and count < _MAX_FRAMES:
                numbers.append(number)
                count += 1
        start += dataset.manifest.clips[position].frames
        for frame in dataset.read(position, numbers).frames if numbers else ():
            if not kept or cv2.absdiff(frame, kept[-1]).mean() > _DUPLICATE:
                kept.append(frame)
    return np.stack(kept)


def _draw_followable(
    video: NDArray[np.uint8],
    stride: int,
    *,
    size: int,
    num_frames: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a clip and its flow; if the optical flow fails, a slower clip."""
    while True:
        clip = _draw_clip(video, stride, size=size, num_frames=num_frames, rng=rng)
        flow = backward_flow(clip, size=(size, size))
        if stride <= 1 or np.sqrt((flow[-1] ** 2).sum(-1)).mean() < _MAX_MEAN_SHIFT * size:
            return clip, flow
        stride //= 2


def _longest(flow: NDArray[np.float32], *, cells: int) -> NDArray[np.float32]:
    """Mean over each cell of the longest displacement of its points, in pixels."""
    lengths = np.sqrt((flow**2).sum(-1)).max(0)
    means = cv2.resize(lengths, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray(means, dtype=np.float32)


def _draw_clip(
    video: NDArray[np.uint8],
    stride: int,
    *,
    size: int,
    num_frames: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    count, height, width = video.shape[:3]
    step = int(rng.integers(max(1, stride // 2), max(2, stride * 3 // 2) + 1))
    step = max(1, min(step, (count - 1) // num_frames))
    start = int(rng.integers(0, count - step * num_frames))
    crop_h = int(rng.uniform(0.6, 1.0) * height)
    crop_w = min(width, int(crop_h * rng.uniform(1.0, max(1.0, width / height))))
    top = int(rng.integers(0, height - crop_h + 1))
    left = int(rng.integers(0, width - crop_w + 1))
    frames = video[
        start : start + step * num_frames + 1 : step, top : top + crop_h, left : left + crop_w
    ]
    small = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in frames]
    return np.stack(small).astype(np.uint8)
