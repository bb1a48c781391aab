"""People who walk, run, jump and dance by motion capture, in front of a static background.

A start is a person (body, clothes), a place, a camera, and a pose from one of the motions. Its
futures continue as different motions, at different speeds, forwards or backwards, straight or
turning: a future starts at a random moment of a motion whose pose is similar to the start's, and
the pose blends into that motion within 0.25 to 0.4 seconds.

A running person would leave the picture. As on a treadmill, the path of a clip is scaled down to
what the camera sees; the steps are not.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.records import Item, RawClip
from cinnema.simulators.simulator import Simulator
from cinnema.simulators.walk.body_mesh import (
    Build,
    draw_build,
    draw_clothes,
    make_figure,
    rest_joints,
)
from cinnema.simulators.walk.figure import (
    JOINTS,
    Figure,
    Skeleton,
    paint,
    pose_skeleton,
)
from cinnema.simulators.walk.mocap import (
    Motion,
    Poses,
    bundled_folder,
    conjugate,
    identity,
    multiply,
    read_motion,
    slerp,
    smooth_step,
)
from cinnema.simulators.walk.scenery import Camera, Scenery, draw_camera, draw_scenery

MOTIONS: dict[str, float] = {
    "walk": 3.0,
    "run": 1.5,
    "dance_a": 1.5,
    "dance_b": 2.0,
    "jump": 1.0,
    "kick": 1.0,
    "punch": 1.0,
    "spin": 1.5,
    "spinkick": 0.5,
}
"""Motions of pybullet's data, and their relative frequency; others have frequency 1."""

# Speed of motions that were recorded faster than people move.
_TEMPO = {"dance_a": 0.7, "spinkick": 0.7}
# Motions that are also played backwards, and motions that turn corners.
_REVERSIBLE = ("walk",)
_STRIDING = ("walk", "run")
# Largest distance of a person from its first position, in metres.
_REACH = 0.45
# Angle between the joints of two poses beyond which they are not similar, in radians.
_SIMILAR = 0.35
# Weights of the joints of `mocap.TURNING` in the comparison of poses.
_JOINT_WEIGHTS = np.array([2.0, 1.0, 0.3, 2.0, 1.5, 0.5, 1.0, 0.7, 2.0, 1.5, 0.5, 1.0, 0.7])
# Step between the moments of a motion, in seconds.
_STEP = 1 / 30
# Smallest distance of the joints from the edge of the picture, in picture widths.
_MARGIN = 0.04
# Attempts to draw a future that stays in the picture; one or two of three hundred do not.
_TRIES = 20
# Height of the recorded person, in metres.
_STATURE = 1.66
# Numbers of the random streams.
_BODY, _PLACE, _OPENING, _FUTURE = range(4)


