"""Motion capture: the files, what is wrong with damaged ones, and cycles without seams."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.simulators.walk.mocap import (
    TURNING,
    Motion,
    about_vertical,
    bundled_folder,
    conjugate,
    heading_of,
    identity,
    multiply,
    read_motion,
    slerp,
    to_matrix,
)

Write = Callable[..., Path]

directions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda value: np.linalg.norm(value) > 0.1
)
rotations = directions.map(lambda value: value / np.linalg.norm(value))
angles = st.floats(-3.1, 3.1)


def rows(num_rows: int = 9, *, turn: float = 0.3, step: float = 0.1) -> list[list[float]]:
    """Someone who walks on an arc, swings the right hip and bends the left knee; y points up."""
    out = []
    for index in range(num_rows):
        share = index / (num_rows - 1)
        heading, swing = turn * share, 0.4 * math.sin(2 * math.pi * share) + 0.1 * share
        row = [0.1 if index < num_rows - 1 else 0.0, step * index, 0.9 + 0.02 * share, 0.0]
        row += [math.cos(heading / 2), 0.0, math.sin(heading / 2), 0.0]
        for name in TURNING[1:]:
            angle = {"right_hip": swing, "left_knee": -abs(swing)}.get(name, 0.0)
            is_hinge = name.endswith(("knee", "elbow"))
            row += [angle] if is_hinge else [math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]
        out.append(row)
    return out


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    folder = tmp_path_factory.mktemp("motions")

    def to_file(frames: Any = None, *, loop: Any = "wrap", **others: Any) -> Path:
        path = folder / "humanoid3d_stroll.txt"
        content = {"Loop": loop, "Frames": rows() if frames is None else frames, **others}
        path.write_text(json.dumps(content))
        return path

    return to_file


@pytest.fixture(scope="module", params=["wrap", "none"])
def motion(request: pytest.FixtureRequest, write: Write) -> Motion:
    return read_motion(write(loop=request.param))


def distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The largest angle between rotations, in radians."""
    cosine = np.abs(np.sum(first * second, axis=-1))
    return float(2 * np.arccos(np.clip(cosine, 0, 1)).max())


