"""Photographs with a class for each pixel: the folder that holds them, and training batches.

A folder of labelled pictures holds, at any depth,

    clips/clouds/sea_at_dawn@120.jpg        a picture; "@..." tells pictures of one scene apart
    clips/clouds/sea_at_dawn@120.kinds.png  its classes, of the same scene: indices, 255 unknown
    groups.json                             optional: weights of groups, and held-out scenes
    cutouts/animals/deer.jpg, .kinds.png    a thing that was cut out: 0 on it, 255 around it

The sub-folder is the picture's group. What is in "cutouts" is no picture to train on: it is set
among the water and the plants of others. `groups.json` is an object
{"weights": {"clips/clouds": 5.0}, "validation": ["sea_at_dawn"]}; a group without a weight has 1,
and without a list of validation scenes a fifth of the scenes is held out, by a hash of their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.core.randomness import NumberedStreams
from cinnema.data.drawn import (
    STILL,
    UNKNOWN,
    under_snow,
    with_drops,
    with_flame,
    with_hills,
    with_smoke,
    with_snow_field,
    with_things,
)
from cinnema.data.sources.splits import split_by_name
from cinnema.media.pictures import to_tensor

LABEL_SUFFIX = ".kinds.png"
"""Ending of the file with a picture's classes, in place of ".jpg"."""

GROUPS_FILE = "groups.json"
"""File with the weights of groups and the held-out scenes."""

_HELD_OUT = 0.2
_PICTURE = 1  # label of a picture's random stream

CUTOUTS = "cutouts"
"""Folder of things that were cut out, such as animals: still, and unknown around them."""

# Augmentation: smallest crop; shares of whole pictures, of skies with hills, of solid pictures with
# snow on them, of pictures with rain or snow, with a flame, with smoke, with things in water or
# among plants, at low resolution and with less colour.
_SMALLEST, _WHOLE, _HILLY, _WHITE, _FALLING, _BURNING = 0.5, 0.25, 0.45, 0.2, 0.06, 0.07
_SMOKY, _STREWN, _COARSE, _PALE = 0.02, 0.3, 0.4, 0.15
# Share of sky above which a picture may get hills, share of still pixels of their texture, share of
# water and plants above which things are set among them, and how many of these were cut out.
_OPEN, _SOLID, _SURFACE, _CUT = 0.4, 0.4, 0.15, 0.6
# Smallest share of fire in a picture whose fire is laid over others.
_FLAMES = 0.2
# Share of sky above which a picture may get ground under snow, and share of those that do.
_WINTRY, _FIELDS = 0.1, 0.2


@dataclass(frozen=True)
class LabelledPictures:
    """The pictures of a folder, in memory at one size.

    Attributes:
        names: Path of each picture below the folder, without its suffix.
        pictures: RGB, resized to a square.
        labels: Class of each pixel; `UNKNOWN` where it is not known.
        weights: Weight of each picture in training: that of its group, divided by the number of
            the group's training pictures; 0 for held-out ones.
        held_out: Whether the picture is for validation.
    """

    names: tuple[str, ...]
    pictures: UInt8[np.ndarray, "n s s 3"]
    labels: UInt8[np.ndarray, "n s s"]
    weights: Float32[np.ndarray, " n"]
    held_out: NDArray[np.bool_]

    @classmethod
    def open(cls, folder: Path, *, size: int, num_classes: int) -> "LabelledPictures":
        """Read a folder of labelled pictures.

        Args:
            folder: The folder.
            size: Width and height to which pictures and labels are resized.
            num_classes: Number of classes.

        Raises:
            UserError: There is no labelled picture, a file cannot be read, a label is not a
                class, or no picture is left for training or validation.
        """
        paths = sorted(folder.rglob(f"*{LABEL_SUFFIX}"))
        if not paths:
            raise UserError(
                f"{folder} contains no labelled pictures (name.jpg and name{LABEL_SUFFIX}): make "
                "them with `cinnema data label`"
            )
        names = tuple(str(path.relative_to(folder))[: -len(LABEL_SUFFIX)] for path in paths)
        weights, validation = _read_groups(folder, names)
        held_out = np.array([scene_of(name) in validation for name in names])
        _require_both(folder, held_out)
        return cls(
            names=names,
            pictures=np.stack([_read_picture(folder / f"{name}.jpg", size) for name in names]),
            labels=np.stack([_read_labels(path, size, num_classes) for path in paths]),
            weights=_picture_weights(names, weights, held_out),
            held_out=held_out,
        )


@dataclass(frozen=True)
class LabelledBatch:
    """Augmented pictures with their classes.

    Attributes:
        x: Pictures in [-1, 1].
        labels: Class of each pixel; `UNKNOWN` where it is not known.
        names: Names of the pictures.
    """

    x: Float[Tensor, "b 3 s s"]
    labels: Int64[Tensor, "b s s"]
    names: tuple[str, ...]


