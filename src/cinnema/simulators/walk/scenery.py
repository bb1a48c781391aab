"""The static surroundings of a person: a camera, a light, and a room or a park.

The origin is on the floor below the person's first position; x points to the right of the picture,
y away from the camera and z up, in metres. Pixels are traced to planes (floor, back wall, side
wall, sky) at a larger size, which is then reduced. Shadows are drawn and blurred on a plane that
unfolds floor and back wall, and sampled at each pixel.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray

from cinnema.simulators.colours import draw_colour, pick
from cinnema.simulators.walk.figure import Light
from cinnema.simulators.walk.surfaces import (
    Colour,
    Paint,
    Plane,
    SurfaceNoise,
    bricks,
    carpet,
    concrete,
    draw_sky,
    grass,
    planks,
    plaster,
    sand,
    striped,
    tiles,
    wainscot,
    with_decor,
    with_rug,
    with_skirting,
    with_windows,
)

# Factor by which pictures are traced larger.
_OVERSAMPLING = 3
# The shadows' grid: side of a cell and position of its corner in metres, cells along a side.
_CELL = 0.04
_CORNER = (-3.0, -2.0)
_NUM_CELLS = 150
# Largest length of rays, in metres.
_FAR = np.float32(80.0)


@dataclass(frozen=True)
class Camera:
    """A static pinhole camera.

    Attributes:
        eye: Position.
        target: Point at the centre of the picture.
        focal: Focal length in picture widths; large for a telephoto lens.
    """

    eye: Float64[np.ndarray, "3"]
    target: Float64[np.ndarray, "3"]
    focal: float

    def project(
        self, points: Float64[np.ndarray, "*n 3"]
    ) -> tuple[Float64[np.ndarray, "*n 2"], Float64[np.ndarray, "*n"]]:
        """Project points into the picture.

        Args:
            points: Positions in metres.

        Returns:
            (x, y) from (0, 0), the upper left corner, to (1, 1), the lower right one; and the depth
            in metres.
        """
        right, up, forward = self._axes()
        ray = points - self.eye
        depth = ray @ forward
        across, rise = ray @ right, ray @ up
        picture = np.stack([across / depth, -rise / depth], axis=-1) * self.focal + 0.5
        return picture, np.asarray(depth)

    def rays(self, size: int) -> Float64[np.ndarray, "h w 3"]:
        """Return the rays of the pixels, of depth 1 m.

        Args:
            size: Height and width of the picture, in pixels.
        """
        right, up, forward = self._axes()
        axis = ((np.arange(size) + 0.5) / size - 0.5) / self.focal
        return forward + axis[None, :, None] * right - axis[:, None, None] * up

    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        forward = self.target - self.eye
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right = right / np.linalg.norm(right)
        return right, np.cross(right, forward), forward


@dataclass(frozen=True)
class Scenery:
    """A picture of a place without a person, and what is needed to add the shadow of one.

    Attributes:
        picture: sRGB in [0, 1].
        unfolded: Position of each pixel on the floor, (x, y), or on the back wall, (x, wall + z),
            in cells of the shadows' grid; far outside of it for other surfaces.
        wall: y of the back wall; infinite outdoors.
        light: Light on the place and on the person.
        shade: Remaining share of the light in full shadow, for each colour channel.
    """

    picture: Float32[np.ndarray, "h w 3"]
    unfolded: Float32[np.ndarray, "h w 2"]
    wall: float
    light: Light
    shade: Float32[np.ndarray, "3"]

    def shadowed(
        self, points: Float64[np.ndarray, "v 3"], pieces: Mapping[str, Int64[np.ndarray, "_"]]
    ) -> Float32[np.ndarray, "h w 3"]:
        """Return the picture with the shadow of a person.

        Args:
            points: Vertices of the skin.
            pieces: Indices of the vertices of each nearly convex piece, by joint. Shins and feet,
                which are near the floor, have sharper shadows and darken the floor below them.
        """
        sharp, soft, under = np.zeros((3, _NUM_CELLS, _NUM_CELLS), dtype=np.uint8)
        shadow, beneath = to_cells(self._cast(points)), to_cells(points[:, :2])
        for name, piece in pieces.items():
            is_low = name.endswith(("knee", "ankle"))
            _fill(sharp if is_low else soft, shadow[piece])
            if is_low:
                _fill(under, beneath[piece])
        closeness = np.float32(0.45 * math.exp(-max(float(points[:, 2].min()), 0.0) / 0.15))
        dark = self._looked_up(np.maximum(_blurred(sharp, 0.9), _blurred(soft, 1.9)))
        under_feet = self._looked_up(_blurred(under, 1.5)) * closeness
        kept = (1 - dark * (1 - self.shade)) * (1 - under_feet)
        return np.asarray(self.picture * kept, dtype=np.float32)

    def _looked_up(self, cells: Plane) -> Plane:
        x, y = self.unfolded[..., 0], self.unfolded[..., 1]
        found = cv2.remap(cells, x, y, cv2.INTER_LINEAR)
        return np.asarray(found[..., None], dtype=np.float32)

    def _cast(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project points along the light onto the unfolded floor and wall."""
        x, y, z = points.T
        across, away, down = -self.light.towards
        steps = z / -down
        hit_x, hit_y = x + steps * across, y + steps * away
        if math.isfinite(self.wall) and away > 1e-6:
            to_wall = (self.wall - y) / away
            climbs = hit_y > self.wall
            hit_x = np.where(climbs, x + to_wall * across, hit_x)
            hit_y = np.where(climbs, self.wall + z + to_wall * down, hit_y)
        return np.stack([hit_x, hit_y], axis=1)


