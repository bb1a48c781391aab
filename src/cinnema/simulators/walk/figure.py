"""A person as a mesh: a skeleton of 18 joints, a skin of quadrilaterals, lighting and rendering.

Each vertex of the skin follows up to three joints (linear blend skinning), so knees and shoulders
bend without gaps. At rest a person stands upright with hanging arms and faces along x; y is to the
left and z up. Lengths are in metres, colours in sRGB.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from cinnema.simulators.walk.mocap import TURNING, Poses, about_vertical, multiply, to_matrix

PARENTS: dict[str, str] = {
    "pelvis": "",
    "chest": "pelvis",
    "neck": "chest",
    "head": "neck",
    "right_hip": "pelvis",
    "right_knee": "right_hip",
    "right_ankle": "right_knee",
    "right_toe": "right_ankle",
    "right_shoulder": "chest",
    "right_elbow": "right_shoulder",
    "right_wrist": "right_elbow",
    "left_hip": "pelvis",
    "left_knee": "left_hip",
    "left_ankle": "left_knee",
    "left_toe": "left_ankle",
    "left_shoulder": "chest",
    "left_elbow": "left_shoulder",
    "left_wrist": "left_elbow",
}
"""Names of the joints, and of their parents."""

JOINTS: tuple[str, ...] = tuple(PARENTS)

# Fractional bits of the coordinates given to OpenCV.
_SHIFT = 4
# Factor by which pictures are drawn larger.
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Light:
    """A distant light, and ambient light from above and below.

    Attributes:
        towards: Unit vector towards the light.
        key: Colour and strength of the light on a surface that faces it.
        above: Ambient light on a surface that faces up.
        below: Ambient light on a surface that faces down.
    """

    towards: Float64[np.ndarray, "3"]
    key: Float64[np.ndarray, "3"]
    above: Float64[np.ndarray, "3"]
    below: Float64[np.ndarray, "3"]

    def on(self, normals: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Return the light on surfaces, for each colour channel.

        Args:
            normals: Unit normals.
        """
        # An extended light reaches beyond the terminator.
        facing = np.clip((normals @ self.towards + 0.25) / 1.25, 0.0, None)[..., None]
        upwards = 0.5 + 0.5 * normals[..., 2:]
        return np.asarray(facing * self.key + self.below + upwards * (self.above - self.below))


@dataclass(frozen=True)
class Skeleton:
    """Positions and orientations of the joints at t moments.

    Attributes:
        joints: Positions of `JOINTS`.
        turns: Rotation matrices from the rest pose.
    """

    joints: Float64[np.ndarray, "t 18 3"]
    turns: Float64[np.ndarray, "t 18 3 3"]


def pose_skeleton(rest: Float64[np.ndarray, "18 3"], poses: Poses) -> Skeleton:
    """Compute a skeleton from poses (forward kinematics).

    Joints that are not in `mocap.TURNING` (wrists, toes and head) do not rotate relative to their
    parents.

    Args:
        rest: Positions of the joints at rest.
        poses: The poses.
    """
    joints = np.zeros((len(poses), len(JOINTS), 3))
    turns = np.zeros((len(poses), len(JOINTS), 3, 3))
    bends = to_matrix(poses.rotations)
    joints[:, 0] = np.concatenate([poses.place, poses.height[:, None]], axis=1)
    turns[:, 0] = to_matrix(multiply(about_vertical(poses.heading), poses.rotations[:, 0]))
    for index, (name, parent_name) in list(enumerate(PARENTS.items()))[1:]:
        parent = JOINTS.index(parent_name)
        bone = rest[index] - rest[parent]
        joints[:, index] = joints[:, parent] + np.einsum("tij,j->ti", turns[:, parent], bone)
        turns[:, index] = turns[:, parent]
        if name in TURNING:
            bend = bends[:, TURNING.index(name)]
            turns[:, index] = np.einsum("tij,tjk->tik", turns[:, parent], bend)
    return Skeleton(joints, turns)


