"""People in motion: their futures, their tracks, and where they are in the picture."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.records import RawClip
from cinnema.simulators.walk import walk as module
from cinnema.simulators.walk.figure import JOINTS, PARENTS
from cinnema.simulators.walk.scenery import Camera, Scenery
from cinnema.simulators.walk.walk import MOTIONS, Stage, Take, Walk

pytest.importorskip("pybullet_data")

SMALL = Walk(num_starts=30, futures=3, size=32, num_frames=10)


def clips_of(number: int, source: Walk = SMALL) -> list[RawClip]:
    return list(source.read(source.items()[number]))


@pytest.fixture(scope="module")
def clips() -> list[RawClip]:
    return clips_of(4)


def play(source: Walk, start: int, future: int) -> tuple[Stage, Take]:
    """The stage of a start, and one of its futures."""
    stage, opening = source.stage_of(start), source.opening_of(start)
    return stage, source.future_of(start, future, opening=opening, stage=stage)


def test_a_start_has_many_kinds_of_futures() -> None:
    rng, opening = np.random.default_rng(0), SMALL.opening_of(0)
    takes = [SMALL.draw_future(rng, opening) for _ in range(60)]
    assert len({float(take.motion[0, 0]) for take in takes}) >= 3
    ends = np.stack([take.poses.rotations[-1] for take in takes])
    assert len(np.unique(ends.round(3), axis=0)) == 60


def test_motions_are_known_and_phases_lie_in_their_range(clips: list[RawClip]) -> None:
    for clip in clips:
        number, phase = clip.tracks["motion"].T
        assert set(number) <= set(range(len(MOTIONS)))
        assert ((phase >= 0) & (phase < 1)).all()


def test_still_pixels_never_change_and_all_others_do(clips: list[RawClip]) -> None:
    for clip in clips:
        assert clip.still is not None
        assert 0.3 < clip.still.mean() < 0.95
        assert np.ptp(clip.frames[:, clip.still].astype(int), axis=0).max() == 0
        assert (np.ptp(clip.frames[:, ~clip.still].astype(int), axis=0).max(axis=-1) > 0).all()


def test_a_clip_without_other_futures_names_no_start() -> None:
    (clip,) = clips_of(2, dataclasses.replace(SMALL, futures=1))
    assert clip.start is None


@pytest.mark.parametrize("number", [0, 3, 11])
def test_joints_are_seen_where_the_person_is_drawn(number: int) -> None:
    """The place is drawn once more with the person's shadow but without the person."""
    source = dataclasses.replace(SMALL, size=64, num_frames=6)
    clip = clips_of(number, source)[0]
    stage, take = play(source, number, 0)
    nobody = dataclasses.replace(
        stage.figure, tiles=stage.figure.tiles[:0], colours=stage.figure.colours[:0]
    )
    empty = dataclasses.replace(stage, figure=nobody).film(take).frames
    for t in range(1, 6):
        is_person = (clip.frames[t] != empty[t - 1]).any(axis=-1)
        joints = clip.tracks["joints_2d"][t].reshape(-1, 2) * 64
        names = ("pelvis", "chest", "neck", "head", "left_knee", "right_knee", "left_elbow")
        for x, y in joints[[JOINTS.index(name) for name in names]].astype(int):
            assert is_person[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any()
        rows, columns = np.flatnonzero(is_person.any(1)), np.flatnonzero(is_person.any(0))
        drawn = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]])
        spread = np.array([joints.min(axis=0), joints.max(axis=0)])
        assert np.abs(drawn - spread).max() < 7  # hands, soles and hair go beyond the joints


def test_joints_in_metres_are_those_in_the_picture(clips: list[RawClip]) -> None:
    camera = SMALL.stage_of(4).camera
    joints = clips[0].tracks["joints"].reshape(10, -1, 3).astype(np.float64)
    seen, _ = camera.project(joints)
    np.testing.assert_allclose(seen.reshape(10, -1), clips[0].tracks["joints_2d"], atol=1e-4)
    np.testing.assert_allclose(joints[0, 0, :2], 0, atol=1e-6)


starts, futures = st.integers(0, 10_000), st.integers(0, 50)


@pytest.fixture
def one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is before the same wall, which takes no time to draw."""
    scenery = SMALL.stage_of(0).scenery

    def draw_it_again(rng: np.random.Generator, camera: Camera, *, size: int) -> Scenery:
        return scenery

    monkeypatch.setattr(module, "draw_scenery", draw_it_again)


def lengths(joints: NDArray[np.float64]) -> NDArray[np.float64]:
    pairs = [(JOINTS.index(a), JOINTS.index(b)) for a, b in PARENTS.items() if b]
    return np.stack([np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) for a, b in pairs], -1)


@pytest.mark.usefixtures("one_place")
def test_people_keep_their_bones_stand_on_the_floor_and_stay_in_the_picture() -> None:
    long = dataclasses.replace(SMALL, num_frames=30)

    @settings(max_examples=30, deadline=None)
    @given(starts, futures)
    def check(number: int, future: int) -> None:
        stage, take = play(long, number, future)
        skeleton, points = stage.pose(take)
        np.testing.assert_allclose(
            lengths(skeleton.joints), np.broadcast_to(lengths(stage.figure.rest[None]), (29, 17))
        )
        lowest = points[..., 2].min(axis=1)
        np.testing.assert_allclose(
            lowest, take.clearance * stage.build.scale * stage.build.legs, atol=1e-9
        )
        assert lowest.min() < 0.05  # nobody floats for a second
        seen, _ = stage.camera.project(skeleton.joints)
        assert seen.min() > 0
        assert seen.max() < 1

    check()


@pytest.mark.usefixtures("one_place")
@pytest.mark.parametrize(("number", "future"), [(150, 32), (1074, 51)])
def test_a_future_that_leaves_the_picture_is_drawn_again(number: int, future: int) -> None:
    long = dataclasses.replace(SMALL, num_starts=2000, num_frames=30)
    stage = long.stage_of(number)
    rng = np.random.default_rng([long.seed, number, 3, future])
    assert not stage.sees(long.draw_future(rng, long.opening_of(number)))
    assert stage.sees(play(long, number, future)[1])


@pytest.mark.usefixtures("one_place")
def test_people_move_smoothly_out_of_their_first_pose() -> None:
    for number in range(12):
        stage, take = play(SMALL, number, 0)
        opening, _ = stage.pose(SMALL.opening_of(number))
        joints = np.concatenate([opening.joints, stage.pose(take)[0].joints])
        speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * SMALL.fps
        assert speed.max() < 20  # of a kicking foot, in m/s
        assert np.median(speed) < 3


def test_a_missing_motion_is_named() -> None:
    with pytest.raises(UserError, match=r"humanoid3d_swim\.txt"):
        Walk(num_starts=1, motions=("walk", "swim")).items()


def test_one_motion_alone_is_played_from_a_folder() -> None:
    folder = module.bundled_folder()
    source = dataclasses.replace(SMALL, motions=("walk",), motion_folder=folder, futures=1)
    (clip,) = clips_of(1, source)
    assert set(clip.tracks["motion"][:, 0]) == {0}


def test_without_pybullet_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybullet_data", None)
    with pytest.raises(UserError, match="pip install"):
        SMALL.items()
