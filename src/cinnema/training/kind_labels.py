"""Labels for the kind network: what teacher networks see, joined with what changes over time.

A teacher alone errs: it calls snow sky, and knows no fire and no rain. A clip tells what moves, and
its description (the data set's label) what it is of. Pixels on which these disagree are unknown.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, check_input_folder
from cinnema.data.labelled import UNKNOWN
from cinnema.models.nature.kinds import KIND_SIZE, KINDS, STILL

SKY, WATER, FIRE, PLANTS, FALLING = (1 + KINDS.index(name) for name in KINDS)

TEACHER_FILES = ("networks.py", "sky_u2netp.npz", "ade20k_deeplab_mnv2.npz")
"""Files in the folder of the teachers: code, a sky network, and a network of scene classes."""

# Indices of the scene network's classes: 0 is "other", then those of ADE20K.
_ADE = {
    "sky": [3],
    "water": [22, 27, 61, 105, 110, 114, 129],
    "plants": [5, 10, 18, 67, 73, 30],
    "person": [13, 127],  # and animals
    "ground": [14, 17, 35, 47, 69, 95],  # earth, mountain, rock, sand, hill, land
}
_SKY_SIZE, _ADE_SIZE = 384, 513

# Change over time, in grey levels a step: below, nothing moves; above, something does.
_STILL_CHANGE, _CHANGE = 2.0, 2.5
_INSIDE = ("interior", "food", "object", "text")
_OVERCAST = ("clouds", "aurora", "fog", "smoke")


class Seen(NamedTuple):
    """What the teachers see in a picture, at `KIND_SIZE`.

    Attributes:
        sky: Probability of sky by the sky network.
        scene_sky: 1 where the scene network sees sky, 0 elsewhere, interpolated; so are the others.
        water: Water.
        plants: Plants.
        person: People and animals.
        ground: Mountains, hills, rocks, sand and earth.
    """

    sky: Float32[np.ndarray, "s s"]
    scene_sky: Float32[np.ndarray, "s s"]
    water: Float32[np.ndarray, "s s"]
    plants: Float32[np.ndarray, "s s"]
    person: Float32[np.ndarray, "s s"]
    ground: Float32[np.ndarray, "s s"]


class Teachers:
    """Two trained networks in a folder of the user's: they are run from there.

    Args:
        folder: Folder with `TEACHER_FILES`. **The code in networks.py is run.**

    Raises:
        UserError: A file is missing, or the code lacks a network.
    """

    def __init__(self, folder: Path) -> None:
        check_input_folder(folder, kind="teacher networks")
        for name in TEACHER_FILES:
            check_input_file(folder / name, kind="a teacher")
        module = _module(folder / TEACHER_FILES[0])
        self._sky: Any = module.Sky(str(folder / TEACHER_FILES[1]))
        self._scene: Any = module.Ade(str(folder / TEACHER_FILES[2]))

    @torch.no_grad()
    def see(self, picture: UInt8[np.ndarray, "h w 3"]) -> Seen:
        """Return what the networks see in a picture of any size."""
        sky = self._sky(_input(picture, _SKY_SIZE))[0, 0].numpy()
        called = self._scene(_input(picture, _ADE_SIZE))[0].argmax(0).numpy()
        groups = [_square(np.isin(called, own).astype(np.float32)) for own in _ADE.values()]
        return Seen(_square(sky), *groups)


def change_over_time(frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float32[np.ndarray, "s s"]:
    """Return how much a clip changes around each point, in grey levels a step, at `KIND_SIZE`.

    Args:
        frames: Consecutive frames at natural speed, at least 2.
    """
    small = [cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in frames]
    steps = np.abs(np.diff(np.stack(small).astype(np.float32), axis=0)).mean((0, 3))
    coarse = cv2.resize(steps, (64, 64), interpolation=cv2.INTER_AREA)
    square = cv2.resize(coarse, (KIND_SIZE, KIND_SIZE), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.GaussianBlur(square, (0, 0), KIND_SIZE / 64), np.float32)


def label_clip(
    picture: UInt8[np.ndarray, "s s 3"],
    seen: Seen,
    change: Float32[np.ndarray, "s s"],
    texture: str,
) -> UInt8[np.ndarray, "s s"]:
    """Return the class of each pixel of a clip's first frame.

    Args:
        picture: The frame, at `KIND_SIZE`.
        seen: What the teachers see in it.
        change: `change_over_time` of the clip.
        texture: The clip's label, such as "water" or "rain".
    """
    labels = np.full(picture.shape[:2], UNKNOWN, np.uint8)
    quiet, others = change < _STILL_CHANGE, np.maximum(seen.water, seen.plants)
    sky = seen.sky > (0.3 if texture in _OVERCAST and seen.sky.mean() > 0.8 else 0.6)
    labels[(seen.sky < 0.2) & (seen.scene_sky < 0.3) & (others < 0.3) & quiet] = STILL
    labels[(seen.sky < 0.3) & (seen.water > 0.6)] = WATER
    labels[(seen.sky < 0.3) & (seen.plants > 0.6)] = PLANTS
    labels[sky] = SKY
    if texture in ("clouds", "aurora"):
        labels[(seen.ground > 0.6) & (seen.sky < 0.6) & (change < 1.5)] = STILL
    labels[(seen.person > 0.5) & (seen.sky < 0.5)] = STILL
    _add_texture(labels, picture, seen, change, sky=sky, texture=texture)
    return labels


def _add_texture(
    labels: NDArray[np.uint8],
    picture: NDArray[np.uint8],
    seen: Seen,
    change: NDArray[np.float32],
    *,
    sky: Bool[np.ndarray, "s s"],
    texture: str,
) -> None:
    """Correct labels by what the clip is known to show."""
    moves, apart = change > _CHANGE, ~sky & (seen.person < 0.4)
    if texture == "water":
        labels[(labels == STILL) & apart & (change > 1)] = UNKNOWN  # perhaps a slow, dark sea
        labels[apart & (seen.plants < 0.6) & ((seen.water > 0.4) | (change > 3))] = WATER
    elif texture == "fire":
        warm = is_warm(picture)
        labels[:] = UNKNOWN
        labels[(change > 5) | ((change > 3) & warm)] = FIRE
        labels[(change < 1.5) & ~warm] = STILL
        labels[(change < 1.5) & (seen.plants > 0.6)] = PLANTS
    elif texture == "smoke":
        labels[change > 1.5] = FIRE
    elif texture == "snow":
        quiet = change < 0.7
        labels[~quiet] = UNKNOWN
        labels[quiet] = np.where(seen.plants > 0.5, PLANTS, STILL)[quiet]
        # The sky network calls snow on the ground sky.
        labels[quiet & sky] = np.where(seen.scene_sky > 0.25, SKY, UNKNOWN)[quiet & sky]
        labels[(change > 1.5) & (seen.person < 0.4)] = FALLING
    elif texture == "rain":
        labels[moves & (np.maximum(seen.plants, seen.water) < 0.5) & (seen.person < 0.4)] = FALLING
        labels[(seen.plants > 0.5) & ~sky] = PLANTS
        labels[(seen.water > 0.5) & ~sky] = WATER
        labels[sky & (change < 1.5)] = SKY
    elif texture == "vegetation":
        labels[apart & ((seen.plants > 0.4) | moves)] = PLANTS
    elif texture == "other":
        labels[(change > 3) & ~sky] = UNKNOWN


def label_still(
    picture: UInt8[np.ndarray, "s s 3"], seen: Seen, sort: str
) -> UInt8[np.ndarray, "s s"]:
    """Return the class of each pixel of a photograph.

    Args:
        picture: The photograph, at `KIND_SIZE`.
        seen: What the teachers see in it.
        sort: What it is of, such as "interior", "fire" or "beach_sea"; "snow" is
            snow that falls, "snow_ground" and "snow_mountain" snow that lies.
    """
    labels = np.full(picture.shape[:2], UNKNOWN, np.uint8)
    is_inside = sort in _INSIDE
    others = (seen.water < 0.3) & (seen.plants < 0.4)
    labels[(seen.sky < 0.3) & (seen.scene_sky < 0.3) & others] = STILL
    if is_inside:
        labels[seen.plants < 0.6] = STILL
    labels[(seen.water > 0.6) & (seen.sky < 0.3)] = WATER
    labels[(seen.plants > 0.6) & (seen.sky < 0.4)] = PLANTS
    if not is_inside:
        labels[(seen.sky > 0.6) & (seen.scene_sky > 0.25)] = SKY
    if sort in ("sky", "sunset"):
        labels[seen.sky > 0.6] = SKY
    if sort == "fire":
        warm = is_warm(picture) & (picture.max(-1) > 180)
        around = cv2.dilate(warm.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        labels[around] = UNKNOWN
        labels[warm] = FIRE
    labels[(seen.ground > 0.6) & (seen.sky < 0.85)] = STILL
    if sort in ("snow", "snow_ground", "snow_mountain"):  # which looks like water, or like sky
        labels[labels == WATER] = STILL
    if sort == "snow_ground":
        labels[(seen.scene_sky < 0.25) & (seen.plants < 0.4)] = STILL
    if sort in ("smoke_fog", "rain", "snow"):  # what seems still may be smoke, or behind drops
        labels[labels == STILL] = UNKNOWN
    if sort in ("waterfall", "lake_river", "beach_sea"):
        labels[(labels == STILL) & (seen.water > 0.15)] = UNKNOWN
    labels[(seen.person > 0.5) & (seen.sky < 0.5)] = STILL
    return labels


def is_warm(picture: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Return where a picture has the colours of fire."""
    r, g, b = picture.astype(np.float32).transpose(2, 0, 1)
    return np.asarray((r > 130) & (r > b + 40) & (r >= g - 5))


def square_picture(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """Return a picture at `KIND_SIZE`; the aspect ratio is not kept."""
    shape = (KIND_SIZE, KIND_SIZE)
    return np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), np.uint8)


def _square(values: NDArray[Any]) -> NDArray[np.float32]:
    shape = (KIND_SIZE, KIND_SIZE)
    return np.asarray(cv2.resize(values.astype(np.float32), shape), np.float32)


def _input(picture: NDArray[np.uint8], size: int) -> torch.Tensor:
    resized = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(resized.astype(np.float32) / 255).permute(2, 0, 1)[None]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("cinnema_teachers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's code
        raise UserError(f"{path} cannot be run ({error}): give other teachers") from error
    for name in ("Sky", "Ade"):
        if not hasattr(module, name):
            raise UserError(f"{path} defines no class {name}: give other teachers")
    return module
