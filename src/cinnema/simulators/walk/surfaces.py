"""Floors, walls and skies: random functions from the position on a surface to its colour."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cinnema.simulators.colours import draw_colour, draw_noise, from_hex, near_grey, pick

Plane: TypeAlias = NDArray[np.float32]
"""One or three numbers for each pixel."""

Colour: TypeAlias = NDArray[np.float64]

Paint: TypeAlias = Callable[[Plane, Plane], Plane]
"""Maps two coordinates of each pixel on a surface, in metres, to its colour."""

Painted: TypeAlias = tuple[Paint, Colour]
"""A floor or a sky, and its colour from a distance."""

_NOISE = 256  # height and width of a noise tile


class SurfaceNoise:
    """Periodic noise of mean 0 and standard deviation 1, with amplitude 1 / frequency^exponent.

    Args:
        rng: Source of randomness.
        exponent: Exponent of the amplitude.
    """

    def __init__(self, rng: np.random.Generator, *, exponent: float) -> None:
        self.tile = draw_noise(rng, size=_NOISE, roughness=3 - exponent).astype(np.float32)

    def __call__(self, x: Plane, y: Plane, tiles: float, *, stretch: float = 1.0) -> Plane:
        """Sample the noise.

        Args:
            x: First coordinates, in metres.
            y: Second coordinates, in metres.
            tiles: Periods per metre along x.
            stretch: Ratio of the period along y to that along x.
        """
        columns = np.asarray(x * np.float32(tiles * _NOISE) % _NOISE, dtype=np.float32)
        rows = np.asarray(y * np.float32(tiles * _NOISE / stretch) % _NOISE, dtype=np.float32)
        found = cv2.remap(self.tile, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(found, dtype=np.float32)


def planks(rng: np.random.Generator) -> Painted:
    """Draw a floor of boards."""
    base = from_hex(pick(rng, ("b58a5c", "8c6239", "d1b38a", "6a4a30", "a99880", "54402f")))
    wide, long, lies_across = rng.uniform(0.09, 0.22), rng.uniform(0.8, 1.8), rng.random() < 0.5
    tones = rng.normal(1.0, 0.09, (64, 64)).astype(np.float32)
    shift = rng.uniform(0, long, 64).astype(np.float32)
    grain = SurfaceNoise(rng, exponent=0.9)

    def paint(x: Plane, y: Plane) -> Plane:
        u, v = (y, x) if lies_across else (x, y)
        row = np.floor(u / wide).astype(np.int64)
        along = v + shift[row % 64]
        plank = np.floor(along / long).astype(np.int64)
        tone = tones[row % 64, plank % 64] + 0.05 * grain(u, along, 1.5, stretch=8)
        gap = (u / wide - row < 0.05) | (along / long - plank < 0.006)
        return np.asarray(base * np.where(gap, 0.6 * tone, tone)[..., None], dtype=np.float32)

    return paint, base


def tiles(rng: np.random.Generator) -> Painted:
    """Draw a floor of square tiles, of one colour or two."""
    first = draw_colour(rng, dull=0.8)
    second = draw_colour(rng, dull=0.8) if rng.random() < 0.4 else first
    side, tones = rng.uniform(0.22, 0.6), rng.normal(1.0, 0.03, (64, 64)).astype(np.float32)
    grout, noise = rng.uniform(0.55, 1.1), SurfaceNoise(rng, exponent=1.2)

    def paint(x: Plane, y: Plane) -> Plane:
        u, v = np.floor(x / side).astype(np.int64), np.floor(y / side).astype(np.int64)
        tone = tones[u % 64, v % 64] + 0.03 * noise(x, y, 0.6)
        colour = np.where(((u + v) % 2 == 0)[..., None], first, second)
        is_grout = (x / side - u < 0.04) | (y / side - v < 0.04)
        return np.asarray(colour * np.where(is_grout, grout, tone)[..., None], dtype=np.float32)

    return paint, np.asarray((first + second) / 2)


def _rough(
    rng: np.random.Generator, colour: Colour, *, fine: float, coarse: float, tiles: float
) -> Painted:
    """Return a surface of one colour with grain."""
    grains, patches = SurfaceNoise(rng, exponent=0.4), SurfaceNoise(rng, exponent=1.6)

    def paint(x: Plane, y: Plane) -> Plane:
        tone = 1 + fine * grains(x, y, tiles) + coarse * patches(x, y, 0.25)
        return np.asarray(colour * np.clip(tone, 0.4, 1.6)[..., None], dtype=np.float32)

    return paint, colour


def carpet(rng: np.random.Generator) -> Painted:
    """Draw a carpet of one dull colour."""
    return _rough(rng, draw_colour(rng, dull=0.6), fine=0.06, coarse=0.03, tiles=0.5)


def concrete(rng: np.random.Generator) -> Painted:
    """Draw grey ground with patches."""
    grey = near_grey(rng, rng.uniform(0.4, 0.75))
    return _rough(rng, grey, fine=0.04, coarse=0.07, tiles=0.4)


def grass(rng: np.random.Generator) -> Painted:
    """Draw a lawn."""
    green = from_hex(pick(rng, ("5b7a35", "6f8f3f", "4a6b34", "8a9550", "3f6030")))
    return _rough(rng, green, fine=0.13, coarse=0.08, tiles=0.35)


def sand(rng: np.random.Generator) -> Painted:
    """Draw a sandy ground."""
    sand = from_hex(pick(rng, ("d6bf94", "c7a877", "b08d63", "a9613f")))
    return _rough(rng, sand, fine=0.04, coarse=0.06, tiles=0.3)


def with_rug(rng: np.random.Generator, floor: Paint) -> Paint:
    """Add a round or rectangular rug to a floor."""
    field, border = draw_colour(rng, dull=0.6), draw_colour(rng, dull=0.6)
    middle, half = rng.normal(0, 0.2, 2).tolist(), rng.uniform(0.8, 1.5, 2).tolist()
    is_round, noise = rng.random() < 0.4, SurfaceNoise(rng, exponent=0.5)

    def paint(x: Plane, y: Plane) -> Plane:
        u, v = np.abs(x - middle[0]) / half[0], np.abs(y - middle[1]) / half[1]
        out = np.hypot(u, v) if is_round else np.maximum(u, v)
        pile = np.where((out < 0.86)[..., None], field, border)
        pile = pile * (1 + 0.05 * noise(x, y, 0.5))[..., None]
        return np.asarray(np.where((out < 1)[..., None], pile, floor(x, y)), dtype=np.float32)

    return paint


def plaster(rng: np.random.Generator) -> Paint:
    """Draw a plain wall."""
    paint, _ = _rough(rng, _draw_wall_colour(rng), fine=0.008, coarse=0.02, tiles=0.3)
    return paint


def striped(rng: np.random.Generator) -> Paint:
    """Draw striped wallpaper."""
    colour, noise = _draw_wall_colour(rng), SurfaceNoise(rng, exponent=1.5)
    wide, depth = rng.uniform(0.08, 0.3), rng.uniform(0.06, 0.25)

    def paint(x: Plane, z: Plane) -> Plane:
        tone = 1 - depth * (np.floor(x / wide) % 2) + 0.015 * noise(x, z, 0.3)
        return np.asarray(colour * tone[..., None], dtype=np.float32)

    return paint


def bricks(rng: np.random.Generator) -> Paint:
    """Draw a wall of bricks."""
    brick = from_hex(pick(rng, ("9c5a44", "b3765c", "8a4b3c", "c9bfb2", "7d7168", "e2ded8")))
    mortar, tones = rng.uniform(0.75, 1.25), rng.normal(1.0, 0.08, (64, 64)).astype(np.float32)
    high = rng.uniform(0.075, 0.14)

    def paint(x: Plane, z: Plane) -> Plane:
        row = np.floor(z / high).astype(np.int64)
        along = x / (3 * high) + 0.5 * (row % 2)
        number = np.floor(along).astype(np.int64)
        is_mortar = (z / high - row < 0.12) | (along - number < 0.045)
        tone = np.where(is_mortar, mortar, tones[row % 64, number % 64])
        return np.asarray(brick * tone[..., None], dtype=np.float32)

    return paint


def wainscot(rng: np.random.Generator) -> Paint:
    """Draw a wall with panels up to hip height."""
    upper, lower = _draw_wall_colour(rng), draw_colour(rng, dull=0.6)
    edge, wide = rng.uniform(0.8, 1.2), rng.uniform(0.1, 0.5)

    def paint(x: Plane, z: Plane) -> Plane:
        groove = np.where(x / wide - np.floor(x / wide) < 0.06, 0.8, 1.0)
        colour = np.where((z < edge)[..., None], lower * groove[..., None], upper)
        is_rail = np.abs(z - edge) < 0.03
        return np.asarray(np.where(is_rail[..., None], lower * 1.2, colour), dtype=np.float32)

    return paint


def with_skirting(rng: np.random.Generator, wall: Paint) -> Paint:
    """Add a skirting board to a wall."""
    board, high = near_grey(rng, pick(rng, (0.9, 0.3, 0.15))), rng.uniform(0.06, 0.14)

    def paint(x: Plane, z: Plane) -> Plane:
        return np.asarray(np.where((z < high)[..., None], board, wall(x, z)), dtype=np.float32)

    return paint


@dataclass(frozen=True)
class _Panel:
    """A framed rectangle on a wall, such as a picture, a window or a door."""

    left: float
    right: float
    low: float
    high: float
    frame: float
    frame_colour: Colour
    inside: Paint

    def over(self, wall: Paint) -> Paint:
        def paint(x: Plane, z: Plane) -> Plane:
            inner = np.minimum(
                np.minimum(x - self.left, self.right - x), np.minimum(z - self.low, self.high - z)
            )
            colours = np.where((inner > -self.frame)[..., None], self.frame_colour, wall(x, z))
            inside = self.inside(x - self.left, z - self.low)
            return np.asarray(np.where((inner > 0)[..., None], inside, colours), dtype=np.float32)

        return paint


def with_decor(rng: np.random.Generator, wall: Paint) -> Paint:
    """Add up to four random objects to a wall: pictures, windows, doors, shelves."""
    left = rng.uniform(-3.2, -1.6)
    for _ in range(int(rng.integers(0, 5))):
        make = pick(rng, (_picture, _picture, _window, _door, _cupboard))
        panel = make(rng, left)
        wall, left = panel.over(wall), panel.right + rng.uniform(0.25, 1.2)
    return wall


def _picture(rng: np.random.Generator, left: float) -> _Panel:
    wide, high, low = rng.uniform(0.3, 1.0), rng.uniform(0.3, 0.9), rng.uniform(1.1, 1.6)
    first, second = draw_colour(rng, dull=0.3), draw_colour(rng, dull=0.3)
    noise = SurfaceNoise(rng, exponent=1.8)

    def canvas(x: Plane, z: Plane) -> Plane:
        share = np.clip(0.5 + 0.6 * noise(x, z, 0.7), 0, 1)[..., None]
        return np.asarray(first * share + second * (1 - share), dtype=np.float32)

    frame = near_grey(rng, pick(rng, (0.08, 0.85, 0.35)))
    return _Panel(left, left + wide, low, low + high, rng.uniform(0.0, 0.05), frame, canvas)


def _window(rng: np.random.Generator, left: float) -> _Panel:
    wide, low = rng.uniform(0.8, 1.6), rng.uniform(0.7, 1.0)
    sky, _ = draw_sky(rng)
    cross = rng.uniform(0.4, 0.8)

    def view(x: Plane, z: Plane) -> Plane:
        outside = sky(x * np.float32(0.3), (z - 0.4) * np.float32(0.35)) * 1.1
        is_bar = (np.abs(x % cross) < 0.03) | (np.abs(z - 0.75) < 0.02)
        return np.asarray(np.where(is_bar[..., None], 0.85, outside), dtype=np.float32)

    return _Panel(left, left + wide, low, low + rng.uniform(1.1, 1.5), 0.07,
                  near_grey(rng, 0.88), view)  # fmt: skip


def _door(rng: np.random.Generator, left: float) -> _Panel:
    colour = draw_colour(rng, dull=0.7)

    def leaf(x: Plane, z: Plane) -> Plane:
        u, v = np.abs(x - 0.42), np.abs((z % 1.0) - 0.5)
        is_groove = (np.maximum(u / 0.28, v / 0.36) < 1) & (np.maximum(u / 0.24, v / 0.33) > 1)
        is_knob = np.hypot(x - 0.76, z - 1.0) < 0.035
        tone = np.where(is_groove, 0.8, 1.0)[..., None]
        return np.asarray(np.where(is_knob[..., None], 0.75, colour * tone), dtype=np.float32)

    return _Panel(left, left + 0.85, -0.1, 2.05, 0.07, near_grey(rng, 0.85), leaf)


def _cupboard(rng: np.random.Generator, left: float) -> _Panel:
    """Draw shelves with books."""
    wide, high, board = rng.uniform(0.6, 1.2), rng.uniform(1.0, 2.0), rng.uniform(0.28, 0.4)
    books = np.stack([draw_colour(rng, dull=0.4) for _ in range(256)])
    heights = rng.uniform(0.55, 0.92, 256).astype(np.float32)

    def shelves(x: Plane, z: Plane) -> Plane:
        row = np.floor(z / board).astype(np.int64)
        number = (np.floor(x / 0.05).astype(np.int64) + 37 * row) % 256
        up = z / board - row
        is_book = (up > 0.08) & (up < heights[number])
        back = np.where((up <= 0.08)[..., None], wood, wood * 0.45)
        return np.asarray(np.where(is_book[..., None], books[number], back), dtype=np.float32)

    wood = from_hex(pick(rng, ("a98258", "5b4433", "e4dfd6", "2e2a28")))
    return _Panel(left, left + wide, -0.1, high, 0.03, wood, shelves)


def with_windows(rng: np.random.Generator, wall: Paint) -> Paint:
    """Add rows of windows and a plinth to a wall."""
    pitch, wide, high = rng.uniform(1.3, 2.4), rng.uniform(0.6, 1.0), rng.uniform(1.0, 1.5)
    shift, low = rng.uniform(0, 2), rng.uniform(0.8, 1.2)
    glass, frame = from_hex("3a4652") * rng.uniform(0.7, 1.6), near_grey(rng, 0.85)
    plinth, storey = near_grey(rng, rng.uniform(0.3, 0.6)), 2.9

    def paint(x: Plane, z: Plane) -> Plane:
        u = np.abs((x + shift) % pitch - pitch / 2) - wide / 2
        v = np.abs((z - low) % storey - high / 2) - high / 2
        out = np.maximum(u, v)
        sheen = glass * (1 + 0.5 * ((x + z) % 0.9 < 0.3))[..., None]
        colours = np.where((z < 0.45)[..., None], plinth, wall(x, z))
        colours = np.where((out < 0.07)[..., None], frame, colours)
        is_glass = (out < 0) & (np.abs((x + shift) % pitch - pitch / 2) > 0.02)
        return np.asarray(np.where(is_glass[..., None], sheen, colours), dtype=np.float32)

    return paint


def draw_sky(rng: np.random.Generator) -> Painted:
    """Draw a sky with clouds over hills and trees, and the colour at the horizon."""
    zenith, horizon = pick(rng, (("4a7fc0", "c3d6e6"), ("8fa3b5", "d3d8dc"), ("6a9bd1", "e8e2d2"),
                                  ("9aa0a6", "c4c7c9"), ("5d78a8", "f0cfa8")))  # fmt: skip
    top, haze = from_hex(zenith), from_hex(horizon)
    clouds, leaves = SurfaceNoise(rng, exponent=1.8), SurfaceNoise(rng, exponent=0.9)
    ridge, trees = SurfaceNoise(rng, exponent=1.7), SurfaceNoise(rng, exponent=1.1)
    cover, hill, tree = rng.uniform(-0.5, 1.2), rng.uniform(0.02, 0.1), rng.uniform(-0.03, 0.14)
    far, near = (
        from_hex("7d93a3") * rng.uniform(0.8, 1.1),
        from_hex("41572f") * rng.uniform(0.7, 1.5),
    )

    def paint(azimuth: Plane, elevation: Plane) -> Plane:
        clear = haze + (top - haze) * np.clip(elevation / 0.6, 0, 1)[..., None] ** np.float32(0.7)
        puff = np.clip((clouds(azimuth, elevation, 0.35, stretch=0.5) - cover) * 0.5, 0, 0.8)
        colours = clear + (0.95 - clear) * puff[..., None]
        none = np.zeros_like(azimuth)
        is_hill = elevation < hill + 0.025 * ridge(azimuth, none, 0.3)
        colours = np.where(is_hill[..., None], far * 0.6 + haze * 0.4, colours)
        is_tree = elevation < tree + 0.03 * trees(azimuth, none, 0.4)
        foliage = near * (1 + 0.22 * leaves(azimuth, elevation, 0.8))[..., None]
        return np.asarray(np.where(is_tree[..., None], foliage, colours), dtype=np.float32)

    return paint, haze


def _draw_wall_colour(rng: np.random.Generator) -> Colour:
    """Draw a colour that is mostly light and pale."""
    if rng.random() < 0.7:
        return draw_colour(rng, dull=0.8, darkest=0.65)
    return draw_colour(rng, dull=0.5)
