"""What is drawn into labelled pictures: what moves, and what is easily taken for it.

Rain and snow, flames and smoke; hills in haze, snow on the ground, rocks in water and animals among
plants. Each function takes a square picture and the class of each pixel, and returns both changed.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

UNKNOWN = 255
"""Index of pixels whose class is not known."""

STILL = 0
"""Class of pixels that stand still."""

Picture = NDArray[np.uint8]
"""RGB, height and width alike; or the class of each of its pixels."""

_SNOW = np.array([235.0, 238.0, 245.0])
# Share of hills under snow, of those that are behind all but the sky, and of those whose foot is
# lost in mist; how much of a hill must be seen.
_SNOWY, _BEHIND, _MISTY, _CLEAR = 0.25, 0.5, 0.3, 0.3
# Brightness from which a flame is perhaps, and surely, seen; the same for the share of smoke, and
# the change from which smoke is seen.
_FAINT, _BRIGHT = 25, 60
_THIN, _DENSE, _SEEN = 0.08, 0.5, 15
# Share of snow that lies in patches.
_PATCHY = 0.5


def with_drops(x: Picture, rng: np.random.Generator) -> Picture:
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


def with_flame(
    x: Picture,
    y: Picture,
    flame: Picture,
    fire: int,
    rng: np.random.Generator,
) -> tuple[Picture, Picture]:
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


def with_hills(
    x: Picture,
    y: Picture,
    texture: Picture,
    rng: np.random.Generator,
    *,
    sky: int,
) -> tuple[Picture, Picture]:
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


def under_snow(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    """Lay snow on what stands still, which is easily taken for water then.

    It lies as a whole, thinner on what is dark, or in patches, so that dark ground shows between.
    """
    size = len(x)
    ground = cv2.GaussianBlur((y == STILL).astype(np.float32), (0, 0), 1.5)[..., None]
    grey = x.mean(-1, keepdims=True)
    cover, depth = 0.4 + 0.6 * grey / 255, rng.uniform(0.6, 0.95)
    relief = 1 + rng.uniform(0.1, 0.6) * (grey - grey.mean()) / 128
    if rng.random() < _PATCHY:
        stretch = rng.uniform(0.25, 1)
        patches = noise(size, rng, stretch=stretch)[..., None] - rng.uniform(0.2, 0.5)
        cover, depth = 1 / (1 + np.exp(-patches * rng.uniform(8, 40))), rng.uniform(0.85, 0.98)
        heaps = noise(size, rng, stretch=stretch)[..., None] - 0.5
        relief = relief + rng.uniform(0, 0.5) * heaps
    light = rng.uniform(0.5, 1) * (1 + rng.normal(0, 0.03, 3))
    white = (_SNOW * light * relief).clip(0, 255)
    share = ground * depth * cover
    return np.asarray((x * (1 - share) + white * share).clip(0, 255), np.uint8)


def with_snow_field(
    x: Picture, y: Picture, rng: np.random.Generator, *, sky: int
) -> tuple[Picture, Picture]:
    """Cover the ground below the horizon with snow, in heaps and with bare patches.

    Things that stand still and rise over the horizon, or some of them, stay.

    Args:
        x: The picture.
        y: Its classes.
        rng: Source of randomness.
        sky: Class of the sky, which is left as it is.
    """
    size = len(x)
    horizon = int(np.flatnonzero((y == sky).mean(1) > 0.5).max(initial=0)) + 1
    depth = (np.arange(size)[:, None] - horizon).clip(0) / size
    near = np.clip(depth * 4, 0.15, 1)
    stretch = rng.uniform(0.2, 0.8)
    heaps = noise(size, rng, stretch=stretch) + rng.uniform(0, 0.3) * noise(size, rng)
    heaps = heaps + rng.uniform(0, 0.08) * rng.random((size, size))
    slope = rng.normal(0, 1) * np.gradient(heaps, axis=1) + np.gradient(heaps, axis=0)
    slope = cv2.GaussianBlur(slope, (0, 0), 0.8)
    shade = 1 + rng.uniform(0.05, 0.35) * (slope / (np.abs(slope).mean() + 1e-6)) * near
    light = rng.uniform(0.6, 1) * (1 + rng.normal(0, 0.03, 3))
    white = _SNOW * light * shade.clip(0.3, 1.3)[..., None]
    is_bare = noise(size, rng, stretch=stretch) < rng.uniform(-0.2, 0.35)
    bare = cv2.GaussianBlur(is_bare.astype(np.float32), (0, 0), 1.5)[..., None]
    ground = white * (1 - bare) + rng.uniform(20, 110) * (0.7 + 0.6 * shade[..., None]) / 2 * bare
    free = (depth > 0) & (y != sky)
    if rng.random() < _PATCHY:
        free &= y != STILL
    share = cv2.GaussianBlur(free.astype(np.float32), (0, 0), 1.0)[..., None]
    out = x * (1 - share) + ground * share
    return np.asarray(out.clip(0, 255), np.uint8), np.where(free, np.uint8(STILL), y)


def with_smoke(
    x: Picture, y: Picture, fire: int, rng: np.random.Generator
) -> tuple[Picture, Picture]:
    """Let a plume of smoke rise from a place in the picture.

    Args:
        x: The picture.
        y: Its classes.
        fire: Class of fire and smoke.
        rng: Source of randomness.
    """
    size = len(x)
    down, across = np.mgrid[:size, :size] / size
    height = rng.uniform(0.35, 1.1) - down
    width = rng.uniform(0.02, 0.12) + rng.uniform(0.15, 0.7) * height.clip(0)
    axis = rng.uniform(0.1, 0.9) + rng.normal(0, 0.4) * height
    off = (across - axis) / width + rng.uniform(0.5, 3) * (noise(size, rng) - 0.5)
    share = np.exp(-2 * off**2) * np.exp(-height.clip(0) / rng.uniform(0.3, 2))
    share = (share * rng.uniform(0.8, 2) * (0.4 + noise(size, rng))).clip(0, rng.uniform(0.6, 1))
    share = cv2.GaussianBlur(np.where(height > 0, share, 0), (0, 0), 2.0)
    shade = 0.6 + 0.7 * noise(size, rng)[..., None]
    colour = rng.uniform(25, 235) * (1 + rng.normal(0, 0.04, 3)) * shade
    out = x * (1 - share[..., None]) + colour * share[..., None]
    is_seen = cv2.GaussianBlur(np.abs(out - x).mean(-1), (0, 0), size / 60) > _SEEN
    y = np.where(share > _THIN, np.uint8(UNKNOWN), y)
    y = np.where((share > _DENSE) & is_seen, np.uint8(fire), y)
    return np.asarray(out.clip(0, 255), np.uint8), y


def with_things(
    x: Picture,
    y: Picture,
    thing: Picture,
    shape: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    *,
    among: tuple[int, ...],
) -> tuple[Picture, Picture]:
    """Set a few solid things among water or plants: rocks, or what was cut out, such as animals.

    Those further down in the picture are larger. Their foot and their rim are unknown.

    Args:
        x: The picture.
        y: Its classes.
        thing: A picture of the thing, or of the rock's texture.
        shape: Where the thing is in its picture; None draws the shape of a rock.
        rng: Source of randomness.
        among: Classes among which the things are set.
    """
    size, out, labels = len(x), x.astype(np.float32), y.copy()
    places = np.argwhere(np.isin(y, among))
    if shape is None:  # rocks are darker and have less colour than most of what stands still
        colour = rng.uniform(0.1, 0.6)
        grey = thing.mean(-1, keepdims=True) * (1 - colour)
        thing = ((thing * colour + grey) * rng.uniform(0.3, 0.9)).astype(np.uint8)
    for _ in range(int(rng.integers(1, 5)) if len(places) else 0):
        foot, middle = (int(place) for place in places[rng.integers(len(places))])
        high = int(size * rng.uniform(0.04, 0.4) * (0.3 + foot / size)) + 4
        wide = int(high * (rng.uniform(0.7, 1.4) if shape is not None else rng.uniform(0.8, 5)))
        own = _rock(size, rng) if shape is None else shape
        _set_down(out, labels, thing, own, place=(foot, middle, high, wide), rng=rng)
    return np.asarray(out.clip(0, 255), np.uint8), labels


def _set_down(
    out: NDArray[np.float32],
    labels: Picture,
    thing: Picture,
    shape: NDArray[np.bool_],
    *,
    place: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> None:
    """Set a thing into a picture and its classes: row of its foot, middle column, height, width."""
    foot, middle, high, wide = place
    share = cv2.resize(shape.astype(np.float32), (wide, high), interpolation=cv2.INTER_AREA)
    small = cv2.resize(thing, (wide, high), interpolation=cv2.INTER_AREA).astype(np.float32)
    top, left = foot - high, middle - wide // 2
    rows, columns = slice(max(0, top), foot), slice(max(0, left), min(len(out), left + wide))
    inside = slice(rows.start - top, high), slice(columns.start - left, columns.stop - left)
    share, small = share[inside], small[inside]
    if not share.size or share.max() == 0:
        return
    around = out[rows, columns].mean() / max(1.0, float(small[share > 0].mean()))
    lit = small * around ** rng.uniform(0, 0.9)
    sunk = np.arange(len(share))[::-1, None] < rng.uniform(0, 0.15) * high
    blend = (share * np.where(sunk, rng.uniform(0.3, 1), 1))[..., None]
    out[rows, columns] = out[rows, columns] * (1 - blend) + lit * blend
    labels[rows, columns][share > 0.1] = UNKNOWN
    labels[rows, columns][(share > 0.6) & ~sunk] = STILL


def noise(size: int, rng: np.random.Generator, *, stretch: float = 1.0) -> NDArray[np.float64]:
    """Draw a cloudy picture from 0 to 1, coarse structure stronger than fine.

    Args:
        size: Its height and width.
        rng: Source of randomness.
        stretch: Height of the structure over its width.
    """
    out = np.zeros((size, size))
    for cells in (3, 6, 12, 24, 48):
        across = max(2, round(cells * stretch))
        coarse = rng.random((cells, across))
        out += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) / cells
    return np.asarray((out - out.min()) / (out.max() - out.min()))


def _rock(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw the outline of a rock whose foot is level, over the whole of a square."""
    across = np.linspace(-1, 1, size)
    outline = (1 - np.abs(across) ** rng.uniform(1.2, 4)) * (0.5 + noise(size, rng)[0])
    height = outline / outline.max()
    return np.asarray(np.arange(size)[::-1, None] < height * size)


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