@dataclass(frozen=True)
class Figure:
    """The skin of a person at rest: coloured quadrilaterals with skinning weights.

    Attributes:
        rest: Positions of the joints at rest, with the pelvis at the origin.
        points: Positions of the vertices at rest.
        carriers: Indices of up to three joints for each vertex.
        weights: Weights of these joints, with sum 1.
        tiles: Four vertices of each quadrilateral, counter-clockwise seen from outside.
        colours: Colours of the quadrilaterals, in [0, 1].
    """

    rest: Float64[np.ndarray, "18 3"]
    points: Float64[np.ndarray, "v 3"]
    carriers: Int64[np.ndarray, "v 3"]
    weights: Float64[np.ndarray, "v 3"]
    tiles: Int64[np.ndarray, "f 4"]
    colours: Float64[np.ndarray, "f 3"]

    @cached_property
    def pieces(self) -> dict[str, Int64[np.ndarray, "_"]]:
        """Vertices by their joint of largest weight: nearly convex pieces of the skin."""
        main = self.carriers[np.arange(len(self.points)), self.weights.argmax(axis=1)]
        return {JOINTS[joint]: np.flatnonzero(main == joint) for joint in np.unique(main)}

    def skin(self, skeleton: Skeleton) -> Float64[np.ndarray, "t v 3"]:
        """Return the positions of the vertices.

        Args:
            skeleton: Positions and orientations of the joints.
        """
        out = np.zeros((len(skeleton.joints), len(self.points), 3))
        for slot in range(3):
            carrier = self.carriers[:, slot]
            arm = self.points - self.rest[carrier]
            turned = np.einsum("tvij,vj->tvi", skeleton.turns[:, carrier], arm)
            out += self.weights[:, slot, None] * (skeleton.joints[:, carrier] + turned)
        return out

    def normals(self, points: Float64[np.ndarray, "t v 3"]) -> Float64[np.ndarray, "t f 3"]:
        """Return the outward unit normals of the quadrilaterals.

        Args:
            points: Positions of the vertices.
        """
        a, b, c, d = (points[:, self.tiles[:, corner]] for corner in range(4))
        normals = np.cross(c - a, d - b)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return np.asarray(normals / np.maximum(length, 1e-12))


def paint(
    corners: Float64[np.ndarray, "f 4 2"],
    depths: Float64[np.ndarray, "f"],
    colours: Float64[np.ndarray, "f 3"],
    *,
    size: int,
) -> Float32[np.ndarray, "h w 4"]:
    """Draw quadrilaterals from back to front, with antialiasing, on a transparent background.

    Args:
        corners: Vertices in pixels; (0, 0) is the picture's upper left corner. Clockwise
            quadrilaterals are back faces and not drawn.
        depths: Distances of the quadrilaterals.
        colours: Colours, clipped to [0, 1].
        size: Height and width of the picture.

    Returns:
        Red, green and blue, premultiplied by alpha, and alpha, in [0, 1].
    """
    large = size * _OVERSAMPLING
    canvas = np.zeros((large, large, 4), dtype=np.uint8)
    (a, b), (c, d) = (np.moveaxis(corners[:, i + 2] - corners[:, i], -1, 0) for i in (0, 1))
    is_seen = np.flatnonzero(a * d < b * c)
    order = is_seen[np.argsort(-depths[is_seen], kind="stable")]
    # In OpenCV (0, 0) is the centre of a pixel.
    fixed = np.rint((corners[order] * _OVERSAMPLING - 0.5) * 2**_SHIFT).astype(np.int32)
    bright = np.rint(np.clip(colours[order], 0, 1) * 255).tolist()
    for tile, (red, green, blue) in zip(fixed, bright, strict=True):
        cv2.fillConvexPoly(canvas, tile, (red, green, blue, 255.0), cv2.LINE_8, _SHIFT)
    picture = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(picture.astype(np.float32) / 255)
