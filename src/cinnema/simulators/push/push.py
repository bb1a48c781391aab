"""A robot arm that pushes objects in a tray: a substitute for the robot data set BAIR.

Coordinates are in metres: x to the right in the picture, y away from the camera, z up; the origin
is the centre of the tray's floor. Camera, tray and arm are symmetric about x = 0, so a mirrored
clip is a plausible clip with -x for x.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.random import Generator

from cinnema.data.records import BadRecord, Control, Item, RawClip
from cinnema.simulators.push.arm import ARM_PAINTS, WORKSPACE, Arm, Pose, set_arm
from cinnema.simulators.push.engine import Engine, simulation
from cinnema.simulators.push.rendering import Camera, Light, View, render
from cinnema.simulators.push.tabletop import (
    draw_light,
    draw_scenery,
    push_camera,
    set_objects,
    set_tray,
)
from cinnema.simulators.simulator import Simulator

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

_STEPS = 24  # physics steps per frame


@dataclass(frozen=True)
class Push(Simulator):
    """Random pushes of a robot arm.

    A start is a scene: random colours of arm, tray and table, objects at rest, a light. A future
    is a random path of the gripper through the workspace, mostly low over the tray, with half of
    its waypoints at the initial position of an object. The arm starts at rest.

    Tracks: "end_effector" is the position of the point between the fingertips in each frame, in
    metres, within `WORKSPACE` up to a centimetre; "objects" is x, y and z of the centre of each of
    the 7 objects.

    Args:
        num_starts: Number of starts, at least 1.
        futures: Number of clips for each start, at least 1.
        seed: Seed of all random draws, at least 0.
        size: Height and width of the frames, in pixels, at least 32.
        num_frames: Number of frames in a clip, including x0, at least 2, at 10 fps.

    Raises:
        UserError: A number is outside its limits.

    Example:
        >>> push = Push(20, futures=2, num_frames=3)
        >>> first, second = push.read(push.items()[0])
        >>> bool((first.frames[0] == second.frames[0]).all()), first.tracks["end_effector"].shape
        (True, (3, 3))
    """

    name: ClassVar[str] = "push"
    control: ClassVar[Control] = END_EFFECTOR

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the futures of one start.

        Args:
            item: An item of `items`.

        Raises:
            UserError: pybullet is not installed.
        """
        start = self.start_of(item)
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
    """A start: everything at rest, and the static bodies rendered."""

    engine: Engine
    camera: Camera
    light: Light
    scenery: View
    arm: Arm
    pose: Pose
    objects: tuple[int, ...]

    def places(self) -> Float[np.ndarray, "n 3"]:
        """Return the positions of the objects."""
        return np.array([self.engine.getBasePositionAndOrientation(o)[0] for o in self.objects])

    def step(self, pose: Pose) -> None:
        """Set the arm's target and advance the simulation by one step."""
        self.arm.move_to(pose)
        self.engine.stepSimulation()


def _set_stage(engine: Engine, rng: Generator, *, camera: Camera) -> _Stage:
    light, paints = draw_light(rng), ARM_PAINTS[rng.integers(len(ARM_PAINTS))]
    scenery = draw_scenery(engine, rng, camera=camera, light=light, pedestal=paints[0])
    tray = set_tray(engine)
    low, high = np.array([*WORKSPACE, (-0.8, 0.8)]).T
    pose = rng.uniform(low, high)
    arm = set_arm(engine, paints)
    arm.set_pose(pose)
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
    """Advance until no object has moved by 0.1 mm within 0.1 s, for at most 3 s."""
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
    """Moves between waypoints; each begins before the previous one ends, which rounds the corners.

    Attributes:
        start: First pose.
        moves: Differences between successive waypoints.
        begins: Times at which the moves begin, in seconds.
        lasts: Durations of the moves, in seconds.
    """

    start: Pose
    moves: Float[np.ndarray, "m 4"]
    begins: Float[np.ndarray, "m"]
    lasts: Float[np.ndarray, "m"]

    def at(self, time: float) -> Pose:
        """Return the pose at a time in seconds.

        Each move has minimum jerk: its completed share is 10 s^3 - 15 s^4 + 6 s^5.
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
