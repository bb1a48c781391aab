"""The physics engine (pybullet): opening it, and adding bodies and colours."""

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
"""A simulation: the functions of pybullet as methods, such as `engine.stepSimulation()`."""

Point: TypeAlias = tuple[float, float, float]
"""x, y and z in metres."""

Colour: TypeAlias = tuple[float, float, float]
"""Red, green and blue in sRGB, each in [0, 1]."""

Texture: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
"""Pixels in sRGB."""


@contextmanager
def simulation(*, time_step: float = 1 / 240, gravity: float = 9.81) -> Iterator[Engine]:
    """Open an empty simulation, and close it at the end of the block.

    Several may be open at once; they are independent.

    Args:
        time_step: Duration of one `engine.stepSimulation()`, in seconds.
        gravity: Acceleration along -z, in m/s^2.

    Yields:
        The simulation.

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
    """Return the path of a model that is installed with pybullet.

    Args:
        name: Path within pybullet's data, such as "kuka_iiwa/model.urdf".
    """
    import pybullet_data

    return str(Path(pybullet_data.getDataPath()) / name)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress what pybullet's C code prints while it loads files."""
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
    with suppress(OSError, AttributeError, TypeError):  # not available on Windows
        ctypes.CDLL(None).fflush(None)


def add_obstacle(engine: Engine, half: Point, *, position: Point, friction: float = 0.5) -> int:
    """Add an invisible box that does not move.

    Args:
        engine: The simulation.
        half: Half the width, depth and height, in metres.
        position: Centre of the box, in metres.
        friction: Friction coefficient; it is multiplied by that of the touching body.

    Returns:
        Number of the body.
    """
    shape = engine.createCollisionShape(engine.GEOM_BOX, halfExtents=half)
    # A body without a visual shape is drawn as its collision shape; this visual shape is a point.
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
    """Set the colour and the texture of one link of a body.

    Args:
        engine: The simulation.
        body: Number of the body.
        link: Number of the link; -1 is the base.
        colour: Colour, by which the texture is multiplied.
        texture: New texture. Defaults to keeping the present one.
    """
    engine.changeVisualShape(body, link, rgbaColor=(*colour, 1.0))
    if texture is not None:
        engine.changeVisualShape(body, link, textureUniqueId=load_texture(engine, texture))


def load_texture(engine: Engine, texture: Texture) -> int:
    """Load a texture through a temporary file, as the engine accepts only files.

    Args:
        engine: The simulation.
        texture: Pixels of the texture.

    Returns:
        Number of the texture.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texture.png"
        Image.fromarray(texture).save(path, compress_level=1)
        return int(engine.loadTexture(str(path)))