def test_a_file_is_read_as_it_was_recorded_with_z_up(write: Write) -> None:
    motion = read_motion(write())
    assert (motion.name, motion.period) == ("stroll", pytest.approx(0.8))
    assert motion.frames.heading[-1] == pytest.approx(0.3)  # counter-clockwise about the vertical
    np.testing.assert_allclose(motion.frames.place[4], [0.4, 0.0], atol=1e-12)
    hip = motion.frames.rotations[2, TURNING.index("right_hip")]
    swing = 0.4 + 0.1 / 4
    # About the axis to the right, which is -y now that z points up and x forward.
    np.testing.assert_allclose(hip, [math.cos(swing / 2), 0, -math.sin(swing / 2), 0], atol=1e-12)
    knee = motion.frames.rotations[2, TURNING.index("left_knee")]
    np.testing.assert_allclose(knee, hip * [1, 1, -1, 1], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(cycle=st.integers(-3, 3), start=st.floats(0, 2))
def test_a_cycle_goes_on_without_a_seam(motion: Motion, cycle: int, start: float) -> None:
    seam = cycle * motion.period - start
    poses = motion.play(start, np.array([seam - 1e-6, seam + 1e-6]))
    assert distance(poses.rotations[0], poses.rotations[1]) < 1e-3
    assert np.ptp(poses.height) < 1e-4
    assert np.ptp(poses.heading) < 1e-4
    assert np.ptp(poses.place, axis=0).max() < 1e-4


def test_each_cycle_goes_on_where_the_last_one_led(motion: Motion) -> None:
    poses = motion.at(np.arange(4) * motion.period)
    np.testing.assert_allclose(poses.heading, np.arange(4) * 0.3, atol=1e-9)
    steps = np.linalg.norm(np.diff(poses.place, axis=0), axis=1)
    np.testing.assert_allclose(steps, 0.8, atol=1e-9)
    bends = np.diff(np.unwrap(np.arctan2(*np.diff(poses.place, axis=0).T[::-1])))
    np.testing.assert_allclose(bends, 0.3, atol=1e-9)


def test_a_straight_walk_stays_straight(write: Write) -> None:
    motion = read_motion(write(rows(turn=0.0)))
    poses = motion.at(np.array([0.0, 1.0, 8.0, -4.0]))
    np.testing.assert_allclose(poses.place[:, 0], [0, 1, 8, -4], atol=1e-9)
    np.testing.assert_allclose(poses.place[:, 1], 0, atol=1e-9)


def test_only_the_end_of_a_cycle_is_blended_into_its_start(write: Write) -> None:
    recorded = read_motion(write(loop="none")).frames[:-1]
    motion = read_motion(write())
    assert distance(recorded.rotations[0], recorded.rotations[-1]) > 0.05
    assert distance(motion.frames.rotations[:5], recorded.rotations[:5]) < 1e-6
    assert distance(motion.frames.rotations[0], motion.frames.rotations[-1]) < 1e-6


def test_a_motion_that_is_no_cycle_returns_to_its_first_pose_in_place(write: Write) -> None:
    wrapped, motion = read_motion(write()), read_motion(write(loop="none"))
    assert motion.period == wrapped.period + 0.5
    poses = motion.at(np.array([0.8, 1.05]))
    np.testing.assert_allclose(poses.place[0], poses.place[1], atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(start=st.floats(0, 5), times=arrays(np.float64, 5, elements=st.floats(-5, 5)))
def test_playing_begins_at_the_origin_along_x(
    motion: Motion, start: float, times: NDArray[np.float64]
) -> None:
    poses = motion.play(start, np.concatenate([[0.0], times]))
    assert np.abs(poses.place[0]).max() < 1e-9
    assert abs(poses.heading[0]) < 1e-9
    recorded = motion.at(np.concatenate([[start], start + times]))
    turned = recorded.place - recorded.place[0]
    np.testing.assert_allclose(
        np.linalg.norm(poses.place, axis=1), np.linalg.norm(turned, axis=1), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.norm(poses.rotations, axis=-1), 1, atol=1e-9)


def test_the_mirror_image_swaps_left_and_right(motion: Motion) -> None:
    mirrored, moments = motion.mirrored(), np.linspace(0, 3, 7)
    poses, reflected = motion.at(moments), mirrored.at(moments)
    np.testing.assert_allclose(reflected.place, poses.place * [1, -1], atol=1e-9)
    np.testing.assert_allclose(reflected.heading, -poses.heading, atol=1e-9)
    left, right = (TURNING.index(f"{side}_hip") for side in ("left", "right"))
    # A swing forward is its own mirror image.
    assert distance(reflected.rotations[:, left], poses.rotations[:, right]) < 1e-6
    twice = mirrored.mirrored().frames
    np.testing.assert_array_equal(twice.rotations, motion.frames.rotations)
    np.testing.assert_array_equal(twice.place, motion.frames.place)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: r[3].pop(), "frame 3 has 43 columns, not 44"),
        (lambda r: r[0].append(1.0), "frame 0 has 45 columns, not 44"),
        (lambda r: r.__setitem__(2, "frame"), "frame 2 has no columns"),
        (lambda r: r[2].__setitem__(7, "x"), "not numbers"),
        (lambda r: r[2].__setitem__(7, [1.0]), "not numbers"),
        (lambda r: r[2].__setitem__(7, math.nan), "not finite"),
        (lambda r: r[2].__setitem__(1, 1e9), "beyond 1000"),
        (lambda r: r[4].__setitem__(0, 0.0), "frame 4 lasts 0.0 s"),
        (lambda r: r[5].__setitem__(slice(8, 12), [0, 0, 0, 0]), "rotation of chest in frame 5"),
        (lambda r: r.__delitem__(slice(1, None)), "not a list of 2 or more rows"),
    ],
)
def test_damaged_rows_are_named(
    write: Write, spoil: Callable[[list[Any]], object], reason: str
) -> None:
    frames = rows()
    spoil(frames)
    with pytest.raises(UserError, match=rf"humanoid3d_stroll\.txt.*{reason}"):
        read_motion(write(frames))