class LabelledBatches:
    """Endless batches of augmented training pictures; each depends on the seed and its number.

    Pictures are drawn by their weight, mirrored, cropped, and changed in colour and resolution.
    Into some that show none, rain or snow is drawn, and their known pixels get the class `falling`;
    over some without fire, the flames of another picture or smoke are laid. Before some skies rise
    hazy or snowy hills with the texture of a picture that stands still, which are easily taken for
    clouds, or the ground below them is covered with snow. On some things that stand still lies
    snow, and among some water and plants are rocks and what was cut out (`CUTOUTS`).

    Args:
        pictures: The pictures.
        batch_size: Pictures a batch.
        falling: Class of rain and snow in front of a scene; None draws none.
        fire: Class of fire, which glows over what is behind it, and is told by its colour: pictures
            with it keep their saturation. None lays no flames.
        sky: Class of the sky; None draws no hills.
        among: Classes among which solid things are set: those of water and plants.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        pictures: LabelledPictures,
        *,
        batch_size: int,
        falling: int | None = None,
        fire: int | None = None,
        sky: int | None = None,
        among: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        self._pictures, self._falling, self._fire, self._sky = pictures, falling, fire, sky
        self._among = among
        self._cutouts = np.flatnonzero(_are_cutouts(pictures.names) & ~pictures.held_out)
        solid = (pictures.labels == STILL).mean((1, 2)) > _SOLID
        self._solid = np.flatnonzero(solid & (pictures.weights > 0))
        self._size = batch_size
        shares = (pictures.labels == (UNKNOWN if fire is None else fire)).mean((1, 2))
        burning = (shares > _FLAMES) & (pictures.weights > 0) & (fire is not None)
        self._flames = np.flatnonzero(burning)
        self._chances = np.cumsum(pictures.weights, dtype=np.float64)
        self._streams = NumberedStreams(seed)
        self._next = 0

    def __next__(self) -> LabelledBatch:
        """Return the next batch."""
        numbers = range(self._next, self._next + self._size)
        self._next += self._size
        drawn = [self._draw(number) for number in numbers]
        return LabelledBatch(
            to_tensor(np.stack([x for x, _, _ in drawn])),
            torch.from_numpy(np.stack([y for _, y, _ in drawn])).long(),
            tuple(name for _, _, name in drawn),
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state["clips"]` pictures have been handed out."""
        self._next = state["clips"]

    def names(self, batch: LabelledBatch) -> Sequence[str]:
        """Return the names of a batch's pictures."""
        return batch.names

    def close(self) -> None:
        """Do nothing: no process prepares these batches."""

    def _draw(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], str]:
        rng = self._streams.of(_PICTURE, number)
        chance = rng.random() * self._chances[-1]
        index = int(np.searchsorted(self._chances, chance, side="right"))
        x, y = _cropped(self._pictures.pictures[index], self._pictures.labels[index], rng)
        falling, fire = self._falling, self._fire
        skies = 0.0 if self._sky is None else (y == self._sky).mean()
        if skies > _WINTRY and rng.random() < _FIELDS:
            x, y = with_snow_field(x, y, rng, sky=self._sky or 0)
        elif skies > _OPEN and len(self._solid) and rng.random() < _HILLY:
            texture = self._pictures.pictures[rng.choice(self._solid)]
            x, y = with_hills(x, y, texture, rng, sky=self._sky or 0)
        elif (y == STILL).mean() > _SOLID and rng.random() < _WHITE:
            x = under_snow(x, y, rng)
        if np.isin(y, self._among).mean() > _SURFACE and rng.random() < _STREWN:
            x, y = self._with_things(x, y, rng)
        if falling is not None and falling not in y and rng.random() < _FALLING:
            x, y = with_drops(x, rng), np.where(y == UNKNOWN, y, np.uint8(falling))
        if fire is not None and fire not in y and rng.random() < _SMOKY:
            x, y = with_smoke(x, y, fire, rng)
        elif fire is not None and fire not in y and len(self._flames) and rng.random() < _BURNING:
            flame = self._pictures.pictures[rng.choice(self._flames)]
            x, y = with_flame(x, y, flame, fire, rng)
        pale = 0.0 if fire is not None and fire in y else _PALE
        x = _recoloured(_coarsened(x, rng), rng, pale=pale)
        return x, y, self._pictures.names[index]

    def _with_things(
        self, x: NDArray[np.uint8], y: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Set rocks or things that were cut out among water and plants, if there are any."""
        is_cut = rng.random() < _CUT
        choice = self._cutouts if is_cut else self._solid
        if not len(choice):
            return x, y
        index = rng.choice(choice)
        shape = self._pictures.labels[index] == STILL if is_cut else None
        return with_things(x, y, self._pictures.pictures[index], shape, rng, among=self._among)


def scene_of(name: str) -> str:
    """Return the scene of a picture: its file name, without what follows "@"."""
    return Path(name).name.partition("@")[0]


def save_labelled(
    folder: Path, name: str, picture: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"]
) -> None:
    """Write a picture and its classes.

    Args:
        folder: Folder of labelled pictures; missing folders are created.
        name: Group and name of the picture, such as "clips/clouds/sea@0".
        picture: RGB.
        labels: Class of each pixel, or `UNKNOWN`.
    """
    place = folder / f"{name}.jpg"
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(place, overwrite=True) as part:
        Image.fromarray(picture).save(part, "JPEG", quality=93)
    with atomic_path(folder / f"{name}{LABEL_SUFFIX}", overwrite=True) as part:
        Image.fromarray(labels).save(part, "PNG")


def _read_groups(folder: Path, names: Sequence[str]) -> tuple[dict[str, float], set[str]]:
    path, scenes = folder / GROUPS_FILE, {scene_of(name) for name in names}
    values: Any = {}
    if path.exists():
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
            weights = {str(k): float(v) for k, v in values.get("weights", {}).items()}
            listed = values.get("validation")
        except (ValueError, AttributeError, TypeError) as error:
            raise UserError(
                f"{path} must be an object with weights of groups and a list of validation scenes "
                f"({error}): repair it"
            ) from error
    else:
        weights, listed = {}, None
    groups = {str(Path(name).parent) for name in names}
    if unknown := sorted(set(weights) - groups):
        raise UserError(
            f"{path}: there is no group {unknown[0]!r}: use one of {', '.join(sorted(groups))}"
        )
    if any(not weight >= 0 for weight in weights.values()):
        raise UserError(f"{path}: weights must be at least 0: correct them")
    if listed is None:
        splits = split_by_name(scenes, validation=_HELD_OUT, test=0.0)
        return weights, {scene for scene, split in splits.items() if split == "validation"}
    return weights, set(listed)


def _require_both(folder: Path, held_out: NDArray[np.bool_]) -> None:
    if held_out.all() or not held_out.any():
        side = "training" if held_out.all() else "validation"
        raise UserError(
            f"{folder}: no picture is left for {side}: give more scenes, or name other ones under "
            f'"validation" in {GROUPS_FILE}'
        )


def _picture_weights(
    names: Sequence[str], weights: dict[str, float], held_out: NDArray[np.bool_]
) -> NDArray[np.float32]:
    groups = np.array([str(Path(name).parent) for name in names])
    out = np.zeros(len(names), np.float32)
    for group in set(groups.tolist()):
        used = (groups == group) & ~held_out
        out[used] = weights.get(group, 1.0) / max(1, used.sum())
    out[_are_cutouts(names)] = 0
    if not out.any():
        raise UserError("all groups of pictures have weight 0: give one a positive weight")
    return out


def _are_cutouts(names: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([Path(name).parts[0] == CUTOUTS for name in names])


def _read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error}): repair it or remove its labels"
        ) from None
    return np.asarray(cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _read_labels(path: Path, size: int, num_classes: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            labels = np.asarray(image)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): make it again") from None
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UserError(f"{path}: labels must be a picture of one channel and 8 bits: convert it")
    wrong = np.setdiff1d(labels, [*range(num_classes), UNKNOWN])
    if len(wrong):
        raise UserError(
            f"{path}: labels must be 0 to {num_classes - 1}, or {UNKNOWN} for unknown, got "
            f"{wrong[0]}: correct them"
        )
    resized = cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def _cropped(
    x: NDArray[np.uint8], y: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    size = len(x)
    side = size if rng.random() < _WHOLE else int(size * rng.uniform(_SMALLEST, 1))
    top, left = rng.integers(0, size - side + 1, 2)
    x, y = (a[top : top + side, left : left + side] for a in (x, y))
    if rng.random() < 0.5:
        x, y = x[:, ::-1], y[:, ::-1]
    shape = (size, size)
    return (
        np.asarray(cv2.resize(np.ascontiguousarray(x), shape), np.uint8),
        np.asarray(
            cv2.resize(np.ascontiguousarray(y), shape, interpolation=cv2.INTER_NEAREST), np.uint8
        ),
    )


def _coarsened(x: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lower the resolution of some pictures."""
    if rng.random() >= _COARSE:
        return x
    size, side = len(x), int(len(x) * rng.uniform(0.375, 0.78))
    coarse = cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(coarse, (size, size)), np.uint8)


def _recoloured(
    x: NDArray[np.uint8], rng: np.random.Generator, *, pale: float
) -> NDArray[np.uint8]:
    """Change gamma, colour balance, exposure and saturation, and add noise."""
    y = (x.astype(np.float32) / 255) ** float(np.exp(rng.normal(0, 0.25)))
    y = y * rng.normal(1, 0.1, (1, 1, 3)) * np.exp(rng.normal(0, 0.15))
    if rng.random() < pale:
        grey = rng.uniform(0.3, 1)
        y = y * (1 - grey) + y.mean(-1, keepdims=True) * grey
    y = y + rng.normal(0, 0.01, y.shape)
    return np.asarray((255 * y.clip(0, 1)).round(), np.uint8)
