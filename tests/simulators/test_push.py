"""The world of the robot arm: the same clips anywhere, true futures of a start, true tracks."""

import dataclasses
import doctest
import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data.records import ClipSource, RawClip
from cinnema.simulators.push import WORKSPACE, Push, arm, meshes, rendering, world
from cinnema.simulators.push.engine import add_obstacle, paint, simulation
from cinnema.simulators.push.layout import TRAY
from cinnema.simulators.push.meshes import add_mesh, box_mesh, lathe_mesh, rounded_mesh
from cinnema.simulators.push.rendering import Camera, Light, render
from cinnema.simulators.push.tabletop import push_camera

pytest.importorskip("pybullet")

SMALL = Push(20, futures=3, size=32, num_frames=12)
LOW, HIGH = np.array(WORKSPACE).T


def clips_of(number: int, source: Push = SMALL) -> list[RawClip]:
    return list(source.read(source.items()[number]))  # type: ignore[arg-type]


def digest(clip: RawClip) -> str:
    content = hashlib.sha256(clip.frames.tobytes())
    for name in sorted(clip.tracks):
        content.update(clip.tracks[name].tobytes())
    return content.hexdigest()


@pytest.fixture(scope="module")
def clips() -> list[RawClip]:
    return clips_of(3)


def test_a_fresh_process_films_the_same_clips_to_the_bit(clips: list[RawClip]) -> None:
    program = """
import hashlib
from cinnema.simulators.push import Push
push = Push(20, futures=3, size=32, num_frames=12)
for clip in push.read(push.items()[3]):
    content = hashlib.sha256(clip.frames.tobytes())
    for name in sorted(clip.tracks):
        content.update(clip.tracks[name].tobytes())
    print(content.hexdigest())
"""
    source = Path(world.__file__).parents[4]
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=source
    )
    assert told.stdout.split() == [digest(clip) for clip in clips]


def test_a_clip_is_the_same_whatever_was_filmed_before(clips: list[RawClip]) -> None:
    clips_of(5)
    fewer = clips_of(3, dataclasses.replace(SMALL, futures=2, num_starts=9))
    assert [digest(clip) for clip in fewer] == [digest(clip) for clip in clips[:2]]


def test_another_seed_or_start_is_another_tray(clips: list[RawClip]) -> None:
    others = [clips_of(4)[0], clips_of(3, dataclasses.replace(SMALL, seed=1))[0]]
    for other in others:
        change = np.abs(other.frames[0].astype(float) - clips[0].frames[0]).mean()
        assert change > 8


def test_futures_share_their_first_frame_to_the_bit_and_then_differ(clips: list[RawClip]) -> None:
    first = clips[0]
    assert {clip.start for clip in clips} == {first.source} == {"0000003"}
    assert len({clip.name for clip in clips}) == 3
    for clip in clips[1:]:
        np.testing.assert_array_equal(clip.frames[0], first.frames[0])
        for name, track in clip.tracks.items():
            np.testing.assert_array_equal(track[0], first.tracks[name][0])
        apart = clip.tracks["end_effector"] - first.tracks["end_effector"]
        assert np.linalg.norm(apart, axis=1).max() > 0.03
        assert (clip.frames[-1] != first.frames[-1]).mean() > 0.02


def test_clips_hold_what_they_say(clips: list[RawClip]) -> None:
    for clip in clips:
        assert clip.frames.shape == (12, 32, 32, 3)
        assert clip.fps == 10
        shapes = {name: track.shape for name, track in clip.tracks.items()}
        assert shapes == {"end_effector": (12, 3), "objects": (12, 21)}


def test_the_end_effector_stays_in_its_workspace(clips: list[RawClip]) -> None:
    for clip in clips:
        track = clip.tracks["end_effector"]
        assert (track > LOW - 0.01).all()
        assert (track < HIGH + 0.01).all()


def test_objects_are_pushed_and_stay_in_the_tray() -> None:
    pushed = 0
    for number in range(4):
        (clip,) = clips_of(number, Push(20, size=32, num_frames=30))
        places = clip.tracks["objects"].reshape(30, 7, 3)
        pushed += int((np.linalg.norm(places[-1] - places[0], axis=1) > 0.01).sum())
        assert (np.abs(places[..., :2]) < np.array(TRAY) + 0.02).all()
        assert (places[..., 2] > 0).all()
    assert pushed >= 3


def test_the_track_is_where_the_gripper_is_seen() -> None:
    """Between two frames the picture changes most about the gripper and the arm above it."""
    (clip,) = clips_of(0, Push(20, size=64, num_frames=16))
    seen = push_camera(size=64).project(clip.tracks["end_effector"].astype(np.float64))
    rows, columns = np.mgrid[:64, :64] + 0.5
    near = []
    for t in range(1, 16):
        change = np.abs(clip.frames[t].astype(int) - clip.frames[t - 1]).max(axis=-1) > 30
        if change.sum() < 20:
            continue
        distance = np.hypot(columns - seen[t, 0], rows - seen[t, 1])
        near.append(distance[change].min())
    assert len(near) >= 8
    assert np.median(near) < 4