def to_cells(points: NDArray[np.floating[Any]]) -> Plane:
    """Convert positions on the unfolded floor and wall to cells of the shadows' grid.

    Args:
        points: Positions in metres.
    """
    cells = (points - np.array(_CORNER)) / _CELL - 0.5
    return np.asarray(np.clip(cells, -500, 700), dtype=np.float32)


def _fill(mask: NDArray[np.uint8], cells: Plane) -> None:
    corners = np.rint(cv2.convexHull(cells) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, (255.0,), cv2.LINE_AA, 4)


def _blurred(mask: NDArray[np.uint8], sigma: float) -> Plane:
    blurred = cv2.GaussianBlur(mask, (0, 0), sigma)
    return np.asarray(blurred.astype(np.float32) / 255)


def draw_camera(rng: np.random.Generator, *, stature: float) -> Camera:
    """Draw a camera that sees a whole person at the origin, with room for raised arms.

    Args:
        rng: Source of randomness.
        stature: Height of the person, in metres.
    """
    focal = rng.uniform(1.2, 2.4)
    seen = stature * rng.uniform(1.42, 1.6)
    target = np.array([rng.normal(0, 0.04), 0.0, stature * rng.uniform(0.56, 0.61)])
    rise = rng.uniform(-0.1, 0.3)
    away = focal * seen
    eye = target + away * np.array([0.0, -math.cos(rise), math.sin(rise)])
    eye[2] = max(eye[2], 0.4)
    return Camera(eye, target, focal)


