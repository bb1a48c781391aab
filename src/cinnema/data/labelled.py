"""Photographs with a class for each pixel: the folder that holds them, and training batches.

A folder of labelled pictures holds, at any depth,

    clips/clouds/sea_at_dawn@120.jpg        a picture; "@..." tells pictures of one scene apart
    clips/clouds/sea_at_dawn@120.kinds.png  its classes, of the same scene: indices, 255 unknown
    groups.json                             optional: weights of groups, and held-out scenes

The sub-folder is the picture's group. `groups.json` is an object
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
from cinnema.data.sources.splits import split_by_name
from cinnema.media.pictures import to_tensor

UNKNOWN = 255
"""Index of pixels whose class is not known."""

LABEL_SUFFIX = ".kinds.png"
"""Ending of the file with a picture's classes, in place of ".jpg"."""

GROUPS_FILE = "groups.json"
"""File with the weights of groups and the held-out scenes."""

_HELD_OUT = 0.2
_PICTURE = 1  # label of a picture's random stream

# Augmentation: smallest crop, share of whole pictures, of pictures with rain or snow, of pictures
# with a flame, of pictures at low resolution and of pictures with less colour.
_HILLY, _SNOWY = 0.45, 0.25
# Share of hills that are behind all but the sky, and of those whose foot is lost in mist; how much
# of a hill must be seen; share of pictures of solid things with snow on them.
_BEHIND, _MISTY, _CLEAR, _WHITE = 0.5, 0.3, 0.3, 0.12
_SNOW = np.array([235.0, 238.0, 245.0])
STILL = 0
"""Class of pixels that stand still."""
# Share of sky above which a picture may get hills, and share of still pixels of their texture.
_OPEN, _SOLID = 0.4, 0.4
_SMALLEST, _WHOLE, _FALLING, _BURNING, _COARSE, _PALE = 0.5, 0.25, 0.06, 0.07, 0.4, 0.15
# Smallest share of fire in a picture whose fire is laid over others, and brightness from which a
# flame is perhaps, and surely, seen.
_FLAMES, _FAINT, _BRIGHT = 0.2, 25, 60


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
    over some without fire, the flames of another picture are laid; and before some skies rise hazy
    or snowy hills with the texture of a picture that stands still, which are easily taken for
    clouds. On some things that stand still lies snow.

    Args:
        pictures: The pictures.
        batch_size: Pictures a batch.
        falling: Class of rain and snow in front of a scene; None draws none.
        fire: Class of fire, which glows over what is behind it, and is told by its colour: pictures
            with it keep their saturation. None lays no flames.
        sky: Class of the sky; None draws no hills.
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
        seed: int = 0,
    ) -> None:
        self._pictures, self._falling, self._fire, self._sky = pictures, falling, fire, sky
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
        if skies > _OPEN and len(self._solid) and rng.random() < _HILLY:
            texture = self._pictures.pictures[rng.choice(self._solid)]
            x, y = _with_hills(x, y, texture, rng, sky=self._sky or 0)
        elif (y == STILL).mean() > _SOLID and rng.random() < _WHITE:
            x = _under_snow(x, y, rng)
        if falling is not None and falling not in y and rng.random() < _FALLING:
            x, y = _with_drops(x, rng), np.where(y == UNKNOWN, y, np.uint8(falling))
        if fire is not None and fire not in y and len(self._flames) and rng.random() < _BURNING:
            flame = self._pictures.pictures[rng.choice(self._flames)]
            x, y = _with_flame(x, y, flame, fire, rng)
        pale = 0.0 if fire is not None and fire in y else _PALE
        x = _recoloured(_coarsened(x, rng), rng, pale=pale)
        return x, y, self._pictures.names[index]


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
    if not out.any():
        raise UserError("all groups of pictures have weight 0: give one a positive weight")
    return out


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


