"""The world of people: the same clips anywhere, futures of one start, and tracks that are true."""

import dataclasses
import doctest
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.records import ClipSource, RawClip
from cinnema.simulators.starts import split_of
from cinnema.simulators.walk import world as module
from cinnema.simulators.walk.figure import JOINTS, PARENTS
from cinnema.simulators.walk.scenery import Camera, Scenery
from cinnema.simulators.walk.world import MOTIONS, Walk

pytest.importorskip("pybullet_data")

SMALL = Walk(num_starts=30, futures=3, size=32, num_frames=10)


def clips_of(number: int, source: Walk = SMALL) -> list[RawClip]:
    return list(source.read(source.items()[number]))


def digest(clip: RawClip) -> str:
    content = hashlib.sha256(clip.frames.tobytes())
    for name in sorted(clip.tracks):
        content.update(clip.tracks[name].tobytes())
    return content.hexdigest()


def play(source: Walk, number: int, future: int) -> tuple[Any, Any]:
    """The stage of a start, and one of its futures."""
    rng = np.random.default_rng([source.seed, number, 3, future])
    stage = source._set_stage(number)
    return stage, source._draw_seen_future(rng, source._draw_opening(number), stage)


@pytest.fixture(scope="module")
def clips() -> list[RawClip]:
    return clips_of(4)


def test_a_fresh_process_draws_the_same_clip_to_the_bit(clips: list[RawClip]) -> None:
    program = """
import hashlib
from cinnema.simulators.walk import Walk
walk = Walk(num_starts=5, futures=3, size=32, num_frames=10)
for clip in walk.read(walk.items()[4]):
    content = hashlib.sha256(clip.frames.tobytes())
    for name in sorted(clip.tracks):
        content.update(clip.tracks[name].tobytes())
    print(content.hexdigest())
"""
    source = Path(module.__file__).parents[3]
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=source
    )
    assert told.stdout.split() == [digest(clip) for clip in clips]


def test_a_clip_is_the_same_whatever_was_drawn_before(clips: list[RawClip]) -> None:
    clips_of(7)
    one_by_one = clips_of(4, dataclasses.replace(SMALL, futures=2, num_starts=9))
    assert [digest(clip) for clip in one_by_one] == [digest(clip) for clip in clips[:2]]


def test_another_seed_or_start_is_another_world(clips: list[RawClip]) -> None:
    others = [clips_of(5)[0], clips_of(4, dataclasses.replace(SMALL, seed=1))[0]]
    assert all(np.abs(other.frames[0] - clips[0].frames[0]).mean() > 5 for other in others)


def test_futures_share_their_first_frame_to_the_bit_and_then_differ(clips: list[RawClip]) -> None:
    first = clips[0]
    assert {clip.start for clip in clips} == {first.source} == {"start-000004"}
    assert len({clip.name for clip in clips}) == 3
    for clip in clips[1:]:
        np.testing.assert_array_equal(clip.frames[0], first.frames[0])
        np.testing.assert_array_equal(clip.tracks["joints"][0], first.tracks["joints"][0])
        apart = np.abs(clip.tracks["joints"] - first.tracks["joints"]).max(axis=1)
        assert apart[-1] > 0.1
        assert (clip.frames[-1] != first.frames[-1]).mean() > 0.01


def test_a_start_has_many_kinds_of_futures() -> None:
    rng, opening = np.random.default_rng(0), SMALL._draw_opening(0)
    takes = [SMALL._draw_future(rng, opening) for _ in range(60)]
    assert len({float(take.motion[0, 0]) for take in takes}) >= 3
    ends = np.stack([take.poses.rotations[-1] for take in takes])
    assert len(np.unique(ends.round(3), axis=0)) == 60


def test_clips_hold_what_they_say(clips: list[RawClip]) -> None:
    for clip in clips:
        assert clip.frames.shape == (10, 32, 32, 3)
        assert clip.fps == 12.5
        assert clip.confidence is None
        assert {name: track.shape for name, track in clip.tracks.items()} == {
            "joints": (10, 54), "joints_2d": (10, 36), "motion": (10, 2),
        }  # fmt: skip
        number, phase = clip.tracks["motion"].T
        assert set(number) <= set(range(len(MOTIONS)))
        assert ((phase >= 0) & (phase < 1)).all()