def test_every_tenth_start_is_for_testing_and_the_one_before_for_validation() -> None:
    splits = [item.split for item in SMALL.items()]
    assert splits == (["train"] * 8 + ["validation", "test"]) * 2


def test_push_is_a_source_that_travels_to_other_processes() -> None:
    assert isinstance(SMALL, ClipSource)
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_starts", 0), ("futures", 0), ("seed", -1), ("size", 31), ("num_frames", 1)],
)
def test_a_number_out_of_range_is_named(field: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"{field} of push must be at least .*, got {value}"):
        dataclasses.replace(SMALL, **{field: value})


@settings(max_examples=50, deadline=None)
@given(st.tuples(*(st.floats(a, b) for a, b in (*WORKSPACE, (-0.8, 0.8)))))
def test_joints_of_a_mirrored_pose_are_the_mirrored_joints(
    pose: tuple[float, float, float, float],
) -> None:
    x, y, z, turn = pose
    joints = np.array(arm.arm_joints(np.array(pose)))
    mirrored = np.array(arm.arm_joints(np.array([-x, y, z, -turn])))
    turns_about_z = np.array([True, False, True, False, True, False, True])
    np.testing.assert_allclose(mirrored, np.where(turns_about_z, -joints, joints), atol=1e-9)


def test_the_arm_stands_where_it_was_put() -> None:
    with simulation() as engine:
        body = arm.set_arm(engine, arm.ARM_PAINTS[0])
        for pose in ([0.2, -0.1, 0.05, 0.3], [-0.24, 0.14, 0.15, -0.8], [0.0, 0.0, 0.02, 0.0]):
            body.stand_in(np.array(pose))
            np.testing.assert_allclose(body.end_effector(), pose[:3], atol=2e-3)


def lit_room() -> tuple[Camera, Light]:
    camera = Camera(
        eye=(0, -2, 2), target=(0, 0, 0), field_of_view=40, size=48, supersampling=2, far=6
    )
    return camera, Light(direction=(0.6, 0.0, 1.0), shadow=0.6, reach=1.5)


def test_a_body_casts_a_shadow_away_from_the_lamp() -> None:
    camera, light = lit_room()
    with simulation() as engine:
        ground = add_mesh(engine, box_mesh((2.0, 2.0, 0.05)), position=(0, 0, -0.05))
        paint(engine, ground, colour=(0.8, 0.8, 0.8))
        bare = render(engine, camera, light).astype(int)
        body = add_mesh(engine, rounded_mesh((0.15, 0.15, 0.3)), position=(0, 0, 0.3))
        paint(engine, body, colour=(0.8, 0.2, 0.2))
        change = render(engine, camera, light).astype(int) - bare
    # The body hides the ground about the middle; beside it, only its shadow makes a difference.
    darker = (change < -30).all(axis=-1)
    assert darker[:, :20].sum() > 20
    assert darker[:, 28:].sum() == 0


def test_a_mirrored_world_has_the_mirrored_picture() -> None:
    camera, _ = lit_room()
    pictures = []
    for side in (1, -1):
        with simulation() as engine:
            light = Light(direction=(0.6 * side, 0.2, 1.0), reach=1.5)
            ground = add_mesh(engine, box_mesh((2.0, 2.0, 0.05)), position=(0, 0, -0.05))
            paint(engine, ground, colour=(0.7, 0.7, 0.7))
            add_mesh(engine, box_mesh((0.2, 0.1, 0.2)), position=(0.3 * side, 0.1, 0.2))
            pictures.append(render(engine, camera, light).astype(int))
    difference = np.abs(pictures[0] - pictures[1][:, ::-1])
    assert np.quantile(difference, 0.97) <= 12


def test_an_invisible_obstacle_is_not_drawn() -> None:
    camera, light = lit_room()
    with simulation() as engine:
        before = render(engine, camera, light)
        add_obstacle(engine, (0.3, 0.3, 0.3), position=(0, 0, 0.3))
        np.testing.assert_array_equal(render(engine, camera, light), before)


@pytest.mark.parametrize(
    "mesh",
    [
        box_mesh((0.1, 0.2, 0.3)),
        rounded_mesh((0.1, 0.2, 0.3), squareness=(0.5, 1.0)),
        lathe_mesh([(1e-4, -0.1), (0.1, -0.1), (0.05, 0.1), (1e-4, 0.1)]),
    ],
    ids=["box", "rounded", "turned"],
)
def test_a_mesh_faces_outwards(mesh: meshes.Mesh) -> None:
    corners = mesh.vertices[mesh.faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    is_real = np.linalg.norm(facing, axis=1) > 1e-9
    outwards = (facing * corners.mean(axis=1)).sum(axis=1)[is_real]
    assert (outwards > 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("module", [world, rendering])
def test_examples_in_docstrings_hold(module: object) -> None:
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0  # type: ignore[arg-type]
