"""Triangle meshes: boxes, superellipsoids, bodies of revolution, and .obj files."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from cinnema.simulators.push.engine import Engine, Point


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: Positions relative to the body's centre of mass, in metres.
        normals: Outward unit normals of the vertices.
        uvs: Texture coordinates of the vertices; (0, 0) is the lower left corner of the texture,
            which repeats with period 1.
        faces: Vertex indices of the triangles, counter-clockwise seen from outside; backs are not
            drawn.
    """

    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    uvs: Float[np.ndarray, "v 2"]
    faces: Int[np.ndarray, "f 3"]


def add_mesh(
    engine: Engine,
    mesh: Mesh,
    *,
    position: Point = (0.0, 0.0, 0.0),
    turned: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0),
    mass: float = 0.0,
    collides: bool = False,
) -> int:
    """Add a body with this surface.

    Args:
        engine: The simulation.
        mesh: The surface.
        position: Position of the mesh's origin, in metres.
        turned: Orientation, a quaternion (x, y, z, w).
        mass: Mass in kg; 0 makes the body immovable.
        collides: Whether the body collides, as the convex hull of its outermost points in 64
            directions.

    Returns:
        Number of the body.
    """
    visual = engine.createVisualShape(
        engine.GEOM_MESH,
        vertices=mesh.vertices.tolist(),
        indices=mesh.faces.ravel().tolist(),
        uvs=mesh.uvs.tolist(),
        normals=mesh.normals.tolist(),
    )
    hull = -1
    if collides:
        outmost = np.unique(np.argmax(_directions(64) @ mesh.vertices.T, axis=1))
        points = mesh.vertices[outmost].tolist()
        hull = engine.createCollisionShape(engine.GEOM_MESH, vertices=points)
    return int(engine.createMultiBody(mass, hull, visual, position, turned))


def _directions(num: int) -> Float[np.ndarray, "n 3"]:
    """Return unit vectors distributed evenly over the sphere (a Fibonacci spiral)."""
    z = 1 - (2 * np.arange(num) + 1) / num
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(num)
    level = np.sqrt(1 - z**2)
    return np.stack([level * np.cos(turn), level * np.sin(turn), z], axis=-1)


def read_mesh(path: str | Path) -> Mesh:
    """Read the triangles of an .obj file, with flat shading and without texture coordinates.

    Args:
        path: The file.
    """
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    points = np.array([line[1:4] for line in lines if line[:1] == ["v"]], dtype=np.float64)
    corners = [[part.split("/")[0] for part in line[1:4]] for line in lines if line[:1] == ["f"]]
    triangles = points[np.array(corners, dtype=np.int64) - 1]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return Mesh(
        vertices=triangles.reshape(-1, 3),
        normals=np.repeat(normals, 3, axis=0),
        uvs=np.zeros((3 * len(triangles), 2)),
        faces=np.arange(3 * len(triangles)).reshape(-1, 3),
    )


def box_mesh(half: Point, *, tiles: float = 1.0) -> Mesh:
    """Return a box.

    Args:
        half: Half the width, depth and height, in metres.
        tiles: Repetitions of the texture per metre.
    """
    size = np.asarray(half, dtype=np.float64)
    corners = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    vertices, normals, uvs = [], [], []
    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)):
        across, along = (axis + 1) % 3, (axis + 2) % 3
        side = np.zeros((4, 3))
        side[:, axis] = sign
        side[:, across], side[:, along] = corners[:, 0] * sign, corners[:, 1]
        vertices.append(side * size)
        normals.append(np.eye(3)[[axis] * 4] * sign)
        # The texture's rows are horizontal on the vertical sides.
        level, steep = (along, across) if axis == 1 else (across, along)
        uvs.append((side * size)[:, [level, steep]] * tiles)
    first = 4 * np.arange(6)[:, None, None]
    return Mesh(
        vertices=np.concatenate(vertices),
        normals=np.concatenate(normals),
        uvs=np.concatenate(uvs),
        faces=(first + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3),
    )


def rounded_mesh(radii: Point, *, squareness: tuple[float, float] = (1.0, 1.0)) -> Mesh:
    """Return a superellipsoid, such as a ball, a pillow, or a box or can with round edges.

    Args:
        radii: Half the width, depth and height, in metres.
        squareness: Exponents of the vertical and of the horizontal outline, in (0, 2]: 1 is a
            circle, 0.2 a square with round corners, 2 a diamond.
    """
    steep, level = squareness
    latitude, longitude = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 13), np.linspace(-np.pi, np.pi, 25), indexing="ij"
    )

    def surface(first: float, second: float) -> Float[np.ndarray, "v 3"]:
        c, s = _power(np.cos(latitude), first), _power(np.sin(latitude), first)
        x, y = _power(np.cos(longitude), second), _power(np.sin(longitude), second)
        return np.stack([c * x, c * y, s], axis=-1).reshape(-1, 3)

    size = np.asarray(radii, dtype=np.float64)
    normals = surface(2 - steep, 2 - level) / size
    return Mesh(
        vertices=surface(steep, level) * size,
        normals=normals / np.linalg.norm(normals, axis=1, keepdims=True),
        uvs=np.stack([longitude / np.pi, latitude / np.pi + 0.5], axis=-1).reshape(-1, 2),
        faces=_grid_faces(*latitude.shape),
    )


def lathe_mesh(profile: Sequence[tuple[float, float]], *, num_sides: int = 20) -> Mesh:
    """Return a body of revolution about z with sharp edges, such as a can, a cone or a cup.

    Args:
        profile: Outline from bottom to top: (radius, height) in metres.
        num_sides: Number of sides of each ring.
    """
    angle = np.linspace(-np.pi, np.pi, num_sides + 1)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    vertices, normals, uvs, faces = [], [], [], []
    outline = np.asarray(profile, dtype=np.float64)
    run = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    for k, (lower, upper) in enumerate(pairwise(outline)):
        out = unit(np.array([upper[1] - lower[1], lower[0] - upper[0], 0.0]))[:2]
        for (radius, height), at in ((lower, run[k]), (upper, run[k + 1])):
            level = np.full((num_sides + 1, 1), height)
            vertices.append(np.concatenate([around * radius, level], axis=1))
            normals.append(np.concatenate([around * out[0], level * 0 + out[1]], axis=1))
            uvs.append(np.stack([angle / np.pi, angle * 0 + at / run[-1]], axis=-1))
        faces.append(_grid_faces(2, num_sides + 1) + 2 * k * (num_sides + 1))
    return Mesh(
        vertices=np.concatenate(vertices),
        normals=np.concatenate(normals),
        uvs=np.concatenate(uvs),
        faces=np.concatenate(faces),
    )


def _power(base: Float[np.ndarray, "*n"], exponent: float) -> Float[np.ndarray, "*n"]:
    return np.asarray(np.sign(base) * np.maximum(np.abs(base), 1e-9) ** exponent)


def _grid_faces(rows: int, columns: int) -> Int[np.ndarray, "f 3"]:
    """Return two triangles for each cell of a grid of vertices, with rows from bottom to top."""
    first = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    lower = np.array([[0, 1, columns + 1]])
    upper = np.array([[0, columns + 1, columns]])
    return np.concatenate([first + lower, first + upper])


def unit(vector: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Scale a vector to length 1."""
    return np.asarray(vector / np.linalg.norm(vector))
