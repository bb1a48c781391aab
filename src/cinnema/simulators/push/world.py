"""A robot arm pushes things about in a tray: the world that stands in for the robot data set BAIR.

Coordinates are metres: x to the right in the picture, y away from the camera, z up; the origin is
the middle of the tray's floor. Camera, tray and arm are symmetric about x = 0, so that a mirrored
clip is one that could have been filmed, with -x for x.

The arm is a KUKA LBR iiwa of pybullet's models, read where pybullet keeps it, with a gripper of
our own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.random import Generator

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, Control, Item, RawClip
from cinnema.simulators.push.arm import ARM_PAINTS, Arm, Pose, set_arm
from cinnema.simulators.push.engine import Engine, simulation
from cinnema.simulators.push.layout import WORKSPACE
from cinnema.simulators.push.objects import set_objects
from cinnema.simulators.push.rendering import Camera, Light, View, render
from cinnema.simulators.push.tabletop import draw_light, draw_scenery, push_camera, set_tray
from cinnema.simulators.starts import split_of

END_EFFECTOR = Control(
    name="end_effector",
    kind="position",
    labels=("x", "y", "z"),
    unit="m",
    mirror_axis=0,
    mirror_centre=0.0,
)
"""The point between the fingertips: x to the right, y away from the camera, z up."""


FPS = 10.0


_STEPS = 24  # of physics, a frame


@dataclass(frozen=True)
class Push:
    """Random pushes as a source of clips, deterministic by (seed, start, future).

    A start is a picture: arm, tray and table in some colours, objects at rest, light. A future is
    a random path of the gripper through the workspace, low over the tray for the most part, with
    half of its waypoints where an object lies at the start. The arm sets out at rest.

    Tracks: "end_effector" is where the point between the fingertips is in each frame, in metres,
    within `WORKSPACE` up to a centimetre; "objects" are x, y and z of the centre of each of the 7
    objects.

    Every tenth start is for testing and the one before it for validation.

    Args:
        num_starts: Pictures, at least 1.
        futures: Random pushes of each, at least 1. More of them leave the first as they are.
        seed: Of all draws, at least 0.
        size: Width and height in pixels, at least 32.
        num_frames: Of each clip, x0 included, at least 2; there are 10 a second.

    Raises:
        UserError: A number is out of its range.

    Example:
        >>> push = Push(20, futures=2, num_frames=3)
        >>> first, second = push.read(push.items()[0])
        >>> bool((first.frames[0] == second.frames[0]).all()), first.tracks["end_effector"].shape
        (True, (3, 3))
    """

    num_starts: int
    futures: int = 1
    seed: int = 0
    size: int = 64
    num_frames: int = 30

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {"num_starts": 1, "futures": 1, "seed": 0, "size": 32, "num_frames": 2}
        for name, low in least.items():
            if (value := getattr(self, name)) < low:
                raise UserError(f"{name} of push must be at least {low}, got {value}")

    @property
    def name(self) -> str:
        """What the packed data set is called."""
        return "push"

    @property
    def control(self) -> Control:
        """The position of the end effector."""
        return END_EFFECTOR

    def settings(self) -> dict[str, Any]:
        """Return all that decides what comes of the source."""
        return {
            "num_starts": self.num_starts,
            "futures": self.futures,
            "seed": self.seed,
            "size": self.size,
            "num_frames": self.num_frames,
        }

    def items(self) -> Sequence[Item]:
        """List the starts; each has `futures` clips."""
        return [
            Item(name=f"{start:07d}", split=split_of(start), clips=self.futures)
            for start in range(self.num_starts)
        ]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the futures of one start.

        Raises:
            UserError: pybullet is not installed.
        """
        start = int(item.name)
        with simulation(time_step=1 / (FPS * _STEPS)) as engine:
            engine.setPhysicsEngineParameter(numSolverIterations=20)
            stage = _set_stage(engine, self._stream(start, 0), camera=push_camera(size=self.size))
            kept = engine.saveState()
            for future in range(self.futures):
                engine.restoreState(stateId=kept)
                path = _draw_path(
                    self._stream(start, 1 + future), stage, num_frames=self.num_frames
                )
                frames, tracks = _film(stage, path, num_frames=self.num_frames)
                yield RawClip(
                    name=f"{item.name}-{future}",
                    source=item.name,
                    frames=frames,
                    fps=FPS,
                    tracks=tracks,
                    start=item.name,
                )

    def _stream(self, start: int, number: int) -> Generator:
        return np.random.default_rng([self.seed, start, number])


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A start: everything at rest, and what does not move drawn."""

    engine: Engine
    camera: Camera
    light: Light
    scenery: View
    arm: "Arm"
    pose: Pose
    objects: tuple[int, ...]

    def places(self) -> Float[np.ndarray, "n 3"]:
        """Return where the objects are."""
        return np.array([self.engine.getBasePositionAndOrientation(o)[0] for o in self.objects])

    def step(self, pose: Pose) -> None:
        """Let the arm make for a pose, and a step of time pass."""
        self.arm.make_for(pose)
        self.engine.stepSimulation()


def _set_stage(engine: Engine, rng: Generator, *, camera: Camera) -> _Stage:
    light, paints = draw_light(rng), ARM_PAINTS[rng.integers(len(ARM_PAINTS))]
    scenery = draw_scenery(engine, rng, camera=camera, light=light, pedestal=paints[0])
    tray = set_tray(engine)
    low, high = np.array([*WORKSPACE, (-0.8, 0.8)]).T
    pose = rng.uniform(low, high)
    arm = set_arm(engine, paints)
    arm.stand_in(pose)
    for body in tray:
        arm.pass_through(body)
    stage = _Stage(
        engine=engine,
        camera=camera,
        light=light,
        scenery=scenery,
        arm=arm,
        pose=pose,
        objects=set_objects(engine, rng, away_from=pose[:2]),
    )
    _settle(stage)
    return stage


def _settle(stage: _Stage) -> None:
    """Let time pass until nothing has moved by a tenth of a millimetre in a tenth of a second."""
    before = stage.places() + 1
    for _ in range(30):
        for _ in range(_STEPS):
            stage.step(stage.pose)
        if np.abs((now := stage.places()) - before).max() < 1e-4:
            return
        before = now


def _film(
    stage: _Stage, path: "_Path", *, num_frames: int
) -> tuple[UInt8[np.ndarray, "t s s 3"], Mapping[str, Float32[np.ndarray, "t _"]]]:
    frames, hand, objects = [], [], []
    for frame in range(num_frames):
        for step in range(_STEPS if frame else 0):
            stage.step(path.at((frame - 1 + (step + 1) / _STEPS) / FPS))
        frames.append(render(stage.engine, stage.camera, stage.light, scenery=stage.scenery))
        hand.append(stage.arm.end_effector())
        objects.append(stage.places().ravel())
    tracks = {
        END_EFFECTOR.name: np.array(hand, dtype=np.float32),
        "objects": np.array(objects, dtype=np.float32),
    }
    return np.stack(frames), tracks


@dataclass(frozen=True, kw_only=True)
class _Path:
    """Moves from waypoint to waypoint; each begins before the last ends, so that corners are round.

    Attributes:
        start: Where it begins.
        moves: From each waypoint to the next.
        begins: When each move begins, in seconds.
        lasts: How long it takes, in seconds.
    """

    start: Pose
    moves: Float[np.ndarray, "m 4"]
    begins: Float[np.ndarray, "m"]
    lasts: Float[np.ndarray, "m"]

    def at(self, time: float) -> Pose:
        """Return where it is at a time in seconds.

        Each move has the least jerk: its share done is 10 s^3 - 15 s^4 + 6 s^5.
        """
        s = np.clip((time - self.begins) / self.lasts, 0, 1)
        return np.asarray(self.start + (s**3 * (10 - 15 * s + 6 * s**2)) @ self.moves)


def _draw_path(rng: Generator, stage: _Stage, *, num_frames: int) -> _Path:
    objects = stage.places()
    points, begins, lasts = [stage.pose], [], []
    time = 0.0
    while time < num_frames / FPS:
        point = _draw_waypoint(rng, objects)
        distance = float(np.linalg.norm(point[:3] - points[-1][:3]))
        if distance < 0.1:
            continue
        points.append(point)
        begins.append(time)
        lasts.append(max(0.5, distance / rng.uniform(0.35, 0.6)))
        time += 0.75 * lasts[-1]
    return _Path(
        start=stage.pose,
        moves=np.diff(np.array(points), axis=0),
        begins=np.array(begins),
        lasts=np.array(lasts),
    )


def _draw_waypoint(rng: Generator, objects: Float[np.ndarray, "n 3"]) -> Pose:
    low, high = np.array(WORKSPACE).T
    place = rng.uniform(low, high)
    if rng.random() < 0.5:
        place[:2] = rng.choice(objects)[:2] + rng.normal(0, 0.015, 2)
    if rng.random() < 0.75:
        place[2] = rng.uniform(low[2], 0.04)
    return np.append(np.clip(place, low, high), rng.uniform(-0.8, 0.8))
