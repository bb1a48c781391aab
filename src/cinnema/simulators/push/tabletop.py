"""The scene in front of the camera: table, tray, light, and the objects in the tray."""

import colorsys
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from cinnema.simulators.colours import draw_hsv, draw_noise, to_texture
from cinnema.simulators.push.arm import TABLE_HEIGHT, add_pedestal
from cinnema.simulators.push.engine import (
    Colour,
    Engine,
    Point,
    Texture,
    add_obstacle,
    asset,
    paint,
)
from cinnema.simulators.push.meshes import (
    Mesh,
    add_mesh,
    box_mesh,
    lathe_mesh,
    read_mesh,
    rounded_mesh,
)
from cinnema.simulators.push.rendering import Camera, Light, View, look

TRAY = (0.30, 0.20)
"""Half the width and depth of the tray's floor, in metres."""

NUM_OBJECTS = 7
"""Number of objects in the tray."""

# Height and thickness of the tray's rim, and thickness of its floor, in metres.
_RIM, _THICK, _FLOOR = 0.045, 0.008, -TABLE_HEIGHT


def push_camera(*, size: int) -> Camera:
    """Return the camera of all clips, in front of the tray and 45 degrees above it.

    Args:
        size: Height and width of the frames, in pixels.
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
    """Add the tray's collision bodies.

    Returns:
        The bodies of a fence above the rim that stops the objects; the arm should ignore them.
    """
    width, depth = TRAY
    add_obstacle(engine, (1.0, 1.0, 0.1), position=(0.0, 0.0, -0.1), friction=0.6)
    fence = []
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        half = (_THICK if x else width, _THICK if y else depth, _RIM / 2)
        position = (x * (width + _THICK), y * (depth + _THICK), _RIM / 2)
        add_obstacle(engine, half, position=position, friction=0.4)
        half = (0.1 if x else width, 0.1 if y else depth, 0.5)
        position = (x * (width + 0.1), y * (depth + 0.1), 0.5)
        fence.append(add_obstacle(engine, half, position=position, friction=0.05))
    return fence


def draw_scenery(
    engine: Engine, rng: Generator, *, camera: Camera, light: Light, pedestal: Colour
) -> View:
    """Render table, tray and the arm's pedestal with random materials.

    Their visible bodies are removed from the engine afterwards; `set_tray` adds what collides.

    Args:
        engine: The simulation.
        rng: Source of randomness.
        camera: The camera.
        light: The light.
        pedestal: Colour of the pedestal.

    Returns:
        The static part of every frame, for `render`.
    """
    x, near, far, z = 1.5, -0.6, 1.5, -_FLOOR
    table = Mesh(
        vertices=np.array([[-x, near, z], [x, near, z], [x, far, z], [-x, far, z]]),
        normals=np.array([[0.0, 0.0, 1.0]] * 4),
        uvs=np.array([[-x, near], [x, near], [x, far], [-x, far]]) + rng.random(2),
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
    """Half the size and the centre of the floor and of the four sides of the rim."""
    width, depth = TRAY[0] + _THICK, TRAY[1] + _THICK
    height = (_RIM + _FLOOR) / 2
    middle = height - _FLOOR
    outer = width + _THICK
    return [
        ((width, depth, _FLOOR / 2), (0.0, 0.0, -_FLOOR / 2)),
        ((outer, _THICK, height), (0.0, depth, middle)),
        ((outer, _THICK, height), (0.0, -depth, middle)),
        ((_THICK, TRAY[1], height), (width, 0.0, middle)),
        ((_THICK, TRAY[1], height), (-width, 0.0, middle)),
    ]


def draw_light(rng: Generator) -> Light:
    """Draw a lamp above the table, with a warm or cold tint."""
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
    """Draw the material of the table or the tray: wood, plastic or cloth."""
    kind = rng.random()
    if kind < 0.5:
        colour = colorsys.hsv_to_rgb(
            rng.uniform(0.05, 0.11), rng.uniform(0.25, 0.65), rng.uniform(0.4, 0.8)
        )
        tone = _draw_grain(rng, side=side)
    elif kind < 0.85:
        colour = draw_hsv(rng, saturation=(0.0, 0.35), value=(0.3, 0.9))
        tone = 0.03 * draw_noise(rng, size=side, roughness=1)
    else:
        colour = draw_hsv(rng, saturation=(0.2, 0.6), value=(0.3, 0.7))
        tone = 0.05 * draw_noise(rng, size=side, roughness=2)
    return to_texture(np.asarray(colour) * (1 + tone[..., None]))


def _draw_grain(rng: Generator, *, side: int) -> Float[np.ndarray, "s s"]:
    """Wood grain: wavy rings, and fibres along them."""
    across = np.arange(side)[:, None] / side
    wavering = 1.5 * draw_noise(rng, size=side, roughness=0)
    rings = np.sin(2 * np.pi * rng.integers(4, 9) * across + wavering)
    fibre = np.pad(draw_noise(rng, size=side, roughness=2.5), ((0, 0), (31, 31)), mode="wrap")
    fibre = cv2.blur(fibre, (63, 1))[:, 31:-31]
    return np.asarray(0.07 * rings + 0.05 * fibre / fibre.std())


# --- Objects --------------------------------------------------------------------------------------


def set_objects(
    engine: Engine, rng: Generator, *, away_from: Float[np.ndarray, "2"]
) -> tuple[int, ...]:
    """Add random objects just above the tray's floor, apart from each other and the gripper.

    Args:
        engine: The simulation.
        rng: Source of randomness.
        away_from: x and y of the gripper, in metres.

    Returns:
        The bodies.
    """
    bodies: list[int] = []
    spots = [away_from]
    reach = np.subtract(TRAY, 0.06)
    while len(bodies) < NUM_OBJECTS:
        spot = rng.uniform(-reach, reach)
        if min(np.linalg.norm(spot - other) for other in spots) < 0.1:
            continue
        spots.append(spot)
        bodies.append(_add_object(engine, rng, spot=spot))
    return tuple(bodies)


def _add_object(engine: Engine, rng: Generator, *, spot: Float[np.ndarray, "2"]) -> int:
    position = (float(spot[0]), float(spot[1]), 0.07)
    turned = engine.getQuaternionFromEuler([0, 0, rng.uniform(-math.pi, math.pi)])
    mesh = _SHAPES[rng.choice(list(_SHAPES))](rng)
    body = add_mesh(engine, mesh, position=position, turned=turned, mass=0.1, collides=True)
    paint(engine, body, texture=_draw_pattern(rng))
    engine.changeDynamics(
        body,
        -1,
        mass=rng.uniform(0.05, 0.2),
        lateralFriction=rng.uniform(0.5, 0.9),
        rollingFriction=0.001,
        spinningFriction=0.001,
        restitution=0.0,
        linearDamping=0.1,
        angularDamping=0.2,
    )
    return body


def _draw_rounded(rng: Generator) -> Mesh:
    x, y, z = rng.uniform(0.02, 0.045, 3).tolist()
    steep, level = rng.uniform(0.2, 1.1, 2).tolist()
    return rounded_mesh((x, y, z), squareness=(steep, level))


def _draw_box(rng: Generator) -> Mesh:
    x, y, z = rng.uniform(0.018, 0.042, 3).tolist()
    return box_mesh((x, y, z), tiles=10.0)


def _draw_turned(rng: Generator) -> Mesh:
    """Draw a cone, can, cup or bowl."""
    lower, upper, height = rng.uniform((0.02, 0.005, 0.02), (0.045, 0.045, 0.045)).tolist()
    profile = [(1e-4, -height), (lower, -height), (upper, height), (1e-4, height)]
    if upper > 0.02:  # hollow
        profile[3:] = [(0.8 * upper, height), (0.8 * upper, -0.2 * height), (1e-4, -0.2 * height)]
    return lathe_mesh(profile)


def _draw_odd(rng: Generator) -> Mesh:
    """Draw one of the thousand random shapes among pybullet's models, at a random size."""
    number = rng.integers(1000)
    mesh = read_mesh(asset(f"random_urdfs/{number:03}/{number:03}.obj"))
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    scale = rng.uniform(0.07, 0.12) / (high - low).max()
    return replace(mesh, vertices=(mesh.vertices - (low + high) / 2) * scale)


