"""People made of tiles: bodies that bend, clothes that cover, and how they are painted."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cinnema.simulators.walk.body_mesh import (
    Build,
    draw_build,
    draw_clothes,
    make_figure,
    rest_joints,
)
from cinnema.simulators.walk.figure import (
    JOINTS,
    PARENTS,
    Figure,
    Light,
    Skeleton,
    paint,
    pose_skeleton,
)
from cinnema.simulators.walk.mocap import Poses, identity


def towards_upright(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations by at most a third of a turn."""
    values = values + np.array([3.0, 0.0, 0.0, 0.0])
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


rotations = arrays(np.float64, (3, 13, 4), elements=st.floats(-1, 1)).map(towards_upright)


def standing(num: int = 1, **changes: NDArray[np.float64]) -> Poses:
    """Upright at the origin, the pelvis on the floor, looking along x."""
    pose = Poses(np.zeros((num, 2)), np.zeros(num), np.zeros(num), identity((num, 13)))
    return dataclasses.replace(pose, **changes)


def draw_figure(seed: int) -> Figure:
    rng = np.random.default_rng(seed)
    return make_figure(draw_build(rng), draw_clothes(rng), grain=rng)


def joint(skeleton: Skeleton, name: str) -> NDArray[np.float64]:
    return skeleton.joints[:, JOINTS.index(name)]


@settings(max_examples=25, deadline=None)
@given(turns=rotations, seed=st.integers(0, 1000))
def test_bones_keep_their_lengths_in_any_pose(turns: NDArray[np.float64], seed: int) -> None:
    rest = rest_joints(draw_build(np.random.default_rng(seed)))
    poses = standing(3, rotations=turns, heading=np.array([0.0, 1.0, 4.0]))
    joints = pose_skeleton(rest, poses).joints
    for index, (_name, parent) in list(enumerate(PARENTS.items()))[1:]:
        start = JOINTS.index(parent)
        bone = np.linalg.norm(rest[index] - rest[start])
        lengths = np.linalg.norm(joints[:, index] - joints[:, start], axis=1)
        np.testing.assert_allclose(lengths, bone, atol=1e-9)


def test_left_is_left_as_seen_by_the_person() -> None:
    rest = rest_joints(Build())
    turned = pose_skeleton(rest, standing(2, heading=np.array([0.0, math.pi / 2])))
    assert joint(turned, "left_hip")[0, 1] > 0 > joint(turned, "right_hip")[0, 1]
    # Turned to the left they look along y, so that left is where x is negative.
    assert joint(turned, "left_hip")[1, 0] < 0 < joint(turned, "right_hip")[1, 0]
    assert (joint(turned, "left_toe")[1] - joint(turned, "left_ankle")[1])[1] > 0.1


