"""A world of people who walk, run, jump and dance by motion capture, before still surroundings.

A start is a person (body, clothes), a place, a camera and a pose taken from one of the motions.
Its futures begin with that same picture, to the bit, and go on as other motions, at other speeds,
forwards or backwards, straight or turning: a future is drawn among the moments of all motions whose
pose resembles the start's, and the pose turns into that motion within a third of a second.

Who runs leaves the picture. As on a treadmill, the path of a clip is shortened to what the camera
sees; steps are not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.records import Control, Item, RawClip
from cinnema.simulators.starts import split_of
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
from cinnema.simulators.walk.tailoring import (
    Build,
    draw_build,
    draw_clothes,
    make_figure,
    rest_joints,
)

# How often each of pybullet's motions is played. Those that are left out (crawling, rolls,
# cartwheels, flips) can be asked for by name.
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
# These were recorded faster than people move.
_TEMPO = {"dance_a": 0.7, "spinkick": 0.7}
# Those that look natural backwards, and those that turn corners.
_REVERSIBLE = ("walk",)
_STRIDING = ("walk", "run")
# How far a person may come from its first place, in metres.
_REACH = 0.45
# Poses resemble each other up to about this angle between their joints, in radians.
_LIKENESS = 0.35
# In likeness, of each joint as `mocap.TURNING` lists them: what bears the weight counts most.
_JOINT_WEIGHTS = np.array([2.0, 1.0, 0.3, 2.0, 1.5, 0.5, 1.0, 0.7, 2.0, 1.5, 0.5, 1.0, 0.7])
# Moments of a motion are told apart by so many seconds.
_STEP = 1 / 30
# How far from the edge of the picture its joints stay, in picture widths.
_MARGIN = 0.04
# Futures that are drawn until one stays in the picture: of three hundred, one or two do not.
_TRIES = 20
# Of the recorded person, in metres.
_STATURE = 1.66
_BODY, _PLACE, _OPENING, _FUTURE = range(4)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """People in motion, as a `ClipSource`: one item is a start with all its futures.

    Tracks: "joints", positions of `figure.JOINTS` one after the other as x, y, z in metres, on axes
    that follow the picture (x to the right, y away from the camera, z up, the origin on the floor
    beneath the first pelvis); "joints_2d", the same as x, y in the picture, from (0, 0), the upper
    left corner, to (1, 1); "motion", which of `motions` is played, and its phase in [0, 1).

    Every tenth start validates and every tenth tests, whatever their number; the person, its
    clothes and its surroundings belong to the start alone.

    Attributes:
        num_starts: How many starts.
        futures: Clips of each start.
        seed: Decides everything, with the numbers of the start and of the future.
        size: Width and height of the frames, in pixels.
        num_frames: Of each clip, the first one included.
        fps: Frames a second.
        motions: Which files are played, without "humanoid3d_" and ".txt".
        motion_folder: Where they are; pybullet's own when None.

    Example:
        >>> walk = Walk(num_starts=10, futures=2, num_frames=4)
        >>> first, second = walk.read(walk.items()[0])
        >>> first.frames.shape, first.tracks["joints"].shape
        ((4, 64, 64, 3), (4, 54))
    """

    num_starts: int
    futures: int = 1
    seed: int = 0
    size: int = 64
    num_frames: int = 30
    fps: float = 12.5
    motions: tuple[str, ...] = tuple(MOTIONS)
    motion_folder: Path | None = None

    def __post_init__(self) -> None:
        least = {"num_starts": 1, "futures": 1, "seed": 0, "size": 16, "num_frames": 2}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not 1 <= self.fps <= 240:
            raise UserError(f"fps must be from 1 to 240, got {self.fps}")
        if not self.motions or len(set(self.motions)) < len(self.motions):
            raise UserError(f"motions must be different ones, 1 or more, got {self.motions}")

    @property
    def name(self) -> str:
        """What the packed data set is called."""
        return "walk"

    @property
    def control(self) -> Control | None:
        """There is none."""
        return None

    def settings(self) -> dict[str, Any]:
        """Return all that decides what comes of the source."""
        folder = None if self.motion_folder is None else self.motion_folder.name
        return {**asdict(self), "motions": list(self.motions), "motion_folder": folder}

    def items(self) -> Sequence[Item]:
        """List the starts.

        Raises:
            UserError: Motions are missing or damaged, or pybullet is not installed.
        """
        self._repertoire()
        return [
            Item(name=f"start-{number:06d}", split=split_of(number), clips=self.futures)
            for number in range(self.num_starts)
        ]

    def read(self, item: Item) -> Iterator[RawClip]:
        """Yield the futures of one start."""
        number = int(item.name.removeprefix("start-"))
        stage = self._set_stage(number)
        opening = self._draw_opening(number)
        first = stage.film(opening)
        for future in range(self.futures):
            rng = np.random.default_rng([self.seed, number, _FUTURE, future])
            film = stage.film(self._draw_seen_future(rng, opening, stage))
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

    def _set_stage(self, number: int) -> "_Stage":
        body = np.random.default_rng([self.seed, number, _BODY])
        build = draw_build(body)
        figure = make_figure(build, draw_clothes(body), grain=body)
        place = np.random.default_rng([self.seed, number, _PLACE])
        camera = draw_camera(place, stature=_STATURE * build.scale)
        scenery = draw_scenery(place, camera, size=self.size)
        return _Stage(build, figure, camera, scenery)

    def _draw_opening(self, number: int) -> "_Take":
        """The first pose of a start: a moment of a motion, turned anyhow."""
        rng = np.random.default_rng([self.seed, number, _OPENING])
        repertoire = self._repertoire()
        moment = int(rng.choice(len(repertoire.weights), p=repertoire.weights))
        take = repertoire.play(moment, np.zeros(1))
        return replace(take, poses=_turned(take.poses, rng.uniform(-math.pi, math.pi), 0.0))

    def _draw_seen_future(
        self, rng: np.random.Generator, opening: "_Take", stage: "_Stage"
    ) -> "_Take":
        """A future in which the person stays in the picture: a high leap may leave it."""
        for _ in range(_TRIES):
            take = self._draw_future(rng, opening)
            if stage.sees(take):
                break
        return take

    def _draw_future(self, rng: np.random.Generator, opening: "_Take") -> "_Take":
        """All but the first frame of a clip."""
        repertoire = self._repertoire()
        odds = repertoire.weights * np.exp(
            -((_unlikeness(opening.poses.rotations, repertoire.rotations) / _LIKENESS) ** 2)
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
        return _Take(poses, clearance, take.motion)[1:]

    def _repertoire(self) -> "_Repertoire":
        folder = bundled_folder() if self.motion_folder is None else self.motion_folder
        return _make_repertoire(folder, self.motions)


@dataclass(frozen=True)
class _Take:
    """What is played at t moments.

    Attributes:
        poses: The path is as recorded; `_Stage` shortens it.
        clearance: How far the lowest part of the body is above the floor, in metres.
        motion: Which motion, and its phase.
    """

    poses: Poses
    clearance: Float64[np.ndarray, "t"]
    motion: Float64[np.ndarray, "t 2"]

    def __getitem__(self, moments: slice) -> "_Take":
        return _Take(self.poses[moments], self.clearance[moments], self.motion[moments])


@dataclass(frozen=True)
class _Film:
    """What the camera saw of a take."""

    frames: UInt8[np.ndarray, "t h w 3"]
    joints: Float32[np.ndarray, "t xyz"]
    joints_2d: Float32[np.ndarray, "t xy"]
    motion: Float32[np.ndarray, "t 2"]


def _pairs(first: _Film, rest: _Film) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for field in fields(_Film):
        yield field.name, (getattr(first, field.name), getattr(rest, field.name))


@dataclass(frozen=True)
class _Stage:
    """A person somewhere, before a camera."""

    build: Build
    figure: Figure
    camera: Camera
    scenery: Scenery

    def film(self, take: _Take) -> _Film:
        skeleton, points = self.pose(take)
        seen, _ = self.camera.project(skeleton.joints)
        frames = np.stack(list(self._pictures(points)))
        num_frames = len(frames)
        return _Film(
            frames=frames,
            joints=skeleton.joints.reshape(num_frames, -1).astype(np.float32),
            joints_2d=seen.reshape(num_frames, -1).astype(np.float32),
            motion=take.motion.astype(np.float32),
        )

    def sees(self, take: _Take) -> bool:
        """Whether every joint is in the picture at every moment."""
        seen, _ = self.camera.project(self.pose(take)[0].joints)
        return bool(seen.min() > 0 and seen.max() < 1)

    def pose(self, take: _Take) -> tuple[Skeleton, NDArray[np.float64]]:
        """Stand the person on the floor, or as high above it as the take says, within view.

        Returns:
            The skeleton, and the corners of the skin.
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
        """The path, shortened until every joint is seen at every moment."""
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
    """All moments at which a motion can begin.

    Attributes:
        motions: All of them, then all of them mirrored.
        clearances: Of each motion, at its moments in turn.
        owners: Of each moment, the number of its motion.
        moments: In seconds.
        rotations: The pose at each moment.
        weights: How often a start is at each moment.
    """

    motions: tuple[Motion, ...]
    clearances: tuple[Float64[np.ndarray, "_"], ...]
    owners: Int64[np.ndarray, "n"]
    moments: Float64[np.ndarray, "n"]
    rotations: Float64[np.ndarray, "n 13 4"]
    weights: Float64[np.ndarray, "n"]

    def play(self, moment: int, times: Float64[np.ndarray, "t"]) -> _Take:
        """Play on from one of the moments, by its number."""
        owner, start = int(self.owners[moment]), float(self.moments[moment])
        motion = self.motions[owner]
        phase = (start + times) / motion.period % 1.0
        heights = self.clearances[owner]
        clearance = np.interp(phase * len(heights), np.arange(len(heights) + 1),
                              np.append(heights, heights[0]))  # fmt: skip
        number = np.full(len(times), float(owner % (len(self.motions) // 2)))
        return _Take(motion.play(start, times), clearance, np.stack([number, phase], axis=1))


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
    """How far the recorded person is above the floor, in metres.

    Recordings sink and float by a few centimetres; the lowest tenth of a motion is taken to stand.
    """
    skeleton = pose_skeleton(rest_joints(Build()), poses)
    reach = {"pelvis": 0.12, "chest": 0.1, "head": 0.12, "toe": 0.025, "knee": 0.06, "wrist": 0.1}
    below = [reach.get(name.split("_")[-1], 0.06) for name in JOINTS]
    lowest = (skeleton.joints[..., 2] - np.array(below)).min(axis=1)
    return np.asarray(np.clip(lowest - np.quantile(lowest, 0.1) - 0.02, 0.0, None))


def _unlikeness(
    pose: Float64[np.ndarray, "1 13 4"], others: Float64[np.ndarray, "n 13 4"]
) -> Float64[np.ndarray, "n"]:
    """The root mean square of the angles between two poses' joints, in radians."""
    cosine = np.abs(np.sum(pose * others, axis=-1))
    angle = 2 * np.arccos(np.clip(cosine, 0.0, 1.0))
    return np.asarray(np.sqrt((angle**2 @ _JOINT_WEIGHTS) / _JOINT_WEIGHTS.sum()))


def _blended(opening: Poses, poses: Poses, share: NDArray[np.float64]) -> Poses:
    """Begin with the opening's pose, and leave it while `share` goes from 0 to 1."""
    gap = multiply(opening.rotations, conjugate(poses.rotations[:1]))
    bend = slerp(gap, identity(gap.shape[:-1]), smooth_step(share)[:, None])
    return replace(poses, rotations=multiply(bend, poses.rotations))


def _draw_turning(rng: np.random.Generator, name: str) -> float:
    """How fast a motion turns besides what was recorded, in radians a second."""
    if name not in _STRIDING:
        return float(rng.normal(0.0, 0.15))
    if rng.random() < 0.2:
        return float(rng.choice([-1.0, 1.0]) * rng.uniform(1.0, 2.2))
    return float(rng.normal(0.0, 0.4))


def _turned(poses: Poses, heading: float, rate: float) -> Poses:
    """Let poses begin with a heading, and turn by `rate` radians from each to the next."""
    turn = heading + rate * np.arange(len(poses))
    path = poses.place[:, 0] + 1j * poses.place[:, 1]
    path = np.cumsum(np.diff(path, prepend=path[:1]) * np.exp(1j * turn))
    return replace(
        poses, place=np.stack([path.real, path.imag], axis=1), heading=poses.heading + turn
    )