_SHAPES: Mapping[str, Callable[[Generator], Mesh]] = {
    "rounded": _draw_rounded,
    "box": _draw_box,
    "turned": _draw_turned,
    "odd": _draw_odd,
}


def _draw_pattern(rng: Generator, *, side: int = 64) -> Texture:
    """Draw the texture of an object."""
    first = np.asarray(draw_hsv(rng, saturation=(0.4, 1.0), value=(0.4, 1.0)))
    second = np.asarray(draw_hsv(rng, saturation=(0.4, 1.0), value=(0.4, 1.0)))
    if rng.random() < 0.3:
        second = np.full(3, rng.uniform(0.1, 1.0))
    y, x = np.mgrid[:side, :side] / side * 2 * np.pi * rng.integers(1, 3)
    marble = 0.5 + draw_noise(rng, size=side, roughness=0.5)
    shares = {
        "plain": np.zeros_like(x),
        "rings": np.sin(y) > 0,
        "stripes": np.sin(x) > 0,
        "checks": np.sin(x) * np.sin(y) > 0,
        "marble": np.clip(marble, 0, 1),
    }
    kind = rng.choice(list(shares), p=[0.45, 0.15, 0.15, 0.1, 0.15])
    share = np.asarray(shares[kind], dtype=np.float64)[..., None]
    tone = 1 + 0.03 * draw_noise(rng, size=side, roughness=2)[..., None]
    return to_texture((first + (second - first) * share) * tone)
