"""A person of tiles: a skeleton of 18 joints, a skin that follows it, light, and paint.

The corners of the skin follow up to three joints each (linear blend skinning), so that knees and
shoulders bend without gaps. At rest a person stands upright, arms hanging, and looks along x; z is
up and y to the left. Lengths are in metres, colours in sRGB.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

from cinnema.simulators.walk.mocap import TURNING, Poses, about_vertical, multiply, to_matrix

# Each joint and the one it hangs on.
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
JOINTS: tuple[str, ...] = tuple(PARENTS)
# Sixteenths of a pixel, in which OpenCV takes corners.
_SHIFT = 4
# Pictures are painted so many times larger.
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Light:
    """A sun or a lamp far away, and what the surroundings throw back.

    Attributes:
        towards: Unit vector towards it.
        key: Its colour and strength on a surface that faces it.
        above: What a surface that looks up receives besides.
        below: What a surface that looks down receives.
    """

    towards: Float64[np.ndarray, "3"]
    key: Float64[np.ndarray, "3"]
    above: Float64[np.ndarray, "3"]
    below: Float64[np.ndarray, "3"]

    def on(self, normals: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Return what surfaces of these unit normals receive, for each colour."""
        # The lamp is wide: it reaches a little around the edge of shade.
        facing = np.clip((normals @ self.towards + 0.25) / 1.25, 0.0, None)[..., None]
        upwards = 0.5 + 0.5 * normals[..., 2:]
        return np.asarray(facing * self.key + self.below + upwards * (self.above - self.below))


@dataclass(frozen=True)
class Skeleton:
    """Where the joints are at t moments, and how the bodies behind them are turned.

    Attributes:
        joints: Positions of `JOINTS`.
        turns: Rotation matrices from rest to the pose.
    """

    joints: Float64[np.ndarray, "t 18 3"]
    turns: Float64[np.ndarray, "t 18 3 3"]


def pose_skeleton(rest: Float64[np.ndarray, "18 3"], poses: Poses) -> Skeleton:
    """Bend a skeleton at rest into poses (forward kinematics).

    The joint of name n turns against its parent by its rotation in `Poses`; wrists, toes and head
    keep to theirs.
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
    """A person's skin at rest: coloured tiles, and the joints that carry their corners.

    Attributes:
        rest: Joints at rest, the pelvis at the origin.
        points: Corners at rest.
        carriers: Of each corner, numbers of up to three joints.
        weights: Of the carriers, with the sum 1.
        tiles: Four corners each, counter-clockwise from outside.
        colours: Of the tiles, in [0, 1].
    """

    rest: Float64[np.ndarray, "18 3"]
    points: Float64[np.ndarray, "v 3"]
    carriers: Int64[np.ndarray, "v 3"]
    weights: Float64[np.ndarray, "v 3"]
    tiles: Int64[np.ndarray, "f 4"]
    colours: Float64[np.ndarray, "f 3"]

    @cached_property
    def pieces(self) -> dict[str, Int64[np.ndarray, "_"]]:
        """The corners that follow each joint most: nearly convex pieces of the skin."""
        main = self.carriers[np.arange(len(self.points)), self.weights.argmax(axis=1)]
        return {JOINTS[joint]: np.flatnonzero(main == joint) for joint in np.unique(main)}

    def skin(self, skeleton: Skeleton) -> Float64[np.ndarray, "t v 3"]:
        """Return where the corners are when the skeleton stands so."""
        out = np.zeros((len(skeleton.joints), len(self.points), 3))
        for slot in range(3):
            carrier = self.carriers[:, slot]
            arm = self.points - self.rest[carrier]
            turned = np.einsum("tvij,vj->tvi", skeleton.turns[:, carrier], arm)
            out += self.weights[:, slot, None] * (skeleton.joints[:, carrier] + turned)
        return out

    def normals(self, points: Float64[np.ndarray, "t v 3"]) -> Float64[np.ndarray, "t f 3"]:
        """Return the unit normals of the tiles, outwards."""
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
    """Paint tiles from the farthest to the nearest, on nothing, with smooth edges.

    Args:
        corners: In pixels, (0, 0) the picture's upper left corner; tiles that run clockwise are
            seen from inside and left out.
        depths: Distances of the tiles.
        colours: In [0, 1], or above, where they are cut off.
        size: Width and height of the picture.

    Returns:
        Red, green and blue, times the share of the pixel that is covered, and that share.
    """
    large = size * _OVERSAMPLING
    canvas = np.zeros((large, large, 4), dtype=np.uint8)
    (a, b), (c, d) = (np.moveaxis(corners[:, i + 2] - corners[:, i], -1, 0) for i in (0, 1))
    is_seen = np.flatnonzero(a * d < b * c)
    order = is_seen[np.argsort(-depths[is_seen], kind="stable")]
    # OpenCV takes (0, 0) to be the middle of a pixel.
    fixed = np.rint((corners[order] * _OVERSAMPLING - 0.5) * 2**_SHIFT).astype(np.int32)
    bright = np.rint(np.clip(colours[order], 0, 1) * 255).tolist()
    for tile, (red, green, blue) in zip(fixed, bright, strict=True):
        cv2.fillConvexPoly(canvas, tile, (red, green, blue, 255.0), cv2.LINE_8, _SHIFT)
    picture = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(picture.astype(np.float32) / 255)