def draw_scenery(rng: np.random.Generator, camera: Camera, *, size: int) -> Scenery:
    """Draw a place and render it.

    Args:
        rng: Source of randomness.
        camera: The camera.
        size: Height and width of the picture, in pixels.
    """
    place = pick(rng, PLACES)(rng)
    large = size * _OVERSAMPLING
    colours, unfolded = place.trace(camera.eye, camera.rays(large))
    picture = cv2.resize(np.clip(colours, 0, 1), (size, size), interpolation=cv2.INTER_AREA)
    middle = slice(_OVERSAMPLING // 2, None, _OVERSAMPLING)
    return Scenery(
        picture=np.asarray(picture, dtype=np.float32),
        unfolded=to_cells(unfolded[middle, middle]),
        wall=place.wall,
        light=place.light,
        shade=_shade(place.light),
    )


def _shade(light: Light) -> Plane:
    """Return the ambient share of the light on the floor."""
    lit = light.on(np.array([0.0, 0.0, 1.0]))
    return np.asarray(light.above / lit, dtype=np.float32)


@dataclass(frozen=True)
class Place:
    """Coloured planes: a floor, optional walls, and a sky.

    Attributes:
        floor: Colour as a function of (x, y).
        light: Light on all planes.
        wall: y of the back wall, or infinity.
        wall_paint: Its colour as a function of (x, z).
        side: x of a side wall, or infinity.
        side_paint: Its colour as a function of (y, z).
        sky: Colour as a function of azimuth and elevation, in radians.
        corner: Darkness of the corners between planes, in [0, 1].
        haze: Colour of the floor in the distance.
    """

    floor: Paint
    light: Light
    wall: float = math.inf
    wall_paint: Paint | None = None
    side: float = math.inf
    side_paint: Paint | None = None
    sky: Paint | None = None
    corner: float = 0.35
    haze: Colour | None = None

    def trace(self, eye: NDArray[np.float64], rays: NDArray[np.float64]) -> tuple[Plane, Plane]:
        """Trace rays to the planes.

        Args:
            eye: Position of the camera.
            rays: Directions of the rays.

        Returns:
            Colours of the rays, and their positions on the unfolded floor and back wall, in metres;
            -1000 for rays that end elsewhere.
        """
        ray = rays.astype(np.float32)
        planes = ((2, 0.0), (1, self.wall), (0, self.side))
        steps = np.stack([_steps_to(place - eye[axis], ray[..., axis]) for axis, place in planes])
        nearest, length = steps.argmin(axis=0), steps.min(axis=0)
        x, y, z = np.moveaxis(eye.astype(np.float32) + ray * length[..., None], -1, 0)
        colours = self._floor_at(x, y, length)
        if self.wall_paint is not None:
            colours = np.where((nearest == 1)[..., None], self._wall_at(x, z), colours)
        if self.side_paint is not None:
            colours = np.where((nearest == 2)[..., None], self._side_at(y, z), colours)
        is_open = length >= _FAR
        if self.sky is not None:
            azimuth = np.arctan2(ray[..., 0], ray[..., 1])
            elevation = np.arctan2(ray[..., 2], np.hypot(ray[..., 0], ray[..., 1]))
            is_open |= elevation > -0.005
            colours = np.where(is_open[..., None], self.sky(azimuth, elevation), colours)
        unfolded = np.stack([x, np.where(nearest == 1, np.float32(self.wall) + z, y)], axis=-1)
        is_elsewhere = is_open | (nearest == 2)
        return colours, np.where(is_elsewhere[..., None], np.float32(-1e3), unfolded)

    def _floor_at(self, x: Plane, y: Plane, length: Plane) -> Plane:
        colours = self.floor(x, y) * _lit(self.light, (0.0, 0.0, 1.0))
        colours = colours * self._corner(self.wall - y) * self._corner(abs(self.side - x))
        if self.haze is None:
            return np.asarray(colours * _falloff(x, y)[..., None])
        fog = (1 - np.exp(-length / 25))[..., None]
        return np.asarray(colours * (1 - fog) + self.haze.astype(np.float32) * fog)

    def _wall_at(self, x: Plane, z: Plane) -> Plane:
        assert self.wall_paint is not None
        colours = self.wall_paint(x, z) * _lit(self.light, (0.0, -1.0, 0.0))
        colours = colours * self._corner(z) * self._corner(abs(self.side - x))
        return np.asarray(colours * _falloff(x, z - 1.2)[..., None])

    def _side_at(self, y: Plane, z: Plane) -> Plane:
        assert self.side_paint is not None
        inwards = -1.0 if self.side > 0 else 1.0
        colours = self.side_paint(y, z) * _lit(self.light, (inwards, 0.0, 0.0))
        return np.asarray(colours * self._corner(z) * self._corner(self.wall - y))

    def _corner(self, distance: Plane) -> Plane:
        """Return the share of the light at a distance from the next plane."""
        near = np.exp(-np.maximum(distance, 0) / np.float32(0.3))
        return np.asarray(1 - np.float32(self.corner) * near)[..., None]


def _steps_to(distance: float, ray: Plane) -> Plane:
    """Return the depth at which each ray has gone a distance along one axis."""
    if not math.isfinite(distance):
        return np.full_like(ray, _FAR)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.float32(distance) / ray
    return np.where((steps > 0) & (steps < _FAR), steps, _FAR)


def _lit(light: Light, normal: tuple[float, float, float]) -> Plane:
    return np.asarray(light.on(np.array(normal)), dtype=np.float32)


def _falloff(x: Plane, y: Plane) -> Plane:
    """Return the share of the light, which is brightest in the middle of the room."""
    return np.asarray(1 - 0.22 * np.clip((x * x + y * y) / 12, 0, 1))


def _draw_light(rng: np.random.Generator, ground: Colour, *, is_outdoors: bool) -> Light:
    azimuth, elevation = rng.uniform(-1.4, 1.4), rng.uniform(0.65, 1.15)
    towards = np.array(
        [
            math.sin(azimuth) * math.cos(elevation),
            -math.cos(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ]
    )
    warmth = rng.normal(0.0, 0.035)
    key = rng.uniform(0.5, 0.8) if is_outdoors else rng.uniform(0.3, 0.65)
    total = rng.uniform(0.95, 1.2)
    above = total - key * (towards[2] + 0.25) / 1.25
    return Light(
        towards=towards,
        key=key * np.array([1 + warmth, 1.0, 1 - 1.3 * warmth]),
        above=above * np.array([1 - 0.6 * warmth, 1.0, 1 + 0.8 * warmth]),
        below=above * (0.5 + 0.4 * ground),
    )


def draw_room(rng: np.random.Generator) -> Place:
    """Draw a room with a back wall, and a side wall in some."""
    floor, ground = pick(rng, (planks, planks, tiles, carpet, carpet, concrete))(rng)
    if rng.random() < 0.3:
        floor = with_rug(rng, floor)
    wall = rng.uniform(1.5, 3.5)
    paper = pick(rng, (plaster, plaster, striped, bricks, wainscot))(rng)
    paint = with_skirting(rng, paper)
    side = math.inf
    if rng.random() < 0.45:
        side = pick(rng, (-1.0, 1.0)) * rng.uniform(1.3, 2.4)
    return Place(
        floor=floor,
        light=_draw_light(rng, ground, is_outdoors=False),
        wall=wall,
        wall_paint=with_decor(rng, paint),
        side=side,
        side_paint=paint if math.isfinite(side) else None,
    )


def draw_studio(rng: np.random.Generator) -> Place:
    """Draw a seamless paper backdrop of one colour."""
    colour = draw_colour(rng, dull=0.85)
    noise = SurfaceNoise(rng, exponent=1.6)

    def paper(x: Plane, y: Plane) -> Plane:
        return np.asarray(colour * (1 + 0.02 * noise(x, y, 0.3))[..., None], dtype=np.float32)

    return Place(
        floor=paper,
        light=_draw_light(rng, colour, is_outdoors=False),
        wall=rng.uniform(1.5, 3.0),
        wall_paint=paper,
        corner=0.1,
    )


def draw_park(rng: np.random.Generator) -> Place:
    """Draw open ground under a sky."""
    floor, ground = pick(rng, (grass, grass, sand, concrete, tiles))(rng)
    sky, haze = draw_sky(rng)
    light = _draw_light(rng, ground, is_outdoors=True)
    return Place(floor=floor, light=light, sky=sky, haze=haze)


def draw_street(rng: np.random.Generator) -> Place:
    """Draw a street in front of a house."""
    floor, ground = pick(rng, (tiles, concrete, concrete))(rng)
    light = _draw_light(rng, ground, is_outdoors=True)
    paint = pick(rng, (bricks, plaster, bricks))(rng)
    wall = rng.uniform(2.5, 5.0)
    return Place(floor=floor, light=light, wall=wall, wall_paint=with_windows(rng, paint))


PLACES = (draw_room, draw_room, draw_room, draw_studio, draw_park, draw_street)
"""Kinds of places; repeated ones are as much more likely."""
