"""The engine that moves bodies and draws them (pybullet), and what is put into it."""

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cinnema.core.errors import UserError

Engine: TypeAlias = Any
"""All functions of pybullet, bound to one simulation: `engine.stepSimulation()`."""


Point: TypeAlias = tuple[float, float, float]


Colour: TypeAlias = tuple[float, float, float]
"""Red, green and blue in sRGB, each in [0, 1]."""


Texture: TypeAlias = UInt8[np.ndarray, "_ _ 3"]


@contextmanager
def simulation(*, time_step: float = 1 / 240, gravity: float = 9.81) -> Iterator[Engine]:
    """Open an engine with an empty world, and close it at the end of the block.

    Several may be open at once; nothing carries over from one to the next.

    Args:
        time_step: What `engine.stepSimulation` advances, in seconds.
        gravity: Along -z, in m/s^2.

    Yields:
        The engine.

    Raises:
        UserError: pybullet is not installed.
    """
    engine = _connect()
    try:
        engine.setGravity(0, 0, -gravity)
        engine.setTimeStep(time_step)
        yield engine
    finally:
        engine.disconnect()


def _connect() -> Engine:
    try:
        with quiet():
            import pybullet
            from pybullet_utils.bullet_client import BulletClient

            return BulletClient(pybullet.DIRECT)
    except ImportError:
        raise UserError(
            "simulating bodies needs the package pybullet: pip install 'cinnema[sim]'"
        ) from None


def asset(name: str) -> str:
    """Return the path of one of the models that come with pybullet: "kuka_iiwa/model.urdf"."""
    import pybullet_data

    return str(Path(pybullet_data.getDataPath()) / name)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep off the terminal what pybullet's C code prints as it loads; wrap each loading in it."""
    sys.stdout.flush()
    sys.stderr.flush()
    _flush_c()
    kept = {number: os.dup(number) for number in (1, 2)}
    with Path(os.devnull).open("w") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        _flush_c()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


def _flush_c() -> None:
    with suppress(OSError, AttributeError, TypeError):  # Windows has no one library to ask
        ctypes.CDLL(None).fflush(None)


def add_obstacle(engine: Engine, half: Point, *, position: Point, friction: float = 0.5) -> int:
    """Put an invisible box into the world that never moves.

    Args:
        engine: Holds the world.
        half: Half its width, depth and height, in metres.
        position: Of its middle, in metres.
        friction: Coefficient between it and what slides on it, before theirs is multiplied in.

    Returns:
        The body's number.
    """
    shape = engine.createCollisionShape(engine.GEOM_BOX, halfExtents=half)
    # Without a surface of its own a body is drawn as what it collides as; this one is a point.
    point: dict[str, Any] = {"vertices": [[0, 0, 0]] * 3, "indices": [0, 1, 2]}
    point |= {"uvs": [[0, 0]] * 3, "normals": [[0, 0, 1]] * 3}
    visual = engine.createVisualShape(engine.GEOM_MESH, **point)
    body = int(engine.createMultiBody(0, shape, visual, position))
    engine.changeDynamics(body, -1, lateralFriction=friction, restitution=0.0)
    return body


def paint(
    engine: Engine,
    body: int,
    *,
    link: int = -1,
    colour: Colour = (1.0, 1.0, 1.0),
    texture: Texture | None = None,
) -> None:
    """Give one link of a body a colour, and a texture which that colour tints.

    Args:
        engine: Holds the world.
        body: The body's number.
        link: The link's number; -1 is the base.
        colour: Multiplies the texture.
        texture: Replaces the link's own; kept when None.
    """
    engine.changeVisualShape(body, link, rgbaColor=(*colour, 1.0))
    if texture is not None:
        engine.changeVisualShape(body, link, textureUniqueId=load_texture(engine, texture))


def load_texture(engine: Engine, texture: Texture) -> int:
    """Hand pixels to the engine (which takes files only) and return the texture's number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texture.png"
        Image.fromarray(texture).save(path, compress_level=1)
        return int(engine.loadTexture(str(path)))