@dataclass(frozen=True)
class Walk(Simulator):
    """People in motion.

    Tracks: "joints", positions of `figure.JOINTS`, concatenated, as x (to the right), y (away from
    the camera) and z (up) in metres, with the origin on the floor below the first pelvis;
    "joints_2d", the same as x and y in the picture, from (0, 0), the upper left corner, to (1, 1);
    "motion", the index of the motion in `motions`, and its phase in [0, 1).

    The person, the clothes and the place are the same in all futures of a start.

    Args:
        num_starts: Number of starts, at least 1.
        futures: Number of clips for each start, at least 1.
        seed: Seed of all random draws, at least 0.
        size: Height and width of the frames, in pixels, at least 16.
        num_frames: Number of frames in a clip, including x0, at least 2.
        fps: Frames per second, from 1 to 240.
        motions: Names of the motion files, without "humanoid3d_" and ".txt".
        motion_folder: Folder of these files. Defaults to pybullet's.

    Example:
        >>> walk = Walk(num_starts=10, futures=2, num_frames=4)
        >>> first, second = walk.read(walk.items()[0])
        >>> first.frames.shape, first.tracks["joints"].shape
        ((4, 64, 64, 3), (4, 54))
    """

    name: ClassVar[str] = "walk"
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        **Simulator.limits,
        "size": (16, math.inf),
        "fps": (1, 240),
    }
    item_prefix: ClassVar[str] = "start-"
    item_digits: ClassVar[int] = 6

    fps: float = 12.5
    motions: tuple[str, ...] = tuple(MOTIONS)
    motion_folder: Path | None = None

    def __post_init__(self) -> None:
        """Check the numbers and the motions."""
        super().__post_init__()
        if not self.motions or len(set(self.motions)) < len(self.motions):
            raise UserError(f"motions must be different names, at least 1, got {self.motions}")

    def items(self) -> Sequence[Item]:
        """List the starts; each yields `futures` clips.

        Raises:
            UserError: Motions are missing or damaged, or pybullet is not installed.
        """
        self._repertoire()
        return super().items()

    def read(self, item: Item) -> Iterator[RawClip]:
        """Yield the futures of one start.

        Args:
            item: An item of `items`.
        """
        start = self.start_of(item)
        stage, opening = self.stage_of(start), self.opening_of(start)
        first = stage.film(opening)
        for future in range(self.futures):
            film = stage.film(self.future_of(start, future, opening=opening, stage=stage))
            joined = {name: np.concatenate(pair) for name, pair in _pairs(first, film)}
            frames = joined.pop("frames")
            yield RawClip(
                name=f"{item.name}-{future:02d}",
                source=item.name,
                frames=frames,
                fps=self.fps,
                tracks=joined,
                still=(frames == frames[:1]).all(axis=(0, 3)),
                start=item.name if self.futures > 1 else None,
            )

    def stage_of(self, start: int) -> "Stage":
        """Draw the person, the camera and the place of a start.

        Args:
            start: Number of the start.
        """
        body = np.random.default_rng([self.seed, start, _BODY])
        build = draw_build(body)
        figure = make_figure(build, draw_clothes(body), grain=body)
        place = np.random.default_rng([self.seed, start, _PLACE])
        camera = draw_camera(place, stature=_STATURE * build.scale)
        scenery = draw_scenery(place, camera, size=self.size)
        return Stage(build, figure, camera, scenery)

    def opening_of(self, start: int) -> "Take":
        """Draw the first pose of a start: a moment of a motion, with a random heading.

        Args:
            start: Number of the start.
        """
        rng = np.random.default_rng([self.seed, start, _OPENING])
        repertoire = self._repertoire()
        moment = int(rng.choice(len(repertoire.weights), p=repertoire.weights))
        take = repertoire.play(moment, np.zeros(1))
        return replace(take, poses=_turned(take.poses, rng.uniform(-math.pi, math.pi), 0.0))

    def future_of(self, start: int, future: int, *, opening: "Take", stage: "Stage") -> "Take":
        """Draw the motion of a future in which the person stays in the picture.

        Args:
            start: Number of the start.
            future: Number of the future.
            opening: First pose of the start.
            stage: Person and camera of the start.

        Returns:
            All frames of the clip but the first.
        """
        rng = np.random.default_rng([self.seed, start, _FUTURE, future])
        for _ in range(_TRIES):
            take = self.draw_future(rng, opening)
            if stage.sees(take):
                break
        return take

    def draw_future(self, rng: np.random.Generator, opening: "Take") -> "Take":
        """Draw a motion that continues a pose; in a high jump the person may leave the picture.

        Args:
            rng: Source of randomness.
            opening: The pose.

        Returns:
            All frames of the clip but the first.
        """
        repertoire = self._repertoire()
        odds = repertoire.weights * np.exp(
            -((_angle_between(opening.poses.rotations, repertoire.rotations) / _SIMILAR) ** 2)
        )
        moment = int(rng.choice(len(odds), p=odds / odds.sum()))
        name = repertoire.motions[repertoire.owners[moment]].name
        is_backwards = name in _REVERSIBLE and rng.random() < 0.15
        speed = rng.uniform(0.7, 1.3) * _TEMPO.get(name, 1.0) * (-0.8 if is_backwards else 1.0)
        times = np.arange(self.num_frames) / self.fps
        take = repertoire.play(moment, times * speed)
        poses = _blended(opening.poses, take.poses, times / rng.uniform(0.25, 0.4))
        rate = _draw_turning(rng, name)
        poses = _turned(poses, float(opening.poses.heading[0]), rate / self.fps)
        fade = smooth_step(times / 0.3)
        clearance = opening.clearance * (1 - fade) + take.clearance * fade
        return Take(poses, clearance, take.motion)[1:]

    def _repertoire(self) -> "_Repertoire":
        folder = bundled_folder() if self.motion_folder is None else self.motion_folder
        return _make_repertoire(folder, self.motions)


