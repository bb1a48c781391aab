"""A synthetic sky whose motion is known exactly: cloud layers drifting over a still foreground.

A sky is an appearance (`SkyScene`) and a motion (`SkyMotion`), drawn apart, so that one start can
have many true futures. Coordinates are (x, y) in [0, 1]^2, x to the right and y downwards; time
is in clips (frame t of T is at t / T). The motion says, for each point p of the picture at time t,
where that point was at time 0:

    p_0 = A^-1 exp(-t G) A p + t D(p)

A is a perspective map of the picture onto the plane of the clouds (or the identity), G generates
translation, rotation and growth on that plane, and D is a small smooth deformation. The backward
flow p_0 - p is therefore exact; it is the target that training uses.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

_TILE = 256
# Far from the horizon the plane's coordinates stay within this many picture widths.
_MAX_SOURCE = 4.0


@dataclass(frozen=True)
class SkyMotion:
    """How the clouds move: all that `source_of` needs, and nothing of the appearance.

    Attributes:
        plane: A, the homography from picture coordinates to the plane of the clouds, (3, 3).
        generator: G, per clip, (3, 3) with a last row of zeros.
        deformation: D, in picture widths per clip, (2, 4, 4), bicubic between its points.
        acceleration: The share of its speed that the wind gains over the clip, in [-0.5, 0.5].
        evolution: How much of the clouds' density changes over one clip, in [0, 1].
    """

    plane: Float[Tensor, "3 3"]
    generator: Float[Tensor, "3 3"]
    deformation: Float[Tensor, "2 4 4"]
    acceleration: float
    evolution: float

    def source_of(self, points: Float[Tensor, "2 h w"], time: float) -> Float[Tensor, "2 h w"]:
        """Return where each point at `time` was at time 0.

        Args:
            points: Coordinates (x, y); (0, 0) is the upper left corner, (1, 1) the lower right.
            time: In clips, 0 or more.
        """
        elapsed = time * (1 + 0.5 * self.acceleration * (time - 1))
        back = torch.linalg.matrix_exp(-elapsed * self.generator)
        matrix = torch.linalg.solve(self.plane, back @ self.plane)
        x, y, depth = torch.einsum("ij,jhw->ihw", matrix, _homogeneous(points)).unbind(0)
        depth = depth.clamp_min(0.05)
        source = torch.stack([x / depth, y / depth])
        source = source + elapsed * _smooth_field(self.deformation, points)
        return source.clamp(-_MAX_SOURCE, 1 + _MAX_SOURCE)


@dataclass(frozen=True)
class SkyScene:
    """What the sky and the ground look like at time 0, and how to draw them at any later time.

    Attributes:
        density: Fractal density of the clouds and of what they evolve into, tiles, (2, n, n).
        plane: The homography on which the tiles lie, (3, 3).
        scale: Tiles per unit of the plane, and their offset: (3,).
        cover: Density at which a cloud begins, and the width of its soft edge: (2,).
        palette: Colours in [0, 1] of zenith, horizon, lit cloud and shaded cloud: (4, 3).
        light: Direction of the light on the tile, times its strength: (2,).
        ground: The still foreground at the full size, in [0, 1], (3, n, n).
        coverage: 1 where the foreground hides the sky, (n, n).
        waterline: Below this y the picture mirrors the sky, or None where there is no water.
        water_tint: Colour by which the mirrored sky is multiplied, (3,).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> motion = draw_motion(generator, direction=0.0, speed=0.1)
        >>> scene = draw_scene(generator, size=64, plane=motion.plane)
        >>> scene.frame(motion, 0.5).shape, scene.flow(motion, 0.5, size=16).shape
        (torch.Size([3, 64, 64]), torch.Size([2, 16, 16]))
    """

    density: Float[Tensor, "2 n n"]
    plane: Float[Tensor, "3 3"]
    scale: Float[Tensor, "3"]
    cover: Float[Tensor, "2"]
    palette: Float[Tensor, "4 3"]
    light: Float[Tensor, "2"]
    ground: Float[Tensor, "3 m m"]
    coverage: Float[Tensor, "m m"]
    waterline: float | None
    water_tint: Float[Tensor, "3"] = field(default_factory=lambda: torch.ones(3))

    @property
    def size(self) -> int:
        """Width and height of the pictures, in pixels."""
        return self.coverage.shape[-1]

    @property
    def moving(self) -> Float[Tensor, "m m"]:
        """1 where the picture shows sky or mirrored sky, 0 on the ground."""
        return 1 - self.coverage

    def frame(self, motion: SkyMotion, time: float) -> Float[Tensor, "3 m m"]:
        """Draw the picture at a time, values in [-1, 1].

        Args:
            motion: How the clouds move.
            time: In clips.
        """
        points = _pixel_centres(self.size)
        aimed, is_mirrored = self._mirror(points)
        sky = self._sky(aimed, motion.source_of(aimed, time), motion.evolution * time)
        sky = torch.where(is_mirrored, sky * self.water_tint[:, None, None], sky)
        picture = self.coverage * self.ground + (1 - self.coverage) * sky
        return picture.mul(2).sub(1).clamp(-1, 1)

    def flow(self, motion: SkyMotion, time: float, *, size: int) -> Float[Tensor, "2 k k"]:
        """Return the exact backward flow from `time` to 0, in picture widths and heights.

        It is that of the clouds; the clear sky's gradient from zenith to horizon stays where it is.

        Args:
            motion: How the clouds move.
            time: In clips.
            size: Rows and columns of the result; the ground's share of each cell does not move.
        """
        points = _pixel_centres(size)
        aimed, is_mirrored = self._mirror(points)
        flow = motion.source_of(aimed, time) - aimed
        flow = torch.where(is_mirrored, flow * flow.new_tensor([1.0, -1.0])[:, None, None], flow)
        moving = functional.adaptive_avg_pool2d(self.moving[None], size)
        return flow * moving

    def _mirror(self, points: Tensor) -> tuple[Tensor, Tensor]:
        if self.waterline is None:
            return points, torch.zeros_like(points[:1], dtype=torch.bool)
        x, y = points
        below = y > self.waterline
        return torch.stack([x, torch.where(below, 2 * self.waterline - y, y)]), below[None]

    def _sky(self, seen: Tensor, source: Tensor, evolved: float) -> Tensor:
        zenith, horizon, lit, shaded = self.palette[:, :, None, None]
        height = seen[1].clamp(0, 1) ** 1.5
        clear = zenith + (horizon - zenith) * height
        on_tile = _apply(self.plane, source) * self.scale[0] + self.scale[1:, None, None]
        density = self._density(on_tile, evolved)
        towards_light = self._density(on_tile + self.light[:, None, None] * 0.03, evolved)
        alpha = ((density - self.cover[0]) / self.cover[1]).clamp(0, 1)
        alpha = alpha * alpha * (3 - 2 * alpha)
        shade = (0.5 + (density - towards_light) * 1.2 + 0.25 * (density - 0.5)).clamp(0, 1)
        cloud = shaded + (lit - shaded) * shade
        haze = (0.85 * height**3).clamp(0, 1) * 0.6
        cloud = cloud + (horizon - cloud) * haze
        sky: Tensor = clear + (cloud - clear) * alpha
        return sky

    def _density(self, on_tile: Tensor, evolved: float) -> Tensor:
        first, second = _sample_tile(self.density, on_tile).unbind(0)
        density: Tensor = first + (second - first) * min(max(evolved, 0.0), 1.0)
        return density


def draw_motion(
    generator: torch.Generator,
    *,
    direction: float | None = None,
    speed: float | None = None,
) -> SkyMotion:
    """Draw how clouds move: on a flat or a receding plane, straight, turning or growing.

    Args:
        generator: Source of randomness.
        direction: Of the wind on the plane, in radians, 0 to the right and pi / 2 downwards;
            drawn when None. In a sky that turns or grows, that of one point of the picture.
        speed: In picture widths per clip, 0 to 0.4; drawn when None (one sky in twelve is still).
    """
    uniform = _Uniform(generator)
    angle = uniform(0, 2 * math.pi) if direction is None else direction
    if speed is None:
        speed = 0.0 if uniform(0, 1) < 1 / 12 else math.exp(uniform(math.log(0.015), math.log(0.4)))
    plane = _draw_plane(uniform)
    turning = uniform(-0.15, 0.15) if uniform(0, 1) < 0.2 else 0.0
    growth = uniform(-0.3, 0.3) if uniform(0, 1) < 0.25 else 0.0
    if speed == 0:
        turning = growth = 0.0
    linear = torch.tensor([[growth, -turning], [turning, growth]])
    centre = torch.tensor([uniform(0, 1), uniform(0, 1)])
    wind = torch.tensor([math.cos(angle), math.sin(angle)]) * speed - linear @ _of(plane, centre)
    matrix = torch.zeros(3, 3)
    matrix[:2, :2], matrix[:2, 2] = linear, wind
    roughness = speed * uniform(0, 0.35)
    return SkyMotion(
        plane=plane,
        generator=matrix,
        deformation=torch.randn(2, 4, 4, generator=generator) * roughness,
        acceleration=uniform(-0.3, 0.3),
        evolution=uniform(0, 0.35),
    )


def draw_scene(
    generator: torch.Generator,
    *,
    size: int,
    plane: Float[Tensor, "3 3"] | None = None,
    textures: UInt8[Tensor, "k 3 s s"] | None = None,
) -> SkyScene:
    """Draw a sky over a foreground: hills, roofs, trees, perhaps water that mirrors the sky.

    Args:
        generator: Source of randomness.
        size: Width and height of the pictures, in pixels.
        plane: The homography of the motion that this scene will have, so that clouds get smaller
            towards the horizon; the identity when None.
        textures: Pictures from which foregrounds are cut; procedural ones only when None.
    """
    uniform = _Uniform(generator)
    exponent = uniform(1.3, 2.2)
    waterline = uniform(0.45, 0.8) if uniform(0, 1) < 0.2 else None
    coverage = _draw_coverage(uniform, generator, size=size, waterline=waterline)
    angle = uniform(0, 2 * math.pi)
    return SkyScene(
        density=torch.stack([_fractal_tile(generator, exponent=exponent) for _ in range(2)]),
        plane=torch.eye(3) if plane is None else plane,
        scale=torch.tensor([uniform(0.25, 0.9), uniform(0, 1), uniform(0, 1)]),
        cover=torch.tensor([uniform(0.1, 0.65), uniform(0.1, 0.6)]),
        palette=_draw_palette(uniform),
        light=torch.tensor([math.cos(angle), math.sin(angle)]) * uniform(0.3, 1.5),
        ground=_draw_ground(uniform, generator, size=size, textures=textures),
        coverage=coverage,
        waterline=waterline,
        water_tint=torch.tensor([uniform(0.4, 0.9), uniform(0.5, 0.95), uniform(0.6, 1.0)]),
    )


class _Uniform:
    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))


def _draw_plane(uniform: _Uniform) -> Tensor:
    """The identity, or a plane that recedes to a horizon below the upper edge.

    (x, y) goes to ((x - c) k / (h - y), k / (h - y)); k makes one unit of the plane one picture
    width at a third of the way down.
    """
    if uniform(0, 1) < 0.4:
        return torch.eye(3)
    horizon, centre = uniform(1.05, 1.8), uniform(0.2, 0.8)
    scale = horizon - 0.33
    return torch.tensor([[scale, 0.0, -centre * scale], [0.0, 0.0, scale], [0.0, -1.0, horizon]])


def _draw_palette(uniform: _Uniform) -> Tensor:
    kinds = {
        "day": ((0.15, 0.35, 0.7), (0.6, 0.75, 0.9), (0.98, 0.98, 0.98), (0.55, 0.6, 0.68)),
        "overcast": ((0.5, 0.55, 0.6), (0.7, 0.72, 0.75), (0.88, 0.88, 0.88), (0.3, 0.33, 0.37)),
        "sunset": ((0.2, 0.22, 0.45), (0.95, 0.55, 0.25), (1.0, 0.75, 0.45), (0.35, 0.2, 0.3)),
        "dusk": ((0.05, 0.07, 0.18), (0.3, 0.3, 0.45), (0.5, 0.45, 0.5), (0.1, 0.1, 0.18)),
        "storm": ((0.15, 0.17, 0.2), (0.4, 0.42, 0.45), (0.6, 0.6, 0.6), (0.08, 0.09, 0.1)),
    }
    names = list(kinds)
    palette = torch.tensor(kinds[names[int(uniform(0, len(names) - 1e-6))]])
    jitter = torch.tensor([[uniform(-0.05, 0.05) for _ in range(3)] for _ in range(4)])
    return (palette * uniform(0.75, 1.15) + jitter).clamp(0, 1)


def _draw_coverage(
    uniform: _Uniform, generator: torch.Generator, *, size: int, waterline: float | None
) -> Tensor:
    """1 below a ragged skyline with roofs and trunks; with water, only a strip at its line."""
    kind = uniform(0, 1)
    if waterline is None and kind < 0.12:
        return torch.zeros(size, size)  # nothing but sky
    if waterline is None and kind > 0.9:
        return torch.ones(size, size)  # a picture in which nothing moves
    skyline = _draw_skyline(uniform, generator, size=size, waterline=waterline)
    y = _pixel_centres(size)[1]
    softness = uniform(0.4, 1.5) / size
    coverage = torch.sigmoid((y - skyline[None]) / softness)
    if waterline is not None:
        shore = waterline + uniform(0, 0.04)
        coverage = coverage * torch.sigmoid((shore - y) / softness)
        if uniform(0, 1) < 0.5:
            near = uniform(0.85, 1.05) + _fractal_line(generator, size, exponent=1.5) * 0.06
            coverage = torch.maximum(coverage, torch.sigmoid((y - near[None]) / softness))
    return coverage.clamp(0, 1)


def _draw_skyline(
    uniform: _Uniform, generator: torch.Generator, *, size: int, waterline: float | None
) -> Tensor:
    """The y of the upper edge of the ground in every column: hills, and roofs on some."""
    base = uniform(0.35, 0.98) if waterline is None else waterline - uniform(0, 0.12)
    ragged = _fractal_line(generator, size, exponent=uniform(1.0, 2.5)) * uniform(0.0, 0.18)
    slope = torch.linspace(-1, 1, size) * uniform(-0.15, 0.15)
    skyline = base + ragged + slope
    for _ in range(int(uniform(0, 6)) if uniform(0, 1) < 0.4 else 0):
        left = int(uniform(0, size))
        right = min(size, left + 1 + int(uniform(0, size * 0.18)))
        skyline[left:right] = skyline[left:right].min() - uniform(0.0, 0.2)
    return skyline


def _draw_ground(
    uniform: _Uniform, generator: torch.Generator, *, size: int, textures: Tensor | None
) -> Tensor:
    if textures is not None and uniform(0, 1) < 0.7:
        index = int(uniform(0, len(textures) - 1e-6))
        side = textures.shape[-1]
        crop = int(uniform(0.4, 1.0) * side)
        top, left = int(uniform(0, side - crop)), int(uniform(0, side - crop))
        piece = textures[index, :, top : top + crop, left : left + crop].float() / 255
        if uniform(0, 1) < 0.5:
            piece = piece.flip(-1)
        ground = functional.interpolate(
            piece[None], (size, size), mode="bilinear", align_corners=False
        )[0]
    elif uniform(0, 1) < 0.5:
        ground = _draw_rock(uniform, generator, size=size)
    else:
        grain = _fit_tile(_fractal_tile(generator, exponent=uniform(0.3, 1.5)), size)
        colour = torch.tensor([uniform(0.1, 0.6), uniform(0.1, 0.6), uniform(0.05, 0.5)])
        ground = colour[:, None, None] * (0.5 + grain * uniform(0.3, 1.5))
    gain = torch.tensor([uniform(0.5, 1.1) for _ in range(3)]) * uniform(0.4, 1.1)
    return (ground * gain[:, None, None]).clamp(0, 1)


def _draw_rock(uniform: _Uniform, generator: torch.Generator, *, size: int) -> Tensor:
    """Grey and brown ridges, with snow on some: what a mask may take for clouds."""
    relief = _fit_tile(_fractal_tile(generator, exponent=uniform(0.8, 1.4)), size)
    lit = (relief - relief.roll((1, 1), dims=(1, 2))) * uniform(2.0, 6.0) + 0.5
    grey = uniform(0.3, 0.75)
    colour = torch.tensor([grey * uniform(0.95, 1.15), grey, grey * uniform(0.85, 1.1)])
    rock = colour[:, None, None] * (0.5 + lit)
    if uniform(0, 1) < 0.5:
        where = _fit_tile(_fractal_tile(generator, exponent=uniform(1.2, 2.0)), size)
        snow = torch.sigmoid((where - uniform(0.4, 1.0)) * 30)
        rock = rock + (uniform(0.8, 1.0) - rock) * snow
    return rock.clamp(0, 1)


def _fit_tile(tile: Tensor, size: int) -> Tensor:
    return functional.interpolate(tile[None, None], (size, size), mode="area")[0]


def _fractal_tile(generator: torch.Generator, *, exponent: float) -> Tensor:
    """Periodic noise with amplitude 1 / frequency^exponent, mean 0.5, deviation 0.25."""
    fy = torch.fft.fftfreq(_TILE)[:, None] * _TILE
    fx = torch.fft.rfftfreq(_TILE)[None] * _TILE
    radius = (fx * fx + fy * fy).sqrt().clamp_min(1.5)
    noise = torch.fft.rfft2(torch.randn(_TILE, _TILE, generator=generator))
    tile: Tensor = torch.fft.irfft2(noise * radius**-exponent, s=(_TILE, _TILE))
    return 0.5 + 0.25 * (tile - tile.mean()) / tile.std()


def _fractal_line(generator: torch.Generator, size: int, *, exponent: float) -> Tensor:
    """Noise along a line, not periodic, with amplitude 1 / frequency^exponent, mean 0."""
    radius = (torch.fft.rfftfreq(2 * size) * 2 * size).clamp_min(1.0)
    noise = torch.fft.rfft(torch.randn(2 * size, generator=generator)) * radius**-exponent
    line: Tensor = torch.fft.irfft(noise, n=2 * size)[:size]
    return (line - line.mean()) / (line.std() + 1e-6)


def _sample_tile(tile: Tensor, coordinates: Tensor) -> Tensor:
    """Bilinear samples of periodic tiles (c n n) at coordinates (2 h w) in tiles."""
    padded = functional.pad(tile[None], (0, 1, 0, 1), mode="circular")
    grid = (coordinates - coordinates.floor()).mul(2).sub(1).permute(1, 2, 0)[None]
    return functional.grid_sample(padded, grid, mode="bilinear", align_corners=True)[0]


def _smooth_field(points: Tensor, at: Tensor) -> Tensor:
    grid = at.mul(2).sub(1).clamp(-1, 1).permute(1, 2, 0)[None]
    return functional.grid_sample(
        points[None], grid, mode="bicubic", padding_mode="border", align_corners=True
    )[0]


def _pixel_centres(size: int) -> Tensor:
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y])


def _homogeneous(points: Tensor) -> Tensor:
    return torch.cat([points, torch.ones_like(points[:1])])


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    x, y, depth = torch.einsum("ij,jhw->ihw", matrix, _homogeneous(points)).unbind(0)
    depth = depth.clamp_min(0.05)
    return torch.stack([x / depth, y / depth])


def _of(matrix: Tensor, point: Tensor) -> Tensor:
    return _apply(matrix, point[:, None, None])[:, 0, 0]
