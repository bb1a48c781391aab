"""The robot arm: where it and the objects move, its joints, and how the scene is rendered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.data.records import RawClip
from cinnema.simulators.push import WORKSPACE, Push, arm, meshes
from cinnema.simulators.push.engine import add_obstacle, paint, simulation
from cinnema.simulators.push.meshes import add_mesh, box_mesh, lathe_mesh, rounded_mesh
from cinnema.simulators.push.rendering import Camera, Light, render
from cinnema.simulators.push.tabletop import TRAY, push_camera

pytest.importorskip("pybullet")

LOW, HIGH = np.array(WORKSPACE).T
NUM_FRAMES = 24


@pytest.fixture(scope="module")
def clips() -> list[RawClip]:
    source = Push(3, size=64, num_frames=NUM_FRAMES)
    return [clip for item in source.items() for clip in source.read(item)]  # type: ignore[misc]


def test_the_end_effector_stays_in_its_workspace(clips: list[RawClip]) -> None:
    for clip in clips:
        track = clip.tracks["end_effector"]
        assert (track > LOW - 0.01).all()
        assert (track < HIGH + 0.01).all()


def test_objects_are_pushed_and_stay_in_the_tray(clips: list[RawClip]) -> None:
    pushed = 0
    for clip in clips:
        places = clip.tracks["objects"].reshape(NUM_FRAMES, 7, 3)
        pushed += int((np.linalg.norm(places[-1] - places[0], axis=1) > 0.01).sum())
        assert (np.abs(places[..., :2]) < np.array(TRAY) + 0.02).all()
        assert (places[..., 2] > 0).all()
    assert pushed >= 3


def test_the_picture_changes_most_near_the_tracked_gripper(clips: list[RawClip]) -> None:
    seen = push_camera(size=64).project(clips[0].tracks["end_effector"].astype(np.float64))
    frames = clips[0].frames.astype(int)
    rows, columns = np.mgrid[:64, :64] + 0.5
    near = []
    for t in range(1, NUM_FRAMES):
        change = np.abs(frames[t] - frames[t - 1]).max(axis=-1) > 30
        if change.sum() < 20:
            continue
        distance = np.hypot(columns - seen[t, 0], rows - seen[t, 1])
        near.append(distance[change].min())
    assert len(near) >= 8
    assert np.median(near) < 4


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
            body.set_pose(np.array(pose))
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