def _with_drops(x: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw rain or snow, and the haze behind it."""
    size, is_rain, slant = len(x), rng.random() < 0.5, rng.normal(0, 0.25)
    layer = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(60, 500))):
        place, bright = rng.integers(0, size, 2), float(rng.uniform(0.3, 1))
        if is_rain:
            length = rng.integers(4, 24)
            end = place + length * np.array([np.sin(slant), np.cos(slant)])
            start, stop = place.tolist(), end.astype(int).tolist()
            cv2.line(layer, start, stop, bright, 1, cv2.LINE_AA)
        else:
            radius = max(1, int(rng.gamma(2, 0.5)))
            cv2.circle(layer, place.tolist(), radius, bright, -1, cv2.LINE_AA)
    layer = cv2.GaussianBlur(layer, (0, 0), float(rng.uniform(0.5, 1.2))).astype(np.float32)
    share = layer[..., None] * rng.uniform(0.4, 0.9)
    haze = rng.uniform(0, 0.35)
    hazy = x * (1 - haze) + 190 * haze
    return np.asarray((hazy * (1 - share) + 235 * share).clip(0, 255), np.uint8)


def _with_flame(
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    flame: NDArray[np.uint8],
    fire: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Lay a picture of fire over another as light, at a random place and size."""
    size, side = len(x), int(len(x) * rng.uniform(0.2, 0.86))
    ramp = np.minimum(np.arange(side), np.arange(side)[::-1]) / (0.12 * side)
    edge = np.minimum(1, np.minimum.outer(ramp, ramp))[..., None]
    small = cv2.resize(flame, (side, side)) * edge
    place = rng.integers(-side // 4, size - side // 2, 2)
    shift = np.array([[1, 0, place[0]], [0, 1, place[1]]], np.float32)
    light = cv2.warpAffine(small.astype(np.float32), shift, (size, size))
    seen = cv2.GaussianBlur(light.max(-1), (0, 0), 3.0)
    lit = 255 - (255 - x * rng.uniform(0.25, 1)) * (255 - light) / 255
    y = np.where(seen > _FAINT, np.uint8(UNKNOWN), y)
    y = np.where(seen > _BRIGHT, np.uint8(fire), y)
    return np.asarray(lit.clip(0, 255), np.uint8), y


def _with_hills(
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    texture: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    sky: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Let one to three ridges of hills rise in haze of the sky's colour, or under snow.

    Half of the time they rise behind all that is not sky, like a headland at the horizon.
    """
    size = len(x)
    out, labels = x.astype(np.float32), y.copy()
    is_behind = rng.random() < _BEHIND
    free = y == sky if is_behind else np.ones(y.shape, bool)
    horizon = np.flatnonzero((y == sky).mean(1) > 0.5).max(initial=0) + 1
    foot = rng.uniform(0.35, 0.85) * size
    if is_behind:
        foot = horizon - rng.uniform(0, 0.15) * size
    for _ in range(int(rng.integers(1, 4))):
        ridge = foot + _ridge(size, rng) * (rng.uniform(0.1, 0.7) if is_behind else 1)
        below = np.arange(size)[:, None] - ridge
        behind = out[max(0, int(foot) - size // 10) : max(1, int(foot))].reshape(-1, 3).mean(0)
        colour, haze = behind * rng.uniform(0.55, 1), rng.uniform(0.3, 0.93)
        if rng.random() < _SNOWY:
            colour, haze = _SNOW * rng.uniform(0.7, 1), rng.uniform(0.6, 0.9)
        drawn = texture * (1 - haze) + colour * haze
        share = np.where(free, below >= 0, 0).astype(np.float32)
        share = np.asarray(cv2.GaussianBlur(share, (0, 0), float(rng.uniform(0.4, 1.5))))
        if rng.random() < _MISTY:  # the hill's foot is lost in mist
            share = share * np.exp(-below.clip(0) / (rng.uniform(0.05, 0.3) * size))
        out = out * (1 - share[..., None]) + drawn * share[..., None]
        seen = free & (below >= 0)
        labels[seen] = np.where(share[seen] > _CLEAR, STILL, UNKNOWN)
        foot += rng.uniform(0.05, 0.25) * size
        if foot > size:
            break
    return np.asarray(out.clip(0, 255), np.uint8), labels


def _ridge(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the height of a ridge over its width, in pixels around 0."""
    across = np.arange(size) / size
    waves = [
        rng.normal()
        / k ** rng.uniform(1.0, 1.6)
        * np.sin(2 * np.pi * k * rng.uniform(0.4, 0.9) * across + rng.uniform(0, 7))
        for k in range(1, 7)
    ]
    return np.asarray(np.sum(waves, axis=0) * rng.uniform(0.016, 0.1) * size)


def _under_snow(
    x: NDArray[np.uint8], y: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Lay snow on what stands still, which is easily taken for water then."""
    ground = cv2.GaussianBlur((y == STILL).astype(np.float32), (0, 0), 1.5)[..., None]
    grey = x.mean(-1, keepdims=True)
    relief = 1 + rng.uniform(0.2, 0.6) * (grey - grey.mean()) / 128
    white = (_SNOW * rng.uniform(0.6, 1) * relief).clip(0, 255)
    share = ground * rng.uniform(0.6, 0.95) * (0.4 + 0.6 * grey / 255)
    return np.asarray((x * (1 - share) + white * share).clip(0, 255), np.uint8)


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
