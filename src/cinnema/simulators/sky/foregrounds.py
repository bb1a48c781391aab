"""Static foregrounds of skies: ridges, meadows, towns, rocks, lakes, or crops of photographs.

Coordinates are (x, y) in [0, 1]^2, x to the right and y downwards.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.media.formats import pictures_in
from cinnema.media.pictures import read_photograph
from cinnema.simulators.sky.tiles import Draws, blur_levels, blur_of, pixel_centres, sample_tile

# Columns of a skyline per pixel, over which steep edges are averaged.
_FINER = 3


@dataclass(frozen=True)
class Foreground:
    """A foreground that hides a part of the sky and does not move.

    Attributes:
        picture: Colours in [0, 1], also where the sky is visible.
        coverage: 1 where the foreground hides the sky, 0 elsewhere.
        horizon: y at which the sky would end over flat ground.
        waterline: y below which uncovered pixels are water that reflects the sky; None without
            water.
    """

    picture: Float[Tensor, "3 n n"]
    coverage: Float[Tensor, "n n"]
    horizon: float
    waterline: float | None


@dataclass(frozen=True)
class Daylight:
    """The light on a foreground.

    Attributes:
        ambient: Factor on the ground's colour.
        haze: Colour of distant ridges, which is that of the sky at the horizon.
        is_low: Whether the sun is low; the ground is then darker and windows are lit.
    """

    ambient: Float[Tensor, "3 1 1"]
    haze: Float[Tensor, "3 1 1"]
    is_low: bool


def read_foregrounds(folder: Path, *, side: int, each: int = 4) -> UInt8[Tensor, "k 3 s s"]:
    """Cut random squares out of photographs.

    Args:
        folder: Folder of photographs without sky, clouds or water.
        side: Height and width of the squares, in pixels.
        each: Number of squares for each photograph, of 50 to 100 % of its smaller side.

    Raises:
        UserError: The folder contains no pictures, or one cannot be read.
    """
    rng = np.random.default_rng(0)
    squares = []
    for path in pictures_in(folder):
        pixels = read_photograph(path)
        height, width, _ = pixels.shape
        for _ in range(each):
            edge = int(rng.uniform(0.5, 1.0) * min(height, width))
            top = int(rng.integers(0, height - edge + 1))
            left = int(rng.integers(0, width - edge + 1))
            square = pixels[top : top + edge, left : left + edge]
            squares.append(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def draw_foreground(
    draws: Draws,
    *,
    size: int,
    light: Daylight,
    textures: UInt8[Tensor, "k 3 s s"] | None = None,
) -> Foreground:
    """Draw a foreground; one in ten is empty, one in ten hides the whole sky.

    Args:
        draws: Source of randomness.
        size: Height and width, in pixels.
        light: Light on the foreground.
        textures: Photographs from which seven grounds in ten are cut. Defaults to procedural
            foregrounds only.
    """
    kind = draws.choice(["land", "lake", "sky", "ground"], [0.6, 0.2, 0.1, 0.1])
    if kind == "sky":
        nothing = torch.zeros(size, size)
        return Foreground(nothing.expand(3, -1, -1), nothing, draws.uniform(1.0, 1.4), None)
    if kind == "ground":
        wall = _draw_wall(draws, size=size, textures=textures) * light.ambient
        return Foreground(wall.clamp(0, 1), torch.ones(size, size), 1.0, None)
    horizon = draws.uniform(0.45, 0.75) if kind == "lake" else draws.uniform(0.45, 0.95)
    land = _draw_land(draws, size=size, horizon=horizon, light=light, textures=textures)
    return _draw_lake(draws, land) if kind == "lake" else land


def _draw_land(
    draws: Draws, *, size: int, horizon: float, light: Daylight, textures: Tensor | None
) -> Foreground:
    if textures is not None and draws.chance(0.7):
        skyline = horizon + _draw_relief(draws, size)
        picture = _cut_texture(draws, textures, size=size) * light.ambient
        return Foreground(picture.clamp(0, 1), _below(skyline, size, draws), horizon, None)
    kinds = {"ridges": _draw_ridges, "meadow": _draw_meadow, "town": _draw_town, "rock": _draw_rock}
    name = draws.choice(list(kinds), [0.35, 0.33, 0.12, 0.2])
    picture, coverage = kinds[name](draws, size=size, horizon=horizon, light=light)
    if light.is_low and draws.chance(0.5):
        picture = picture * draws.uniform(0.1, 0.5)  # backlit
    return Foreground(picture.clamp(0, 1), coverage, horizon, None)


def _draw_wall(draws: Draws, *, size: int, textures: Tensor | None) -> Tensor:
    """Draw ground from nearby, up to the upper edge."""
    if textures is not None and draws.chance(0.7):
        return _cut_texture(draws, textures, size=size)
    colour = _draw_colour(draws, ["stone", "forest", "grass", "brick", "sand"])
    return colour * _draw_shading(draws, size=size, strength=draws.uniform(0.5, 2.5))


def _draw_lake(draws: Draws, land: Foreground) -> Foreground:
    """Reflect the land at a waterline, with a shore in front of it in four of ten."""
    size, waterline = land.coverage.shape[-1], min(0.9, land.horizon + draws.uniform(0.0, 0.05))
    x, y = pixel_centres(size)
    above = torch.stack([x, torch.where(y > waterline, 2 * waterline - y, y)])
    both = torch.cat([land.picture, land.coverage[None]])
    mirrored = functional.grid_sample(
        both[None], _grid(above), mode="bilinear", padding_mode="border", align_corners=False
    )[0]
    is_water = (y > waterline).float()
    coverage, dark = mirrored[3], draws.uniform(0.35, 0.75)
    picture = mirrored[:3] * (1 - (1 - dark) * is_water)
    # The far bank: a thin dark line between the land and its reflection.
    bank = torch.exp(-(((y - waterline) * size / 0.9) ** 2)) * mirrored[3]
    picture = picture * (1 - 0.5 * bank)
    if draws.chance(0.4):
        line = draws.uniform(0.88, 1.05) + 0.05 * draws.line(size * _FINER, exponent=1.6)
        shore = _below(line, size, draws)
        near = land.picture.flip(-1, -2) * draws.uniform(0.5, 1.0)
        picture = picture + (near - picture) * shore
        coverage = torch.maximum(coverage, shore)
    return Foreground(picture.clamp(0, 1), coverage.clamp(0, 1), waterline, waterline)


def _draw_ridges(
    draws: Draws, *, size: int, horizon: float, light: Daylight
) -> tuple[Tensor, Tensor]:
    """Draw two to four ranges of hills, with haze on the distant ones."""
    num = draws.integer(2, 4)
    near = _draw_colour(draws, ["forest", "grass", "stone"]) * light.ambient
    picture, coverage = torch.empty(0), torch.zeros(size, size)
    steep, rough = draws.uniform(0.03, 0.12), draws.uniform(1.2, 2.2)
    lift = draws.uniform(0.05, 0.16)
    for index in range(num):
        nearness = index / (num - 1)
        line = draws.line(size * _FINER, exponent=rough) * steep * (1 - 0.5 * nearness)
        range_coverage = _below(horizon + lift * (1.6 * nearness - 0.8) + line, size, draws)
        far = draws.uniform(0.45, 0.75) * (1 - nearness) ** 0.8
        relief = _draw_shading(draws, size=size, strength=1.0 - 0.4 * far)
        colour = (near * relief).lerp(light.haze, far)
        picture = colour.lerp(picture, 1 - range_coverage) if index else colour
        coverage = torch.maximum(coverage, range_coverage)
    return picture, coverage


def _draw_meadow(
    draws: Draws, *, size: int, horizon: float, light: Daylight
) -> tuple[Tensor, Tensor]:
    """Draw receding ground with trees or bushes along its skyline."""
    ground = _draw_colour(draws, ["grass", "field", "sand", "forest"]) * light.ambient
    points = pixel_centres(size)
    depth = (points[1] - horizon + 0.1).clamp_min(0.02)
    across = (points[0] - draws.uniform(0, 1)) / depth
    at = torch.stack([across, 0.6 / depth]) * draws.uniform(0.05, 0.2)
    levels = blur_levels(draws.tile(exponent=draws.uniform(0.6, 1.2)))
    grain = sample_tile(levels, at, blur=blur_of(at))
    fading = (0.5 * torch.exp(-(points[1] - horizon).clamp_min(0) / 0.06))[None]
    picture = ground * (0.55 + 0.9 * grain)
    picture = picture.lerp(light.haze * 0.8, fading)
    hill = horizon + draws.line(size * _FINER, exponent=2.2) * draws.uniform(0.0, 0.03)
    if draws.chance(0.25):
        return picture, _below(hill, size, draws)
    trees = _draw_trees(draws, size=size)
    wood = _draw_colour(draws, ["forest"]) * light.ambient * draws.uniform(0.4, 0.9)
    wood = wood * _draw_shading(draws, size=size, strength=1.5)
    foot = _below(hill + draws.uniform(0.005, 0.03), size, draws)
    return wood.lerp(picture, foot[None]), _below(hill - trees, size, draws)


def _draw_trees(draws: Draws, *, size: int) -> Tensor:
    """Draw the height of trees in every column: firs, or round crowns."""
    num = size * _FINER
    x = torch.linspace(0, 1, num)
    heights = torch.zeros(num)
    are_firs, tallest = draws.chance(0.5), draws.uniform(0.05, 0.3)
    for _ in range(draws.integer(4, 45)):
        height = tallest * draws.uniform(0.3, 1.0)
        width = height * (draws.uniform(0.14, 0.25) if are_firs else draws.uniform(0.3, 0.6))
        aside = ((x - draws.uniform(0, 1)) / width).abs()
        crown = 1 - aside if are_firs else (1 - aside**2).clamp_min(0).sqrt()
        heights = torch.maximum(heights, height * crown)
    leaves = draws.line(num, exponent=0.4) * (0.012 if are_firs else 0.008)
    return torch.where(heights > 0, heights + leaves, leaves.clamp_min(0)).clamp_min(0)


def _draw_town(
    draws: Draws, *, size: int, horizon: float, light: Daylight
) -> tuple[Tensor, Tensor]:
    """Draw two rows of houses, the distant one in haze, with windows that are lit at low sun."""
    picture, coverage = torch.empty(0), torch.zeros(size, size)
    for nearness in (0.0, 1.0):
        colour = _draw_colour(draws, ["stone", "brick"]) * light.ambient
        heights, shades = _draw_houses(draws, num=size * _FINER, tallest=0.28 - 0.1 * nearness)
        row = _below(horizon + 0.05 * nearness - heights, size, draws)
        walls = colour * functional.avg_pool1d(shades[None, None], _FINER)[0]
        walls = walls.expand(-1, size, -1)
        walls = walls + _draw_windows(draws, size=size, is_lit=light.is_low) * 0.9
        walls = walls.lerp(light.haze, 0.55 * (1 - nearness))
        picture = walls.lerp(picture, 1 - row) if nearness else walls
        coverage = torch.maximum(coverage, row)
    y = pixel_centres(size)[1]
    street = torch.sigmoid((y - horizon - 0.06) * size / 2)
    grain = _draw_shading(draws, size=size, strength=0.6)
    ground = _draw_colour(draws, ["stone", "forest"]) * light.ambient * 0.6 * grain
    return picture.lerp(ground, street[None]), torch.maximum(coverage, street)


def _draw_houses(draws: Draws, *, num: int, tallest: float) -> tuple[Tensor, Tensor]:
    """Draw height and brightness of the walls in every column."""
    heights, shades = torch.zeros(num), torch.ones(num)
    start = 0
    while start < num:
        end = start + 1 + int(num * draws.uniform(0.03, 0.13))
        heights[start:end] = tallest * draws.uniform(0.0, 1.0) ** 1.5
        shades[start:end] = draws.uniform(0.5, 1.3)
        if draws.chance(0.3):  # a gable
            roof = torch.linspace(-1, 1, end - start).abs()
            heights[start:end] += (0.35 * (end - start) / num * (1 - roof))[: num - start]
        start = end
    return heights, shades


def _draw_windows(draws: Draws, *, size: int, is_lit: bool) -> Tensor:
    """Draw the added brightness of a grid of lit or dark windows."""
    rows, columns = max(8, size // 5), max(8, size // 4)
    there = torch.rand(rows, columns, generator=draws.generator)
    share = draws.uniform(0.05, 0.3) if is_lit else draws.uniform(0.2, 0.6)
    lattice = functional.interpolate((there < share).float()[None, None], (size, size))[0]
    x, y = pixel_centres(size)
    gap = ((x * columns % 1 - 0.5).abs() < 0.3) & ((y * rows % 1 - 0.5).abs() < 0.35)
    colour = torch.tensor([0.9, 0.7, 0.35]) if is_lit else torch.full((3,), -0.12)
    windows: Tensor = lattice * gap * colour[:, None, None]
    return windows


def _draw_rock(
    draws: Draws, *, size: int, horizon: float, light: Daylight
) -> tuple[Tensor, Tensor]:
    """Draw grey and brown mountains, some with snow, which a mask may confuse with clouds."""
    rock = _draw_colour(draws, ["stone"]) * _draw_shading(draws, size=size, strength=2.5)
    line = draws.line(size * _FINER, exponent=draws.uniform(1.2, 1.7))
    skyline = horizon - 0.08 + line * draws.uniform(0.04, 0.12)
    y = pixel_centres(size)[1]
    if draws.chance(0.6):
        patches = draws.tile(exponent=1.3)
        where = _fit(patches, size) - (y - horizon + draws.uniform(0.0, 0.35)) * 1.6
        snow = torch.sigmoid((where - 0.45) * 25)[None]
        shading = _draw_shading(draws, size=size, strength=0.7)
        rock = rock.lerp(draws.uniform(0.8, 1.0) * shading, snow)
    return rock * light.ambient, _below(skyline, size, draws)


def _draw_relief(draws: Draws, size: int) -> Tensor:
    """Draw a skyline, with roofs on some."""
    num = size * _FINER
    relief = draws.line(num, exponent=draws.uniform(1.0, 2.5)) * draws.uniform(0.0, 0.13)
    relief = relief + torch.linspace(-1, 1, num) * draws.uniform(-0.12, 0.12)
    for _ in range(draws.integer(1, 5) if draws.chance(0.3) else 0):
        left = draws.integer(0, num - 1)
        right = min(num, left + 1 + int(draws.uniform(0.02, 0.18) * num))
        relief[left:right] = relief[left:right].min() - draws.uniform(0.0, 0.2)
    return relief


def _draw_shading(draws: Draws, *, size: int, strength: float) -> Tensor:
    """Draw light and shade of uneven ground, with mean 1."""
    relief = draws.tile(exponent=draws.uniform(1.3, 1.8))
    slope = relief[2:, 2:] - relief[:-2, :-2]
    shade = 0.18 * slope / slope.std() + 0.5 * (relief[1:-1, 1:-1] - 0.5)
    return (1 + strength * _fit(shade, size)).clamp(0.15, 2.0)[None]


_COLOURS = {
    "forest": (0.16, 0.24, 0.12),
    "grass": (0.36, 0.46, 0.18),
    "field": (0.62, 0.53, 0.28),
    "sand": (0.72, 0.62, 0.46),
    "stone": (0.50, 0.47, 0.44),
    "brick": (0.52, 0.34, 0.27),
}


def _draw_colour(draws: Draws, names: list[str]) -> Tensor:
    """Draw a colour near one of the named colours, or rarely any dull colour."""
    if draws.chance(0.08):
        return (draws.uniform(0.1, 0.6) + draws.vector(-0.05, 0.05, num=3))[:, None, None]
    colour = torch.tensor(_COLOURS[draws.choice(names)])
    return (colour * draws.vector(0.88, 1.12, num=3) * draws.uniform(0.7, 1.3))[:, None, None]


def _cut_texture(draws: Draws, textures: Tensor, *, size: int) -> Tensor:
    """Draw a crop of one of the photographs, mirrored at random."""
    picture = textures[draws.integer(0, len(textures) - 1)]
    side = textures.shape[-1]
    crop = max(1, int(draws.uniform(0.4, 1.0) * side))
    top, left = draws.integer(0, side - crop), draws.integer(0, side - crop)
    piece = picture[:, top : top + crop, left : left + crop].float() / 255
    piece = piece.flip(-1) if draws.chance(0.5) else piece
    gain = draws.vector(0.8, 1.2, num=3) * draws.uniform(0.5, 1.1)
    fitted = functional.interpolate(
        piece[None], (size, size), mode="bilinear", align_corners=False, antialias=crop > size
    )[0]
    return fitted * gain[:, None, None]


def _below(skyline: Tensor, size: int, draws: Draws) -> Tensor:
    """Return 1 below a skyline with `_FINER` columns per pixel, and 0 above it."""
    softness = draws.uniform(0.3, 0.8) / size
    y = pixel_centres(size)[1][:, :1]
    columns = torch.sigmoid((y - skyline[None]) / softness)
    return functional.avg_pool1d(columns[:, None], _FINER)[:, 0]


def _fit(tile: Tensor, size: int) -> Tensor:
    return functional.interpolate(tile[None, None], (size, size), mode="area")[0, 0]


def _grid(points: Tensor) -> Tensor:
    return points.mul(2).sub(1).permute(1, 2, 0)[None]
