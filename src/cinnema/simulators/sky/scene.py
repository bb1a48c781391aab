"""A synthetic sky with exactly known motion: cloud layers that drift over a static foreground.

A sky has an appearance (`SkyScene`) and a motion (`SkyMotion`), drawn independently, so that one
start can have many true futures. Coordinates are (x, y) in [0, 1]^2, x to the right and y
downwards; time is in clips (frame t of T is at t / T). The motion maps each point p of the picture
at time t to its position at time 0:

    p_0 = A^-1 exp(-t G) A p + t D(p)

A is a homography from the picture to the plane of the clouds (or the identity), G generates
translation, rotation and growth on that plane, and D is a small smooth deformation. The backward
flow p_0 - p is therefore exact.

Clouds at twice the height look half as large and drift half as fast (parallax). A layer at height H
(1 for the lowest) is on the plane H A with wind G; on A its wind is G / H, slightly rotated
(`SkyMotion.aloft`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.simulators.sky.foregrounds import Daylight, draw_foreground
from cinnema.simulators.sky.motion import SkyMotion, row_times, to_plane
from cinnema.simulators.sky.tiles import Draws, blur_levels, blur_of, pixel_centres, sample_tile


@dataclass(frozen=True)
class CloudLayer:
    """The clouds of one height.

    Attributes:
        density: Fractal density of the clouds, and of those they evolve into, as blur levels
            (`tiles.blur_levels`).
        frame: Affine map from the plane to the tiles: coordinates in tiles are frame @ (x, y, 1).
        cover: Density threshold of clouds, and width of their soft edges.
        opacity: Opacity of the thickest cloud, in (0, 1].
        detail: Share of fine structure, 0 to 1.
        shading: Strength of the shadows of clouds on clouds, 0 or more.
        height: Height in multiples of the lowest layer's, at least 1.
    """

    density: Float[Tensor, "2 l n n"]
    frame: Float[Tensor, "2 3"]
    cover: Float[Tensor, "2"]
    opacity: float
    detail: float
    shading: float
    height: float


@dataclass(frozen=True)
class SkyView:
    """A sky at one time.

    Attributes:
        picture: Colours in [-1, 1].
        clouds: Share of each layer's clouds in each pixel's colour, including reflections.
    """

    picture: Float[Tensor, "3 m m"]
    clouds: Float[Tensor, "l m m"]


@dataclass(frozen=True)
class SkyScene:
    """The appearance of a sky and its foreground, which can be rendered at any time.

    Attributes:
        layers: Cloud layers, the lowest first.
        plane: Homography from the picture to the plane of the clouds.
        palette: Colours in [0, 1] of zenith, horizon, lit cloud, shaded cloud and sun.
        sun: Position of the sun, often outside the picture.
        glow: Strength of the sun's halo, in [0, 1].
        horizon: y at which the clear sky has the horizon's colour.
        ground: Colours of the static foreground, in [0, 1].
        coverage: 1 where the foreground hides the sky, 0 elsewhere.
        waterline: y below which water reflects the sky; None without water.
        water: Factor on the colours of the reflected sky.

    Example:
        >>> scene = draw_scene(torch.Generator().manual_seed(0), size=64)
        >>> wind = torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> motion = SkyMotion(
        ...     plane=scene.plane,
        ...     generator=wind,  # to the right
        ...     deformation=torch.zeros(2, 4, 4),
        ...     acceleration=0.0,
        ...     evolution=0.0,
        ... )
        >>> scene.frame(motion, 0.5).shape
        torch.Size([3, 64, 64])
    """

    layers: tuple[CloudLayer, ...]
    plane: Float[Tensor, "3 3"]
    palette: Float[Tensor, "5 3"]
    sun: Float[Tensor, "2"]
    glow: float
    horizon: float
    ground: Float[Tensor, "3 m m"]
    coverage: Float[Tensor, "m m"]
    waterline: float | None
    water: Float[Tensor, "3 m m"]

    @property
    def size(self) -> int:
        """Height and width of the pictures, in pixels."""
        return self.coverage.shape[-1]

    @property
    def moving(self) -> Float[Tensor, "m m"]:
        """1 where the picture shows the sky or its reflection, 0 on the ground."""
        return 1 - self.coverage

    def frame(self, motion: SkyMotion, time: float) -> Float[Tensor, "3 m m"]:
        """Render the picture at a time, with values in [-1, 1].

        Args:
            motion: Motion of the clouds.
            time: Time in clips.
        """
        return self.view(motion, time).picture

    def view(self, motion: SkyMotion, time: float) -> SkyView:
        """Render the picture and the visible clouds at a time.

        Args:
            motion: Motion of the clouds.
            time: Time in clips.
        """
        aimed, is_mirrored = self._mirror(pixel_centres(self.size))
        sky, clouds = self._sky(aimed, motion, time)
        if self.waterline is not None:
            sky = torch.where(is_mirrored, sky * self.water, sky)
        picture = self.coverage * self.ground + self.moving * sky
        return SkyView(picture.mul(2).sub(1).clamp(-1, 1), clouds * self.moving)

    def wind(
        self, motion: SkyMotion, view: SkyView, *, start: float, end: float
    ) -> Float[Tensor, "2"]:
        """Return the mean displacement of the clouds in the sky between two times.

        Clear sky, ground and water do not count; clouds are weighted by their share in the colour
        of each pixel.

        Args:
            motion: Motion of the clouds.
            view: The sky at `end`.
            start: Time in clips.
            end: Time in clips.

        Returns:
            Displacement in picture widths (to the right) and heights (downwards); 0 without clouds.
        """
        size = min(self.size, 32)
        points = pixel_centres(size)
        clouds = view.clouds * (~self._mirror(pixel_centres(self.size))[1])
        weight = functional.adaptive_avg_pool2d(clouds, size).double()
        total = torch.zeros(2, dtype=torch.float64)
        for layer, seen in zip(self.layers, weight, strict=True):
            step = points - motion.aloft(layer.height).carried(points, start=end, end=start)
            total += (step.double() * seen).sum(dim=(1, 2))
        return (total / weight.sum().clamp_min(1e-9)).float()

    def _mirror(self, points: Tensor) -> tuple[Tensor, Tensor]:
        if self.waterline is None:
            return points, torch.zeros_like(points[:1], dtype=torch.bool)
        x, y = points
        below = y > self.waterline
        return torch.stack([x, torch.where(below, 2 * self.waterline - y, y)]), below[None]

    def _sky(self, seen: Tensor, motion: SkyMotion, time: float) -> tuple[Tensor, Tensor]:
        """Return the sky's colours and each layer's share, drawn from the highest layer down."""
        sky = self._clear(seen)
        shares: list[Tensor] = []
        for layer in reversed(self.layers):
            source = motion.aloft(layer.height).source_of(seen, time)
            cloud, alpha = self._clouds(layer, seen, source, motion.evolution * time)
            sky = sky + (cloud - sky) * alpha
            shares = [share * (1 - alpha) for share in shares] + [alpha]
        return sky, torch.stack(shares[::-1])

    def _clear(self, seen: Tensor) -> Tensor:
        zenith, horizon, _, _, sun = self.palette[:, :, None, None]
        sky = zenith + (horizon - zenith) * self._lowness(seen) ** 1.5
        distance = _length(seen - self.sun[:, None, None])
        halo = 0.55 * torch.exp(-distance / 0.25) + 0.6 * torch.exp(-((distance / 0.07) ** 2))
        lit: Tensor = sky + (sun - sky) * (halo * self.glow).clamp(0, 1)
        return lit

    def _lowness(self, seen: Tensor) -> Tensor:
        """Return 0 at the upper edge to 1 at the horizon."""
        return (seen[1] / self.horizon).clamp(0, 1)

    def _clouds(
        self, layer: CloudLayer, seen: Tensor, source: Tensor, share: float
    ) -> tuple[Tensor, Tensor]:
        """Return colour and opacity of a layer's clouds, which were at `source` at time 0."""
        _, horizon, lit, shaded, sun = self.palette[:, :, None, None]
        at, towards_sun = self._on_tile(layer, source)
        blur = blur_of(at) + 0.25
        density = evolved(layer.density, share)
        fine = sample_tile(density, at * 5.3 + 0.37, blur=blur + 1.2) - 0.5
        thickness = sample_tile(density, at, blur=blur) + layer.detail * 0.35 * fine
        thickness = (thickness - layer.cover[0]).clamp_min(0)
        behind = [
            (sample_tile(density, at + towards_sun * step, blur=blur) - layer.cover[0]).clamp_min(0)
            for step in (0.015, 0.045)
        ]
        shadow = layer.shading * (0.6 * behind[0] + 0.6 * behind[1] + 0.5 * thickness)
        near_sun = torch.exp(-_length(source - self.sun[:, None, None]) / 0.3) * self.glow
        rim = near_sun * torch.exp(-6 * thickness)
        cloud = shaded + (lit - shaded) * torch.exp(-shadow)
        cloud = cloud + (sun - cloud) * (0.9 * rim).clamp(0, 1)
        haze = 0.65 * self._lowness(seen) ** 3
        cloud = cloud + (horizon - cloud) * haze
        alpha = 1 - torch.exp(-3 * (thickness / layer.cover[1]) ** 2)
        return cloud, layer.opacity * alpha

    def _on_tile(self, layer: CloudLayer, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions on a layer's tile, and the direction towards the sun on it."""
        towards_sun = self.sun[:, None, None] - source
        nearby = source + 0.01 * towards_sun / _length(towards_sun)
        at, moved = (
            torch.stack(
                [row_times(row, to_plane(self.plane, points)) for row in layer.frame.tolist()]
            )
            for points in (source, nearby)
        )
        step = moved - at
        return at, step / _length(step)


def draw_scene(
    generator: torch.Generator,
    *,
    size: int,
    plane: Float[Tensor, "3 3"] | None = None,
    textures: UInt8[Tensor, "k 3 s s"] | None = None,
    num_layers: int = 1,
) -> SkyScene:
    """Draw a sky over a foreground of hills, roofs, trees, or water that reflects the sky.

    Args:
        generator: Source of randomness.
        size: Height and width of the pictures, in pixels.
        plane: Homography of the scene's motion, so that clouds get smaller towards the horizon.
            Defaults to the identity.
        textures: Photographs from which foregrounds are cut. Defaults to procedural foregrounds
            only.
        num_layers: Number of cloud layers, at least 1.
    """
    draws = Draws(generator)
    palette, is_low = _draw_palette(draws)
    light = Daylight(
        ambient=_draw_ambient(draws, palette, is_low=is_low),
        haze=(0.85 * palette[1] + 0.05 * palette[0])[:, None, None],
        is_low=is_low,
    )
    foreground = draw_foreground(draws, size=size, light=light, textures=textures)
    return SkyScene(
        layers=_draw_layers(draws, num=num_layers),
        plane=torch.eye(3) if plane is None else plane,
        palette=palette,
        sun=_draw_sun(draws, is_low=is_low, horizon=foreground.horizon),
        glow=draws.uniform(0.2, 1.0),
        horizon=foreground.horizon,
        ground=foreground.picture,
        coverage=foreground.coverage,
        waterline=foreground.waterline,
        water=_draw_water(draws, size=size, waterline=foreground.waterline),
    )


def _draw_ambient(draws: Draws, palette: Tensor, *, is_low: bool) -> Tensor:
    """Draw the light on the ground: half of the sky's tint, less if the sun is low."""
    light = 0.5 * (palette[1] + palette[2])
    light = 0.5 * (light + light.mean()) * draws.uniform(0.75, 1.15)
    return (light * draws.uniform(0.3, 0.9) if is_low else light)[:, None, None]


def _draw_sun(draws: Draws, *, is_low: bool, horizon: float) -> Tensor:
    """Draw the sun's position: near the horizon if it is low, else mostly above the picture."""
    if is_low:
        return torch.tensor([draws.uniform(-0.2, 1.2), horizon - draws.uniform(-0.1, 0.25)])
    return torch.tensor([draws.uniform(-0.5, 1.5), draws.uniform(-1.2, 0.35)])


class _Kind(NamedTuple):
    """Parameter ranges of a kind of cloud.

    Attributes:
        exponent: Exponent of the density's spectrum; larger is smoother.
        clumps: Smallest number of clumps across a tile.
        begins: Density threshold of clouds; larger gives fewer clouds.
        edge: Width of the soft edge, in density.
        opacity: Opacity of the thickest cloud.
        shading: See `CloudLayer`.
        stretch: Largest ratio of length to width of a clump.
    """

    exponent: tuple[float, float]
    clumps: float
    begins: tuple[float, float]
    edge: tuple[float, float]
    opacity: tuple[float, float]
    shading: tuple[float, float]
    stretch: float


_LOW = {
    "heaps": _Kind((1.5, 2.1), 2.5, (0.42, 0.7), (0.08, 0.3), (0.9, 1.0), (1.0, 3.5), 1.3),
    "cover": _Kind((1.3, 1.9), 1.5, (0.05, 0.3), (0.3, 0.6), (0.9, 1.0), (1.0, 3.5), 1.6),
    "rolls": _Kind((1.4, 1.9), 5.0, (0.3, 0.6), (0.15, 0.4), (0.8, 1.0), (1.0, 3.5), 2.2),
}


_HIGH = {
    "veil": _Kind((1.6, 2.2), 1.5, (0.2, 0.6), (0.6, 1.2), (0.3, 0.7), (0.2, 0.8), 1.5),
    "streaks": _Kind((1.2, 1.6), 2.0, (0.35, 0.6), (0.4, 0.8), (0.4, 0.8), (0.2, 0.8), 6.0),
    "fleece": _Kind((1.2, 1.7), 9.0, (0.4, 0.65), (0.2, 0.5), (0.4, 0.8), (0.2, 0.8), 1.5),
}


def _draw_layers(draws: Draws, *, num: int) -> tuple[CloudLayer, ...]:
    """Draw heaps, a closed cover or rolls of cloud below; veils, streaks or fleece above."""
    all_kinds, low = [*_LOW, *_HIGH], draws.choice(list(_LOW), [0.55, 0.2, 0.25])
    if num == 1:
        low = draws.choice(all_kinds, [0.4, 0.2, 0.2, 0.08, 0.06, 0.06])
    layers = [_draw_layer(draws, {**_LOW, **_HIGH}[low], height=1.0)]
    for _ in range(num - 1):
        height = layers[-1].height * draws.uniform(1.4, 2.2)
        layers.append(_draw_layer(draws, _HIGH[draws.choice(list(_HIGH))], height=height))
    return tuple(layers)


def _draw_layer(draws: Draws, kind: _Kind, *, height: float) -> CloudLayer:
    tiles = [
        draws.tile(exponent=draws.uniform(*kind.exponent), lowest=kind.clumps) for _ in range(2)
    ]
    angle, wide = draws.uniform(0, math.pi), draws.uniform(1.0, kind.stretch)
    c, s = math.cos(angle), math.sin(angle)
    # A cloud at twice the height looks half as large, but high clouds are larger.
    spread = torch.tensor([[c / wide, s / wide], [-s, c]]) * draws.uniform(0.3, 0.7) * height**0.5
    return CloudLayer(
        density=torch.stack([blur_levels(tile) for tile in tiles]),
        frame=torch.cat([spread, draws.vector(0, 1, num=2)[:, None]], dim=1),
        cover=torch.tensor([draws.uniform(*kind.begins), draws.uniform(*kind.edge)]),
        opacity=draws.uniform(*kind.opacity),
        detail=draws.uniform(0.3, 1.0),
        shading=draws.uniform(*kind.shading),
        height=height,
    )


# Colours of zenith, horizon, lit cloud, shaded cloud and sun; and whether the sun is low.
_PALETTES = {
    "day": ("2a5fae a9c9e6 fbfaf6 8f9bb0 fffdf0", False),
    "deep": ("17407f 86b2dc ffffff 7d8aa3 fffbe8", False),
    "overcast": ("8a939c b5bcc2 dfe2e4 6d757e f2f2ee", False),
    "haze": ("8fa9c0 d3d6d2 f2eee6 a3a8ae fff6e0", False),
    "storm": ("3c454f 7f888e a5aaad 32383f d8d6cc", False),
    "golden": ("4a6a9c f3cf8e ffeccb 8d7670 fff3c4", True),
    "sunset": ("2f3a6e f08c46 ffc07a 5d4055 ffe0a0", True),
    "dawn": ("5b6ea0 f2b8a8 fbd9cc 77708c fff0d8", True),
    "dusk": ("141b38 5d5a7c 8d7f92 2a2a42 d8a890", True),
    "moonlit": ("0b1226 2b3852 5a6680 161d30 c8d4e8", True),
}


def _draw_palette(draws: Draws) -> tuple[Tensor, bool]:
    name = draws.choice(list(_PALETTES), [3, 2, 2, 1.5, 1.5, 1.5, 2, 1, 1.5, 0.5])
    colours, is_low = _PALETTES[name]
    palette = torch.tensor([list(bytes.fromhex(c)) for c in colours.split()]) / 255
    tint = draws.vector(0.96, 1.04, num=3) * draws.uniform(0.85, 1.1)
    jitter = (torch.rand(5, 3, generator=draws.generator) - 0.5) * 0.04
    return (palette * tint + jitter).clamp(0, 1), is_low


def _draw_water(draws: Draws, *, size: int, waterline: float | None) -> Tensor:
    """Draw the water's factor on the reflected sky: darker near the viewer, with still ripples."""
    if waterline is None:
        return torch.ones(3, 1, 1).expand(3, size, size)
    tint = draws.vector(0.0, 0.15, num=3) + torch.tensor([0.55, 0.65, 0.75])
    y = pixel_centres(size)[1]
    nearness = ((y - waterline) / max(1e-3, 1 - waterline)).clamp(0, 1)
    ripples = functional.interpolate(
        draws.tile(exponent=0.8)[None, None], (size, max(2, size // 6)), mode="area"
    )
    ripples = functional.interpolate(ripples, (size, size), mode="bilinear")[0, 0] - 0.5
    dimmed = 1 - 0.35 * nearness + draws.uniform(0.0, 0.35) * ripples * (0.3 + nearness)
    return (tint[:, None, None] * dimmed).clamp(0, 1)


def evolved(density: Tensor, share: float) -> Tensor:
    """Rotate the first density towards the second, at constant contrast.

    Args:
        density: Two densities, (2, l, n, n).
        share: 0 is the first density, 1 the second, and -1 its negative about the mean.
    """
    if share == 0:
        return density[0]
    angle = math.pi / 2 * share
    first, second = math.cos(angle), math.sin(angle)
    turned: Tensor = torch.add(density[0] * first, density[1], alpha=second)
    return turned.add_(0.5 * (1 - first - second))


def _length(vectors: Tensor) -> Tensor:
    """Return the length of vectors (2, h, w), several times faster than `torch.linalg.norm`."""
    return (vectors[0].square() + vectors[1].square()).sqrt().clamp_min(1e-6)
