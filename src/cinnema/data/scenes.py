"""Real scenes: where they are, which of them train and which validate, and crops cut from them.

A scene is one source video. Splits are by scene: within each texture, every third scene by name
validates and is never trained on.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_folder
from cinnema.media.videos import iterate_frames

Split = Literal["train", "validation"]

# Frames are kept at most this tall: crops are scaled to the model's size in any case.
_MAX_HEIGHT = 360
# A frame closer than this to its predecessor, in grey levels, is a duplicate.
_DUPLICATE = 0.02
_MAX_DUPLICATE_SHARE = 0.5
# Clips whose last frame has moved further than this, in picture widths, are cut again, slower.
_MAX_MEAN_SHIFT = 0.2


@dataclass(frozen=True)
class Scene:
    """One source video, as `manifest.json` lists it.

    Attributes:
        name: File or folder name without its suffix, unique in the manifest.
        texture: What moves: clouds, fire, water, vegetation, ...
        path: The video file or the folder of frames.
        stride: Every which frame makes a clip of natural speed.
        split: Whether it trains or validates.
        source: Where it comes from.
        licence: As the manifest states it.
    """

    name: str
    texture: str
    path: Path
    stride: int
    split: Split
    source: str
    licence: str


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


def find_scenes(
    root: Path, *, textures: tuple[str, ...], excluded: tuple[str, ...] = ()
) -> list[Scene]:
    """List the scenes of a folder that has a `manifest.json`.

    Args:
        root: The folder; its manifest is a list of entries with path and texture, and, where
            known, suggested_stride, duplicate_share, source and licence.
        textures: Which textures to take.
        excluded: Names to leave out (cameras that move, say). Leaving one out moves the split of
            the names after it.

    Returns:
        The scenes, by texture and then by name.

    Raises:
        UserError: There is no manifest, it is damaged, two of its scenes share a name, or nothing
            in it fits.
    """
    path = root / "manifest.json"
    entries = _read_manifest(path)
    scenes: list[Scene] = []
    for texture in textures:
        usable = sorted(
            (entry for entry in entries if _is_usable(entry, texture, excluded)),
            key=lambda entry: Path(entry["path"]).stem,
        )
        scenes += [_scene_of(root, entry, index) for index, entry in enumerate(usable)]
    if not scenes:
        raise UserError(f"{path}: no scene of {', '.join(textures)}; choose other textures")
    names = [scene.name for scene in scenes]
    for name in names:
        # They would share their crops in the cache, and might lie on both sides of the split.
        if names.count(name) > 1:
            raise UserError(f"{path}: two scenes are named {name}; rename or remove one")
    return scenes


def _read_manifest(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path}: no manifest of clips there; give a folder that has one with --data"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    except ValueError as error:  # not JSON, or not even text
        raise UserError(f"{path}: not valid JSON ({error}); repair or rewrite it") from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: not a list of clips; repair or rewrite it")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"path", "texture"} <= entry.keys():
            raise UserError(f"{path}: entry {index} has no path or no texture; add it")
    return entries


def _is_usable(entry: dict[str, Any], texture: str, excluded: tuple[str, ...]) -> bool:
    return (
        entry["texture"] == texture
        and Path(entry["path"]).stem not in excluded
        and entry.get("duplicate_share", 0.0) <= _MAX_DUPLICATE_SHARE
    )


def _scene_of(root: Path, entry: dict[str, Any], index: int) -> Scene:
    return Scene(
        name=Path(entry["path"]).stem,
        texture=entry["texture"],
        path=root / entry["path"],
        stride=int(entry.get("suggested_stride", 1)),
        split="validation" if index % 3 == 0 else "train",
        source=entry.get("source", "not stated"),
        licence=entry.get("licence", "not stated"),
    )


def load_crops(
    scene: Scene,
    *,
    num: int,
    size: int,
    num_frames: int,
    grid: int,
    cache: Path,
    seed: int = 0,
    read: Callable[[Path], UInt8[np.ndarray, "_ _ _ 3"]] | None = None,
) -> SceneCrops:
    """Return random crops of a scene, cut once and kept in a cache folder.

    Places, sizes (60 to 100 % of the height), aspect ratios (square to the video's own), starts
    and speeds (half to one and a half times the scene's stride) are drawn from the seed.

    Args:
        scene: The scene to cut from.
        num: Number of clips.
        size: Width and height of a clip in pixels; the aspect ratio is not kept.
        num_frames: T; a clip has T + 1 frames.
        grid: Rows and columns of the flow volume.
        cache: Folder of cached crops.
        seed: Of the draws.
        read: Returns the frames of `scene.path` from which clips are cut, where that is not all
            distinct ones.

    Raises:
        UserError: The video is shorter than T + 1 frames, or cannot be read; the cached crops are
            damaged, or cannot be written.
    """
    folder = cache / f"{scene.name}-{num}x{num_frames}-{size}px-{grid}g-seed{seed}"
    if not folder.is_dir():
        rng = np.random.default_rng(seed)
        video = (read or _read_distinct)(scene.path)
        arrays = _cut(scene, video, num=num, size=size, num_frames=num_frames, grid=grid, rng=rng)
        with atomic_folder(folder) as part:
            for name, array in arrays.items():
                _save_array(part / f"{name}.npy", array)
    try:
        return SceneCrops(
            scene=scene,
            frames=np.load(folder / "frames.npy", mmap_mode="r"),
            flow=np.load(folder / "flow.npy"),
            motion=np.load(folder / "motion.npy"),
        )
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{folder}: the crops kept there are damaged ({error}); delete the folder"
        ) from error


def _save_array(path: Path, array: NDArray[Any]) -> None:
    header = np.lib.format.header_data_from_array_1_0(array)
    with path.open("wb") as file:  # np.save would hide that a disk is full
        np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(array).data)


def _cut(
    scene: Scene,
    video: NDArray[np.uint8],
    *,
    num: int,
    size: int,
    num_frames: int,
    grid: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """Cut `num` clips; returns frames, flow and motion as `SceneCrops` has them."""
    if len(video) <= num_frames:
        raise UserError(
            f"{scene.path}: a clip needs {num_frames + 1} distinct frames, it has {len(video)}; "
            "leave this scene out"
        )
    clips, volumes, motions = [], [], []
    for _ in range(num):
        clip, flow = _draw_followable(
            video, scene.stride, size=size, num_frames=num_frames, rng=rng
        )
        clips.append(clip)
        volumes.append(to_volume(flow, grid=grid))
        motions.append(_longest(flow, cells=2 * grid))
    return {
        "frames": np.stack(clips),
        "flow": np.stack(volumes).astype(np.float32),
        "motion": np.stack(motions),
    }


def _draw_followable(
    video: NDArray[np.uint8],
    stride: int,
    *,
    size: int,
    num_frames: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a clip and its flow, slower ones where the optical flow could not follow."""
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


def distinct_frames(
    frames: Iterable[NDArray[np.uint8]], *, max_height: int = _MAX_HEIGHT
) -> UInt8[np.ndarray, "t h w 3"]:
    """Return the frames that differ from the one before them, made smaller where they are tall.

    Args:
        frames: At least one, all of one size.
        max_height: In pixels; the aspect ratio is kept.
    """
    kept: list[NDArray[np.uint8]] = []
    for frame in frames:
        small = _shrunk(frame, max_height)
        if not kept or cv2.absdiff(small, kept[-1]).mean() > _DUPLICATE:
            kept.append(small)
    return np.stack(kept)


def _read_distinct(path: Path) -> NDArray[np.uint8]:
    return distinct_frames(iterate_frames(path))


def _shrunk(frame: NDArray[np.uint8], max_height: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    if height <= max_height:
        return frame
    size = (max(1, round(width * max_height / height)), max_height)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


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
