"""Rendering with a camera, a lamp and soft shadows.

pybullet's software renderer needs no graphics card, but it has no antialiasing and no soft
shadows. `render` therefore draws each picture at a larger size and shrinks it, and computes shadows
with a shadow map: a second picture from the position of the lamp.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from cinnema.simulators.push.engine import Colour, Engine, Point
from cinnema.simulators.push.meshes import unit

_TINY_RENDERER = 1 << 16
_NO_SEGMENTATION = 4
_LAMP_SIDE = 192  # height and width of the shadow map, in pixels
# Sample points on a disc, for soft shadows.
_DISC = [(0.0, 0.0)] + [
    (r * float(np.cos(a)), r * float(np.sin(a)))
    for r, n in ((0.5, 3), (1.0, 6))
    for a in (np.arange(n) + r) * 2 * np.pi / n
]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera for square pictures.

    Attributes:
        eye: Position, in metres.
        target: Point at the centre of the picture, in metres.
        up: Direction that points up in the picture.
        field_of_view: Angle between opposite edges, in degrees.
        size: Height and width of the picture, in pixels.
        supersampling: Factor by which the picture is drawn larger before it is shrunk.
        near: Distance of the near clipping plane, in metres.
        far: Distance of the far clipping plane, in metres.

    Example:
        >>> camera = Camera(eye=(0, -2, 1), target=(0, 0, 0), field_of_view=40, size=64)
        >>> camera.project(np.zeros((1, 3))).tolist()
        [[32.0, 32.0]]
    """

    eye: Point
    target: Point
    up: Point = (0.0, 0.0, 1.0)
    field_of_view: float = 45.0
    size: int = 64
    supersampling: int = 2
    near: float = 0.1
    far: float = 10.0

    @cached_property
    def view(self) -> Float[np.ndarray, "4 4"]:
        """Matrix from world to camera coordinates; the camera looks along its -z axis, y is up."""
        eye = np.asarray(self.eye, dtype=np.float64)
        back = unit(eye - np.asarray(self.target))
        right = unit(np.cross(np.asarray(self.up, dtype=np.float64), back))
        axes = np.stack([right, np.cross(back, right), back])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = axes, -axes @ eye
        return matrix

    @cached_property
    def projection(self) -> Float[np.ndarray, "4 4"]:
        """Matrix from camera to clip coordinates; after division by w the picture is [-1, 1]^2."""
        scale = 1 / np.tan(np.radians(self.field_of_view) / 2)
        depth = self.far - self.near
        matrix = np.diag([scale, scale, -(self.far + self.near) / depth, 0.0])
        matrix[2, 3], matrix[3, 2] = -2 * self.far * self.near / depth, -1.0
        return matrix

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Project points in front of the camera into the picture.

        Args:
            points: World coordinates, in metres.

        Returns:
            x (to the right) and y (downwards) in pixels; (0, 0) is the picture's upper left corner
            and (0.5, 0.5) the centre of the first pixel.
        """
        clip = _homogeneous(points) @ (self.projection @ self.view).T
        unit = clip[:, :2] / clip[:, 3:]
        return np.asarray((unit * [1, -1] + 1) / 2 * self.size)


@dataclass(frozen=True, kw_only=True)
class Light:
    """A distant lamp and ambient light.

    A surface's colour is multiplied by ambient + colour * (diffuse * cos + specular * highlight),
    and by 1 - shadow where the lamp is hidden.

    Attributes:
        direction: Direction towards the lamp; z must be positive.
        colour: Colour of the lamp.
        ambient: Strength of the ambient light.
        diffuse: Strength of the lamp at perpendicular incidence.
        specular: Strength of highlights.
        shadow: Darkness of full shadow, in [0, 1]; 0 skips the shadow map.
        softness: Width of the shadows' edges, in metres.
        centre: Centre of the ball within which shadows are computed, in metres.
        reach: Radius of that ball, in metres.
    """

    direction: Point = (0.4, -0.5, 1.0)
    colour: Colour = (1.0, 1.0, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.5
    specular: float = 0.1
    shadow: float = 0.45
    softness: float = 0.02
    centre: Point = (0.0, 0.0, 0.0)
    reach: float = 1.0


@dataclass(frozen=True, kw_only=True)
class View:
    """A picture without shadows, with its depth and its shadow map.

    Attributes:
        colours: Colours without shadows, at the supersampled size.
        distances: Depth along the camera's line of sight, in metres; `far` for the background.
        from_lamp: Depth seen from the lamp; None without shadows.
    """

    colours: UInt8[np.ndarray, "s s 3"]
    distances: Float32[np.ndarray, "s s"]
    from_lamp: Float32[np.ndarray, "l l"] | None

    def before(self, other: "View") -> "View":
        """Merge with the view of another scene; the nearer surface is visible.

        Args:
            other: A view from the same camera and lamp.
        """
        is_nearer = self.distances < other.distances
        from_lamp = self.from_lamp
        if from_lamp is not None and other.from_lamp is not None:
            from_lamp = np.minimum(from_lamp, other.from_lamp)
        return View(
            colours=np.where(is_nearer[..., None], self.colours, other.colours),
            distances=np.where(is_nearer, self.distances, other.distances),
            from_lamp=from_lamp,
        )


def look(engine: Engine, camera: Camera, light: Light) -> View:
    """Draw the simulation from the camera and from the lamp.

    To save time, draw static bodies once, remove them, and pass their view to `render`.

    Args:
        engine: The simulation.
        camera: The camera.
        light: The light.
    """
    colours, distances = _draw(engine, camera, camera.size * camera.supersampling, light=light)
    from_lamp = _draw(engine, _lamp(light), _LAMP_SIDE)[1] if light.shadow > 0 else None
    return View(colours=colours, distances=distances, from_lamp=from_lamp)


def render(
    engine: Engine, camera: Camera, light: Light, *, scenery: View | None = None
) -> UInt8[np.ndarray, "s s 3"]:
    """Render the simulation with shadows and antialiasing.

    Args:
        engine: The simulation.
        camera: The camera.
        light: The light.
        scenery: View of static bodies that were removed from the simulation; they cast and receive
            shadows. Defaults to none.

    Returns:
        The picture in sRGB, at the camera's size; the background is white.
    """
    view = look(engine, camera, light)
    if scenery is not None:
        view = view.before(scenery)
    picture = view.colours.astype(np.float32)
    if view.from_lamp is not None:
        picture *= 1 - light.shadow * _hidden(camera, light, view.distances, view.from_lamp)
    small = cv2.resize(picture, (camera.size, camera.size), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(small + 0.5, 0, 255), dtype=np.uint8)


def _draw(
    engine: Engine, camera: Camera, side: int, *, light: Light | None = None
) -> tuple[UInt8[np.ndarray, "s s 3"], Float32[np.ndarray, "s s"]]:
    """Return colours, and depth in metres, which is `far` for the background."""
    # The renderer samples at the pixels' lower left corners; the picture is shifted by half a
    # pixel so that it samples at the centres, and a mirrored scene has the mirrored picture.
    projection = camera.projection.copy()
    projection[:2, 2] += 1 / side
    options: dict[str, Any] = {}
    if light is not None:
        options = {
            "lightDirection": light.direction,
            "lightColor": light.colour,
            "lightAmbientCoeff": light.ambient,
            "lightDiffuseCoeff": light.diffuse,
            "lightSpecularCoeff": light.specular,
        }
    _, _, pixels, depth, _ = engine.getCameraImage(
        side,
        side,
        viewMatrix=camera.view.T.ravel().tolist(),
        projectionMatrix=projection.T.ravel().tolist(),
        shadow=0,
        renderer=_TINY_RENDERER,
        flags=_NO_SEGMENTATION,
        **options,
    )
    near, far = np.float32(camera.near), np.float32(camera.far)
    distances = near * far / (far - (far - near) * np.asarray(depth).reshape(side, side))
    distances[distances > 0.999 * far] = far
    return np.asarray(pixels, dtype=np.uint8).reshape(side, side, 4)[..., :3], distances


def _hidden(
    camera: Camera,
    light: Light,
    distances: Float32[np.ndarray, "s s"],
    from_lamp: Float32[np.ndarray, "l l"],
) -> Float32[np.ndarray, "s s 1"]:
    """Return the hidden share of the lamp at each pixel of the camera, in [0, 1]."""
    lamp = _lamp(light)
    place, distance = _seen_from(lamp, camera, distances)
    pixel = 2 * light.reach / _LAMP_SIDE
    # A flat ground, whose distance from the lamp changes by `slope` along the shadow map, must not
    # cast shadows on itself, neither within a pixel nor at the neighbouring samples.
    x, y, z = light.direction
    slope = max(1.0, float(np.hypot(x, y)) / z)
    # No shadows from the background or from outside the shadow map.
    nearest = np.where(from_lamp < lamp.far, from_lamp, 2 * lamp.far).astype(np.float32)
    hidden = np.zeros_like(distance)
    for x, y in _DISC:
        step = np.array([x * light.softness, y * light.softness], dtype=np.float32)
        columns, rows = cv2.split(place + step / np.float32(pixel))
        at_lamp = cv2.remap(
            nearest,
            columns,
            rows,
            interpolation=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=2 * lamp.far,
        )
        hidden += at_lamp < distance - np.float32(slope * (pixel + np.hypot(*step)))
    return hidden[..., None] / np.float32(len(_DISC))


def _lamp(light: Light) -> Camera:
    """Return the lamp as a camera, at 8 radii, where its rays are nearly parallel."""
    distance = 8 * light.reach
    eye = np.asarray(light.centre) + unit(np.asarray(light.direction)) * distance
    x, y, z = eye.tolist()
    return Camera(
        eye=(x, y, z),
        target=light.centre,
        up=(0.0, 1.0, 0.0),
        field_of_view=float(np.degrees(2 * np.arcsin(light.reach / distance))),
        near=distance - light.reach,
        far=distance + light.reach,
    )


def _seen_from(
    lamp: Camera, camera: Camera, distances: Float32[np.ndarray, "s s"]
) -> tuple[Float32[np.ndarray, "s s 2"], Float32[np.ndarray, "s s"]]:
    """Return the position in the shadow map, and the distance from the lamp, of each pixel."""
    rays, eye = _rays(lamp, camera, len(distances))
    seen = distances[..., None] * rays + eye
    distance = -seen[..., 2]
    scale = np.float32(lamp.projection[0, 0] * _LAMP_SIDE / 2) / distance[..., None]
    centre = np.float32((_LAMP_SIDE - 1) / 2)
    return seen[..., :2] * scale * np.array([1, -1], dtype=np.float32) + centre, distance


@lru_cache(maxsize=2)
def _rays(
    lamp: Camera, camera: Camera, side: int
) -> tuple[Float32[np.ndarray, "s s 3"], Float32[np.ndarray, "3"]]:
    """Return the camera's rays (of depth 1 m) and its eye in the coordinates of the lamp."""
    axis = ((np.arange(side) + 0.5) / side * 2 - 1) / camera.projection[0, 0]
    x, y = np.meshgrid(axis, -axis)
    change = lamp.view @ np.linalg.inv(camera.view)
    rays = np.stack([x, y, np.full_like(x, -1)], axis=-1) @ change[:3, :3].T
    return rays.astype(np.float32), change[:3, 3].astype(np.float32)


def _homogeneous(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    return np.concatenate([points, np.ones_like(points[:, :1])], axis=1)