def test_what_is_still_never_changes(clips: list[RawClip]) -> None:
    for clip in clips:
        assert clip.still is not None
        assert 0.3 < clip.still.mean() < 0.95
        assert np.ptp(clip.frames[:, clip.still].astype(int), axis=0).max() == 0
        assert (np.ptp(clip.frames[:, ~clip.still].astype(int), axis=0).max(axis=-1) > 0).all()


def test_a_single_future_shares_its_start_with_none() -> None:
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
    camera = SMALL._set_stage(4).camera
    joints = clips[0].tracks["joints"].reshape(10, -1, 3).astype(np.float64)
    seen, _ = camera.project(joints)
    np.testing.assert_allclose(seen.reshape(10, -1), clips[0].tracks["joints_2d"], atol=1e-4)
    np.testing.assert_allclose(joints[0, 0, :2], 0, atol=1e-6)


starts, futures = st.integers(0, 10_000), st.integers(0, 50)


@pytest.fixture
def one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is before the same wall, which takes no time to draw."""
    scenery = SMALL._set_stage(0).scenery

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
    stage = long._set_stage(number)
    rng = np.random.default_rng([long.seed, number, 3, future])
    assert not stage.sees(long._draw_future(rng, long._draw_opening(number)))
    assert stage.sees(play(long, number, future)[1])


@pytest.mark.usefixtures("one_place")
def test_people_move_smoothly_out_of_their_first_pose() -> None:
    for number in range(12):
        stage, take = play(SMALL, number, 0)
        opening, _ = stage.pose(SMALL._draw_opening(number))
        joints = np.concatenate([opening.joints, stage.pose(take)[0].joints])
        speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * SMALL.fps
        assert speed.max() < 20  # of a kicking foot, in m/s
        assert np.median(speed) < 3


def test_every_tenth_start_tests_whatever_their_number() -> None:
    few, many = (Walk(num_starts=number).items() for number in (25, 1000))
    assert list(many[:25]) == list(few)
    splits = [item.split for item in many]
    assert {split: splits.count(split) for split in set(splits)} == {
        "train": 800, "validation": 100, "test": 100,
    }  # fmt: skip
    assert (split_of(8), split_of(9), split_of(1_000_008)) == ("validation", "test", "validation")
    assert [item.clips for item in Walk(num_starts=2, futures=5).items()] == [5, 5]


def test_it_is_a_source_that_travels() -> None:
    assert isinstance(SMALL, ClipSource)
    assert pickle.loads(pickle.dumps(SMALL)) == SMALL
    assert (SMALL.name, SMALL.size, SMALL.control) == ("walk", 32, None)


def test_all_settings_are_told() -> None:
    told = json.loads(
        json.dumps(Walk(num_starts=3, motion_folder=Path("/some/motions")).settings())
    )
    assert set(told) == {field.name for field in dataclasses.fields(Walk)}
    assert told["motion_folder"] == "motions"
    assert told["motions"] == list(MOTIONS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_starts": 0}, "num_starts must be at least 1, got 0"),
        ({"futures": 0}, "futures must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"size": 8}, "size must be at least 16"),
        ({"num_frames": 1}, "num_frames must be at least 2"),
        ({"fps": 0.0}, "fps must be from 1 to 240"),
        ({"motions": ()}, "motions must be"),
        ({"motions": ("walk", "walk")}, "motions must be different"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Walk(**{"num_starts": 1, **options})


def test_a_motion_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"humanoid3d_swim\.txt"):
        Walk(num_starts=1, motions=("walk", "swim")).items()


def test_one_motion_alone_is_played_from_a_folder() -> None:
    folder = module.bundled_folder()
    source = dataclasses.replace(SMALL, motions=("walk",), motion_folder=folder, futures=1)
    (clip,) = clips_of(1, source)
    assert set(clip.tracks["motion"][:, 0]) == {0}


def test_without_pybullet_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybullet_data", None)
    with pytest.raises(UserError, match="pip install"):
        SMALL.items()


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
