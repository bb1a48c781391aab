"""What lies in the tray."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from cinnema.simulators.noise import draw_noise
from cinnema.simulators.push.colours import draw_colour, to_texture
from cinnema.simulators.push.engine import Engine, Texture, asset, paint
from cinnema.simulators.push.layout import TRAY
from cinnema.simulators.push.meshes import (
    Mesh,
    add_mesh,
    box_mesh,
    lathe_mesh,
    read_mesh,
    rounded_mesh,
)

NUM_OBJECTS = 7


def set_objects(
    engine: Engine, rng: Generator, *, away_from: Float[np.ndarray, "2"]
) -> tuple[int, ...]:
    """Put the objects into the tray, just above its floor, clear of each other and the gripper."""
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
    """A cone, can, cup or bowl."""
    lower, upper, height = rng.uniform((0.02, 0.005, 0.02), (0.045, 0.045, 0.045)).tolist()
    profile = [(1e-4, -height), (lower, -height), (upper, height), (1e-4, height)]
    if upper > 0.02:  # hollow
        profile[3:] = [(0.8 * upper, height), (0.8 * upper, -0.2 * height), (1e-4, -0.2 * height)]
    return lathe_mesh(profile)


def _draw_odd(rng: Generator) -> Mesh:
    """One of the thousand odd shapes among pybullet's models, at a size of our own."""
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
    """Draw what an object is covered with."""
    first = np.asarray(draw_colour(rng, saturation=(0.4, 1.0), value=(0.4, 1.0)))
    second = np.asarray(draw_colour(rng, saturation=(0.4, 1.0), value=(0.4, 1.0)))
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