def test_an_elbow_bends_the_forearm_alone() -> None:
    rest, bend = rest_joints(Build()), identity((1, 13)).copy()
    bend[0, 12] = [math.sqrt(0.5), 0, -math.sqrt(0.5), 0]  # a right angle, about -y: to the front
    skeleton = pose_skeleton(rest, standing(rotations=bend))
    moved = np.abs(skeleton.joints[0] - rest).max(axis=1) > 1e-9
    assert [name for name, has_moved in zip(JOINTS, moved, strict=True) if has_moved] == [
        "left_wrist"
    ]
    forearm = joint(skeleton, "left_wrist") - joint(skeleton, "left_elbow")
    np.testing.assert_allclose(forearm[0], [0.259, 0, 0], atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_at_rest_the_skin_is_where_it_was_made(seed: int) -> None:
    figure = draw_figure(seed)
    skin = figure.skin(pose_skeleton(figure.rest, standing()))
    np.testing.assert_allclose(skin[0], figure.points, atol=1e-12)
    np.testing.assert_allclose(figure.weights.sum(axis=1), 1, atol=1e-12)
    assert figure.weights.min() >= 0
    assert 0 <= figure.colours.min() <= figure.colours.max() <= 1


@settings(max_examples=10, deadline=None)
@given(turns=rotations, heading=st.floats(-3, 3))
def test_a_turned_person_is_the_person_turned(turns: NDArray[np.float64], heading: float) -> None:
    figure = draw_figure(3)
    ahead, turned = (
        figure.skin(
            pose_skeleton(figure.rest, standing(3, rotations=turns, heading=np.full(3, angle)))
        )
        for angle in (0.0, heading)
    )
    flat, other = (points[..., 0] + 1j * points[..., 1] for points in (ahead, turned))
    np.testing.assert_allclose(other, flat * np.exp(1j * heading), atol=1e-9)
    np.testing.assert_allclose(turned[..., 2], ahead[..., 2], atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_people_are_closed_from_all_sides(seed: int) -> None:
    """The flux of (x, y, z) / 3 out of the skin is its volume: 30 to 160 litres."""
    figure = draw_figure(seed)
    a, b, c, d = (figure.points[figure.tiles[:, corner]] for corner in range(4))
    across = np.cross(c - a, d - b) / 2
    volume = float(np.sum(across * (a + b + c + d) / 4) / 3)
    assert 0.03 < volume < 0.16
    normals = figure.normals(figure.points[None])[0]
    np.testing.assert_allclose(
        normals, across / np.linalg.norm(across, axis=1, keepdims=True), atol=1e-9
    )


def test_people_differ_in_height_width_and_colour() -> None:
    figures = [draw_figure(seed) for seed in range(30)]
    heights = [float(np.ptp(figure.points[:, 2])) for figure in figures]
    assert 1.45 < min(heights) < 1.62
    assert 1.72 < max(heights) < 1.95
    assert len({figure.colours.tobytes() for figure in figures}) == 30


def test_long_trousers_and_sleeves_cover_what_short_ones_show() -> None:
    clothes = dataclasses.replace(
        draw_clothes(np.random.default_rng(0)), skin=np.array([1.0, 0, 0]), skirt=0.0,
        shirt=np.array([0, 1.0, 0]), trousers=np.array([0, 0, 1.0]), pattern="plain",
    )  # fmt: skip

    def bare(sleeves: float, legs: float) -> int:
        worn = dataclasses.replace(clothes, sleeves=sleeves, legs=legs)
        colours = make_figure(Build(), worn, grain=np.random.default_rng(0)).colours
        return int((colours[:, 0] > 0.5).sum())

    counts = [
        bare(sleeves, legs) for sleeves, legs in ((0, 0), (0.45, 0), (1, 0), (1, 0.45), (1, 1))
    ]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 5


def square(left: float, top: float, side: float) -> NDArray[np.float64]:
    """Counter-clockwise as seen, in pixels."""
    right, low = left + side, top + side
    return np.array([[left, top], [left, low], [right, low], [right, top]], dtype=np.float64)


@settings(max_examples=25, deadline=None)
@given(left=st.floats(2, 8), top=st.floats(2, 8), side=st.floats(2, 7))
def test_a_tile_covers_as_much_of_the_picture_as_its_area(
    left: float, top: float, side: float
) -> None:
    white = np.ones((1, 3))
    picture = paint(square(left, top, side)[None], np.ones(1), white, size=16)
    # Painted four times larger, with their edges: they grow by up to an eighth on each side.
    assert side**2 - 0.3 * side <= picture[..., 3].sum() <= (side + 0.55) ** 2
    y, x = np.mgrid[:16, :16] + 0.5
    weight = picture[..., 3] / picture[..., 3].sum()
    assert float((weight * x).sum()) == pytest.approx(left + side / 2, abs=0.2)
    assert float((weight * y).sum()) == pytest.approx(top + side / 2, abs=0.2)


def test_the_nearest_tile_is_on_top_and_back_faces_are_not_drawn() -> None:
    tiles = np.stack([square(2, 2, 8), square(4, 4, 8), square(0, 0, 15)[::-1]])
    picture = paint(tiles, np.array([1.0, 2.0, 0.5]), np.eye(3), size=16)
    np.testing.assert_array_equal(picture[6, 6], [1, 0, 0, 1])
    np.testing.assert_array_equal(picture[11, 11], [0, 1, 0, 1])
    np.testing.assert_array_equal(picture[14, 14], 0)


def test_surfaces_that_face_the_light_are_brightest() -> None:
    towards = np.array([0.6, 0.0, 0.8])
    light = Light(towards, np.full(3, 0.7), np.full(3, 0.4), np.full(3, 0.2))
    facing, up, down, away = light.on(np.stack([towards, [0.0, 0, 1], [0.0, 0, -1], -towards]))[
        :, 0
    ]
    assert facing > up > down
    assert facing == pytest.approx(0.7 + 0.2 + 0.9 * 0.2)
    assert down == pytest.approx(0.2)
    assert away == pytest.approx(0.2 + 0.1 * 0.2)  # no light of the lamp's at all
