"""A camera, a lamp and soft shadows for the engine's worlds.

pybullet's own renderer draws without a graphics card, but with jagged edges and next to no
shadows. `render` therefore draws each picture larger and shrinks it, and finds the shadows by a
second look at the world, from the light.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from cinnema.simulators.push.engine import Colour, Engine, Point

_TINY_RENDERER = 1 << 16


_NO_SEGMENTATION = 4


_LAMP_SIDE = 192  # pixels of the picture from the lamp: what is smaller casts no shadow


_DISC = [(0.0, 0.0)] + [
    (r * float(np.cos(a)), r * float(np.sin(a)))
    for r, n in ((0.5, 3), (1.0, 6))
    for a in (np.arange(n) + r) * 2 * np.pi / n
]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera that takes square pictures.

    Attributes:
        eye: Where it stands, in metres.
        target: What is in the middle of the picture, in metres.
        up: A direction that points up in the picture.
        field_of_view: The angle from edge to edge, in degrees.
        size: Width and height of the picture, in pixels.
        supersampling: How many times larger the picture is drawn before it is shrunk.
        near: Nothing nearer is drawn, in metres.
        far: Nothing further off is drawn, in metres.

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
        """From the world to the camera, which looks along its -z with y up."""
        eye = np.asarray(self.eye, dtype=np.float64)
        back = _unit(eye - np.asarray(self.target))
        right = _unit(np.cross(np.asarray(self.up, dtype=np.float64), back))
        axes = np.stack([right, np.cross(back, right), back])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = axes, -axes @ eye
        return matrix

    @cached_property
    def projection(self) -> Float[np.ndarray, "4 4"]:
        """From the camera to clip coordinates; divided by the last, the picture is [-1, 1]^2."""
        scale = 1 / np.tan(np.radians(self.field_of_view) / 2)
        depth = self.far - self.near
        matrix = np.diag([scale, scale, -(self.far + self.near) / depth, 0.0])
        matrix[2, 3], matrix[3, 2] = -2 * self.far * self.near / depth, -1.0
        return matrix

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Return where points of the world, in front of the camera, are in the picture.

        Args:
            points: In metres.

        Returns:
            x to the right and y downwards in pixels; (0, 0) is the picture's upper left corner, so
            that the first pixel's centre is (0.5, 0.5).
        """
        clip = _homogeneous(points) @ (self.projection @ self.view).T
        unit = clip[:, :2] / clip[:, 3:]
        return np.asarray((unit * [1, -1] + 1) / 2 * self.size)


@dataclass(frozen=True, kw_only=True)
class Light:
    """A lamp far away, and the light that comes from everywhere.

    A surface's colour is multiplied by ambient + colour * (diffuse * cos + specular * highlight),
    and by 1 - shadow where the lamp does not reach.

    Attributes:
        direction: Towards the lamp; z must be above 0.
        colour: Of the lamp.
        ambient: Light from everywhere.
        diffuse: Light of the lamp where it falls straight on.
        specular: Of highlights.
        shadow: What the deepest shadow takes away, in [0, 1]; 0 draws none, in half the time.
        softness: Width of the shadows' edges, in metres.
        centre: Middle of the ball in which shadows are cast and fall, in metres.
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
    """What is seen of a world: from the camera, and how far from the lamp it is.

    Attributes:
        colours: Not yet in shadow, of the camera's supersampled size.
        distances: From the camera along its line of sight, in metres; its `far` where nothing is.
        from_lamp: In the lamp's picture, as far; None where there are no shadows.
    """

    colours: UInt8[np.ndarray, "s s 3"]
    distances: Float32[np.ndarray, "s s"]
    from_lamp: Float32[np.ndarray, "l l"] | None

    def before(self, other: "View") -> "View":
        """Return what is seen of two worlds in one, each hiding what is behind it."""
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
    """Look at the world as it stands, once from the camera and once from the lamp.

    What never moves is best looked at once, and then taken out of the engine: see `render`.
    """
    colours, distances = _draw(engine, camera, camera.size * camera.supersampling, light=light)
    from_lamp = _draw(engine, _lamp(light), _LAMP_SIDE)[1] if light.shadow > 0 else None
    return View(colours=colours, distances=distances, from_lamp=from_lamp)


def render(
    engine: Engine, camera: Camera, light: Light, *, scenery: View | None = None
) -> UInt8[np.ndarray, "s s 3"]:
    """Take a picture of the world as it stands.

    Args:
        engine: Holds the world.
        camera: Sees it.
        light: Lights it.
        scenery: What else is there; casts and takes shadows as if it were in the engine. White
            where nothing is.

    Returns:
        The picture in sRGB, of the camera's size.
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
    """Return colours, and distances along the line of sight in metres, `far` where nothing is."""
    # The renderer takes its samples at the pixels' lower left corners; the picture is moved by
    # half a pixel, so that they are the centres and a mirrored world has the mirrored picture.
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
    """Return how much of the lamp is hidden at each point that the camera sees, in [0, 1]."""
    lamp = _lamp(light)
    place, distance = _seen_from(lamp, camera, distances)
    pixel = 2 * light.reach / _LAMP_SIDE
    # Even ground, whose distance from the lamp changes by `slope` along its picture, must not
    # cast shadows on itself, neither within a pixel nor at the neighbours that soften the edge.
    x, y, z = light.direction
    slope = max(1.0, float(np.hypot(x, y)) / z)
    # Nothing casts a shadow where the lamp sees nothing, nor outside its picture.
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
    """The light as a camera: so far off, 8 radii, that its rays are as good as parallel."""
    distance = 8 * light.reach
    eye = np.asarray(light.centre) + _unit(np.asarray(light.direction)) * distance
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
    """Return where what the camera sees is in the lamp's picture, and how far from the lamp."""
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
    """Return the camera's lines of sight, a metre deep, and its eye, both as the lamp sees them."""
    axis = ((np.arange(side) + 0.5) / side * 2 - 1) / camera.projection[0, 0]
    x, y = np.meshgrid(axis, -axis)
    change = lamp.view @ np.linalg.inv(camera.view)
    rays = np.stack([x, y, np.full_like(x, -1)], axis=-1) @ change[:3, :3].T
    return rays.astype(np.float32), change[:3, 3].astype(np.float32)


def _unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    return np.asarray(vector / np.linalg.norm(vector))


def _homogeneous(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
    return np.concatenate([points, np.ones_like(points[:, :1])], axis=1)
