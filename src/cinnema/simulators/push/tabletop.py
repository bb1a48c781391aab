"""Table, tray and light, and the camera in front of them."""

import colorsys
import math

import cv2
import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from cinnema.simulators.noise import draw_noise
from cinnema.simulators.push.arm import add_pedestal
from cinnema.simulators.push.colours import draw_colour, to_texture
from cinnema.simulators.push.engine import Colour, Engine, Point, Texture, add_obstacle, paint
from cinnema.simulators.push.layout import FLOOR, RIM, THICK, TRAY
from cinnema.simulators.push.meshes import Mesh, add_mesh, box_mesh
from cinnema.simulators.push.rendering import Camera, Light, View, look


def push_camera(*, size: int) -> Camera:
    """Return the camera of all clips, in front of the tray and 45 degrees above.

    Args:
        size: Width and height of the pictures, in pixels.
    """
    return Camera(
        eye=(0.0, -0.64, 0.86),
        target=(0.0, 0.045, 0.03),
        field_of_view=42.0,
        size=size,
        supersampling=max(2, round(192 / size)),
        near=0.2,
        far=3.0,
    )


def set_tray(engine: Engine) -> list[int]:
    """Put the tray into the engine; return the fence above its rim, which only objects meet."""
    width, depth = TRAY
    add_obstacle(engine, (1.0, 1.0, 0.1), position=(0.0, 0.0, -0.1), friction=0.6)
    fence = []
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        half = (THICK if x else width, THICK if y else depth, RIM / 2)
        position = (x * (width + THICK), y * (depth + THICK), RIM / 2)
        add_obstacle(engine, half, position=position, friction=0.4)
        half = (0.1 if x else width, 0.1 if y else depth, 0.5)
        position = (x * (width + 0.1), y * (depth + 0.1), 0.5)
        fence.append(add_obstacle(engine, half, position=position, friction=0.05))
    return fence


def draw_scenery(
    engine: Engine, rng: Generator, *, camera: Camera, light: Light, pedestal: Colour
) -> View:
    """Draw table, tray and the arm's pedestal, then clear them away.

    What is met in their place is invisible.
    """
    x, near, far, z = 1.5, -0.6, 1.5, -FLOOR
    table = Mesh(
        vertices=np.array([[-x, near, z], [x, near, z], [x, far, z], [-x, far, z]]),
        normals=np.array([[0.0, 0.0, 1.0]] * 4),
        places=np.array([[-x, near], [x, near], [x, far], [-x, far]]) + rng.random(2),
        faces=np.array([[0, 1, 2], [0, 2, 3]]),
    )
    bodies = [add_mesh(engine, table)]
    paint(engine, bodies[0], texture=_draw_board(rng))
    board = _draw_board(rng)
    for half, position in _tray_boards():
        bodies.append(add_mesh(engine, box_mesh(half, tiles=1.5), position=position))
        paint(engine, bodies[-1], texture=board)
    bodies.append(add_pedestal(engine))
    paint(engine, bodies[-1], colour=pedestal)
    scenery = look(engine, camera, light)
    for body in bodies:
        engine.removeBody(body)
    return scenery


def _tray_boards() -> list[tuple[Point, Point]]:
    """Half the size, and the middle, of floor and rim."""
    width, depth = TRAY[0] + THICK, TRAY[1] + THICK
    height = (RIM + FLOOR) / 2
    middle = height - FLOOR
    outer = width + THICK
    return [
        ((width, depth, FLOOR / 2), (0.0, 0.0, -FLOOR / 2)),
        ((outer, THICK, height), (0.0, depth, middle)),
        ((outer, THICK, height), (0.0, -depth, middle)),
        ((THICK, TRAY[1], height), (width, 0.0, middle)),
        ((THICK, TRAY[1], height), (-width, 0.0, middle)),
    ]


def draw_light(rng: Generator) -> Light:
    """Draw a lamp somewhere above, warm or cold."""
    angle, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 0.9)
    ambient, warmth = rng.uniform(0.5, 0.65), rng.uniform(-0.06, 0.06)
    return Light(
        direction=(lean * math.cos(angle), lean * math.sin(angle), 1.0),
        colour=(1 + warmth, 1.0, 1 - warmth),
        ambient=ambient,
        diffuse=rng.uniform(1.0, 1.12) - ambient,
        specular=0.15,
        shadow=rng.uniform(0.35, 0.5),
        softness=rng.uniform(0.006, 0.025),
        centre=(0.0, 0.1, 0.1),
        reach=0.62,
    )


def _draw_board(rng: Generator, *, side: int = 256) -> Texture:
    """Draw what table and tray are made of: wood, plastic or cloth."""
    kind = rng.random()
    if kind < 0.5:
        colour = colorsys.hsv_to_rgb(
            rng.uniform(0.05, 0.11), rng.uniform(0.25, 0.65), rng.uniform(0.4, 0.8)
        )
        tone = _draw_grain(rng, side=side)
    elif kind < 0.85:
        colour = draw_colour(rng, saturation=(0.0, 0.35), value=(0.3, 0.9))
        tone = 0.03 * draw_noise(rng, size=side, roughness=1)
    else:
        colour = draw_colour(rng, saturation=(0.2, 0.6), value=(0.3, 0.7))
        tone = 0.05 * draw_noise(rng, size=side, roughness=2)
    return to_texture(np.asarray(colour) * (1 + tone[..., None]))


def _draw_grain(rng: Generator, *, side: int) -> Float[np.ndarray, "s s"]:
    """Rings that waver, and fibres along them."""
    across = np.arange(side)[:, None] / side
    wavering = 1.5 * draw_noise(rng, size=side, roughness=0)
    rings = np.sin(2 * np.pi * rng.integers(4, 9) * across + wavering)
    fibre = np.pad(draw_noise(rng, size=side, roughness=2.5), ((0, 0), (31, 31)), mode="wrap")
    fibre = cv2.blur(fibre, (63, 1))[:, 31:-31]
    return np.asarray(0.07 * rings + 0.05 * fibre / fibre.std())