@dataclass(frozen=True)
class Take:
    """A motion at t moments.

    Attributes:
        poses: Poses with the recorded path, which `Stage` scales down.
        clearance: Height of the lowest part of the body above the floor, in metres.
        motion: Index and phase of the motion.
    """

    poses: Poses
    clearance: Float64[np.ndarray, "t"]
    motion: Float64[np.ndarray, "t 2"]

    def __getitem__(self, moments: slice) -> "Take":
        """Return a range of moments."""
        return Take(self.poses[moments], self.clearance[moments], self.motion[moments])


@dataclass(frozen=True)
class Film:
    """Frames and tracks of a take (see `Walk`)."""

    frames: UInt8[np.ndarray, "t h w 3"]
    joints: Float32[np.ndarray, "t xyz"]
    joints_2d: Float32[np.ndarray, "t xy"]
    motion: Float32[np.ndarray, "t 2"]


def _pairs(first: Film, rest: Film) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for field in fields(Film):
        yield field.name, (getattr(first, field.name), getattr(rest, field.name))


@dataclass(frozen=True)
class Stage:
    """A person in a place, in front of a camera.

    Attributes:
        build: Proportions of the person.
        figure: Skin of the person.
        camera: The camera.
        scenery: The place.
    """

    build: Build
    figure: Figure
    camera: Camera
    scenery: Scenery

    def film(self, take: Take) -> Film:
        """Render a take.

        Args:
            take: The motion.
        """
        skeleton, points = self.pose(take)
        seen, _ = self.camera.project(skeleton.joints)
        frames = np.stack(list(self._pictures(points)))
        num_frames = len(frames)
        return Film(
            frames=frames,
            joints=skeleton.joints.reshape(num_frames, -1).astype(np.float32),
            joints_2d=seen.reshape(num_frames, -1).astype(np.float32),
            motion=take.motion.astype(np.float32),
        )

    def sees(self, take: Take) -> bool:
        """Return whether every joint is in the picture at every moment.

        Args:
            take: The motion.
        """
        seen, _ = self.camera.project(self.pose(take)[0].joints)
        return bool(seen.min() > 0 and seen.max() < 1)

    def pose(self, take: Take) -> tuple[Skeleton, NDArray[np.float64]]:
        """Place the person within view, on the floor or at the take's height above it.

        Args:
            take: The motion.

        Returns:
            The skeleton, and the vertices of the skin.
        """
        size = self.build.scale * self.build.legs
        height = np.zeros(len(take.poses))
        spot = replace(take.poses, place=np.zeros((len(height), 2)), height=height)
        skeleton = pose_skeleton(self.figure.rest, spot)
        points = self.figure.skin(skeleton)
        lift = take.clearance * size - points[..., 2].min(axis=1)
        path = self._in_view(skeleton.joints, take.poses.place * size, lift)[:, None]
        return Skeleton(skeleton.joints + path, skeleton.turns), points + path

    def _in_view(
        self, joints: NDArray[np.float64], place: NDArray[np.float64], lift: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the path, scaled down until every joint is in the picture at every moment."""
        reach = min(1.0, _REACH / max(float(np.linalg.norm(place, axis=1).max()), 1e-9))
        for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
            path = np.concatenate([place * (reach * share), lift[:, None]], axis=1)
            seen, _ = self.camera.project(joints + path[:, None])
            if seen.min() > _MARGIN and seen.max() < 1 - _MARGIN:
                break
        return path

    def _pictures(self, points: NDArray[np.float64]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        figure, size = self.figure, self.scenery.picture.shape[0]
        light = self.scenery.light.on(figure.normals(points)) * figure.colours
        seen, depth = self.camera.project(points)
        for t, corners in enumerate(seen):
            behind = self.scenery.shadowed(points[t], figure.pieces)
            tiles, depths = corners[figure.tiles] * size, depth[t][figure.tiles].mean(axis=1)
            person = paint(tiles, depths, light[t], size=size)
            picture = behind * 255 * (1 - person[..., 3:]) + person[..., :3] * 255
            yield np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)


@dataclass(frozen=True)
class _Repertoire:
    """All moments at which a motion can start.

    Attributes:
        motions: All motions, then their mirror images.
        clearances: Clearance of each motion at its moments.
        owners: Index of the motion of each moment.
        moments: Moments, in seconds.
        rotations: Pose at each moment.
        weights: Probability of each moment as a start.
    """

    motions: tuple[Motion, ...]
    clearances: tuple[Float64[np.ndarray, "_"], ...]
    owners: Int64[np.ndarray, "n"]
    moments: Float64[np.ndarray, "n"]
    rotations: Float64[np.ndarray, "n 13 4"]
    weights: Float64[np.ndarray, "n"]

    def play(self, moment: int, times: Float64[np.ndarray, "t"]) -> Take:
        """Play a motion from one of the moments, given by its index."""
        owner, start = int(self.owners[moment]), float(self.moments[moment])
        motion = self.motions[owner]
        phase = (start + times) / motion.period % 1.0
        heights = self.clearances[owner]
        clearance = np.interp(phase * len(heights), np.arange(len(heights) + 1),
                              np.append(heights, heights[0]))  # fmt: skip
        number = np.full(len(times), float(owner % (len(self.motions) // 2)))
        return Take(motion.play(start, times), clearance, np.stack([number, phase], axis=1))


@lru_cache(maxsize=4)
def _make_repertoire(folder: Path, names: tuple[str, ...]) -> _Repertoire:
    straight = [read_motion(folder / f"humanoid3d_{name}.txt") for name in names]
    motions = straight + [motion.mirrored() for motion in straight]
    counts = [max(2, round(motion.period / _STEP)) for motion in motions]
    moments = [
        np.arange(count) * motion.period / count
        for motion, count in zip(motions, counts, strict=True)
    ]
    poses = [motion.at(times) for motion, times in zip(motions, moments, strict=True)]
    shares = np.array([MOTIONS.get(name, 1.0) for name in names] * 2)
    weights = np.repeat(shares / shares.sum() / counts, counts)
    return _Repertoire(
        motions=tuple(motions),
        clearances=tuple(_clearance(pose) for pose in poses),
        owners=np.repeat(np.arange(len(motions)), counts),
        moments=np.concatenate(moments),
        rotations=np.concatenate([pose.rotations for pose in poses]),
        weights=weights / weights.sum(),
    )


def _clearance(poses: Poses) -> NDArray[np.float64]:
    """Return the height of the recorded person above the floor, in metres.

    Recordings are off by a few centimetres; the lowest tenth of a motion counts as standing.
    """
    skeleton = pose_skeleton(rest_joints(Build()), poses)
    reach = {"pelvis": 0.12, "chest": 0.1, "head": 0.12, "toe": 0.025, "knee": 0.06, "wrist": 0.1}
    below = [reach.get(name.split("_")[-1], 0.06) for name in JOINTS]
    lowest = (skeleton.joints[..., 2] - np.array(below)).min(axis=1)
    return np.asarray(np.clip(lowest - np.quantile(lowest, 0.1) - 0.02, 0.0, None))


def _angle_between(
    pose: Float64[np.ndarray, "1 13 4"], others: Float64[np.ndarray, "n 13 4"]
) -> Float64[np.ndarray, "n"]:
    """Return the root mean square angle between the joints of two poses, in radians."""
    cosine = np.abs(np.sum(pose * others, axis=-1))
    angle = 2 * np.arccos(np.clip(cosine, 0.0, 1.0))
    return np.asarray(np.sqrt((angle**2 @ _JOINT_WEIGHTS) / _JOINT_WEIGHTS.sum()))


def _blended(opening: Poses, poses: Poses, share: NDArray[np.float64]) -> Poses:
    """Blend from the opening's pose to `poses` while `share` goes from 0 to 1."""
    gap = multiply(opening.rotations, conjugate(poses.rotations[:1]))
    bend = slerp(gap, identity(gap.shape[:-1]), smooth_step(share)[:, None])
    return replace(poses, rotations=multiply(bend, poses.rotations))


def _draw_turning(rng: np.random.Generator, name: str) -> float:
    """Draw the additional turning rate of a motion, in radians per second."""
    if name not in _STRIDING:
        return float(rng.normal(0.0, 0.15))
    if rng.random() < 0.2:
        return float(rng.choice([-1.0, 1.0]) * rng.uniform(1.0, 2.2))
    return float(rng.normal(0.0, 0.4))


def _turned(poses: Poses, heading: float, rate: float) -> Poses:
    """Add a heading, and a rotation of `rate` radians from each pose to the next."""
    turn = heading + rate * np.arange(len(poses))
    path = poses.place[:, 0] + 1j * poses.place[:, 1]
    path = np.cumsum(np.diff(path, prepend=path[:1]) * np.exp(1j * turn))
    return replace(
        poses, place=np.stack([path.real, path.imag], axis=1), heading=poses.heading + turn
    )