@pytest.mark.parametrize("loop", ["ping-pong", None, 3])
def test_only_two_kinds_of_loops_are_known(write: Write, loop: Any) -> None:
    with pytest.raises(UserError, match='"Loop" is not "wrap" or "none"'):
        read_motion(write(loop=loop))


@pytest.mark.parametrize("text", ["", '{"Loop": "wrap", "Frames": [[0.1,', "[" * 100_000, "\xff"])
def test_a_file_that_is_not_json_is_refused_as_damaged(tmp_path: Path, text: str) -> None:
    path = tmp_path / "humanoid3d_torn.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"humanoid3d_torn\.txt is not valid JSON"):
        read_motion(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"humanoid3d_swim\.txt: No such file"):
        read_motion(tmp_path / "humanoid3d_swim.txt")


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(index=st.integers(0, 8), column=st.integers(0, 43), value=values)
def test_any_other_value_is_read_or_refused(
    write: Write, index: int, column: int, value: Any
) -> None:
    frames = rows()
    frames[index][column] = value
    path = write(frames)
    try:
        motion = read_motion(path)
    except UserError:
        with pytest.raises(UserError, match=r"humanoid3d_stroll\.txt"):
            read_motion(path)
    else:
        poses = motion.at(np.linspace(-2, 2, 9))
        assert all(np.isfinite(part).all() for part in vars(poses).values())


def test_without_pybullet_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybullet_data", None)
    with pytest.raises(UserError, match=r"pip install 'cinnema\[sim\]'"):
        bundled_folder()


def test_all_of_pybullets_people_are_read() -> None:
    pytest.importorskip("pybullet_data")
    paths = sorted(bundled_folder().glob("humanoid3d_*.txt"))
    assert len(paths) >= 15
    for path in paths:
        motion = read_motion(path)
        poses = motion.play(0.1, np.linspace(0, 2 * motion.period, 50))
        assert 0.5 < motion.period < 6
        assert (poses.height > 0).all()
        assert np.abs(poses.place).max() < 8


@settings(max_examples=40, deadline=None)
@given(first=rotations, second=rotations, share=st.floats(0, 1))
def test_slerp_follows_the_shorter_arc_at_constant_speed(
    first: NDArray[np.float64], second: NDArray[np.float64], share: float
) -> None:
    between = slerp(first, second, np.array(share))
    whole = distance(first, second)
    assert np.linalg.norm(between) == pytest.approx(1, abs=1e-9)
    assert distance(first, between) == pytest.approx(share * whole, abs=2e-4)
    assert distance(between, second) == pytest.approx((1 - share) * whole, abs=2e-4)


@settings(max_examples=40, deadline=None)
@given(first=rotations, second=rotations)
def test_products_of_rotations_are_those_of_their_matrices(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> None:
    product = to_matrix(multiply(second, first))
    np.testing.assert_allclose(product, to_matrix(second) @ to_matrix(first), atol=1e-9)
    np.testing.assert_allclose(product @ product.T, np.eye(3), atol=1e-9)
    assert distance(multiply(first, conjugate(first)), identity(())) < 1e-6


@settings(max_examples=40, deadline=None)
@given(heading=angles, tilt=st.floats(-1.2, 1.2))
def test_the_heading_is_the_part_about_the_vertical(heading: float, tilt: float) -> None:
    leaning = np.array([math.cos(tilt / 2), math.sin(tilt / 2), 0.0, 0.0])
    turned = multiply(about_vertical(np.array(heading)), leaning)
    assert float(heading_of(turned)) == pytest.approx(heading, abs=1e-9)
    np.testing.assert_allclose(to_matrix(about_vertical(np.array(heading)))[2], [0, 0, 1])
