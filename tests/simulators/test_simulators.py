"""What all simulators owe: clips that depend on (seed, start, future) alone, and true futures."""

import dataclasses
import doctest
import hashlib
import importlib
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cinnema
from cinnema.core.errors import UserError
from cinnema.data.records import ClipSource, RawClip
from cinnema.simulators.push import Push
from cinnema.simulators.simulator import Simulator, split_of
from cinnema.simulators.sky import Skies
from cinnema.simulators.walk import Walk

pytest.importorskip("pybullet")

SIMULATORS: dict[str, Simulator] = {
    "push": Push(20, futures=3, size=32, num_frames=6),
    "sky": Skies(20, futures=3, size=32, num_frames=4),
    "walk": Walk(20, futures=3, size=32, num_frames=10),
}
FPS = {"push": 10.0, "sky": 8.0, "walk": 12.5}
TRACKS = {
    "push": {"end_effector": 3, "objects": 21},
    "sky": {"wind": 2},
    "walk": {"joints": 54, "joints_2d": 36, "motion": 2},
}
START = 3

every_simulator = pytest.mark.parametrize("name", SIMULATORS)


def clips_of(source: Simulator, start: int = START) -> list[RawClip]:
    clips = list(source.read(source.items()[start]))
    assert all(isinstance(clip, RawClip) for clip in clips)
    return clips  # type: ignore[return-value]


def digest(clip: RawClip) -> str:
    content = hashlib.sha256(clip.frames.tobytes())
    for name in sorted(clip.tracks):
        content.update(clip.tracks[name].tobytes())
    if clip.still is not None:
        content.update(np.ascontiguousarray(clip.still))
    return content.hexdigest()


@pytest.fixture(scope="module")
def all_clips() -> dict[str, list[RawClip]]:
    return {name: clips_of(source) for name, source in SIMULATORS.items()}


def test_another_process_with_other_threads_simulates_the_same_clips_to_the_bit(
    all_clips: dict[str, list[RawClip]],
) -> None:
    program = (
        "import sys, torch\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "torch.set_num_threads(4)\n"
        "from test_simulators import SIMULATORS, clips_of, digest\n"
        "for source in SIMULATORS.values():\n"
        "    for clip in clips_of(source):\n"
        "        print(digest(clip))\n"
        "assert torch.get_num_threads() == 4\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(cinnema.__file__).parents[1],
    )
    assert result.stdout.split() == [digest(clip) for clips in all_clips.values() for clip in clips]


@every_simulator
def test_a_clip_does_not_depend_on_the_clips_before_it_or_on_their_number(
    name: str, all_clips: dict[str, list[RawClip]]
) -> None:
    fewer = clips_of(dataclasses.replace(SIMULATORS[name], futures=2, num_starts=9))
    assert [digest(clip) for clip in fewer] == [digest(clip) for clip in all_clips[name][:2]]


@every_simulator
@pytest.mark.parametrize("change", ["start", "seed"])
def test_another_start_or_seed_gives_another_picture(
    name: str, change: str, all_clips: dict[str, list[RawClip]]
) -> None:
    source = dataclasses.replace(SIMULATORS[name], futures=1, seed=int(change == "seed"))
    (other,) = clips_of(source, START + (change == "start"))
    first = all_clips[name][0].frames[0].astype(float)
    assert np.abs(other.frames[0].astype(float) - first).mean() > 5


@every_simulator
def test_futures_share_their_first_frame_to_the_bit_and_then_differ(
    name: str, all_clips: dict[str, list[RawClip]]
) -> None:
    first, *others = all_clips[name]
    assert {clip.start for clip in (first, *others)} == {first.source}
    assert len({clip.name for clip in (first, *others)}) == 3
    for clip in others:
        np.testing.assert_array_equal(clip.frames[0], first.frames[0])
        assert (clip.frames[-1] != first.frames[-1]).mean() > 0.01
        for track in set(clip.tracks) - {"motion"}:
            np.testing.assert_array_equal(clip.tracks[track][0], first.tracks[track][0])
            assert np.abs(clip.tracks[track] - first.tracks[track]).max() > 1e-3


@every_simulator
def test_clips_have_the_frames_and_tracks_that_they_should(
    name: str, all_clips: dict[str, list[RawClip]]
) -> None:
    num_frames = SIMULATORS[name].num_frames
    for clip in all_clips[name]:
        assert clip.frames.shape == (num_frames, 32, 32, 3)
        assert clip.fps == FPS[name]
        shapes = {track: values.shape for track, values in clip.tracks.items()}
        assert shapes == {track: (num_frames, width) for track, width in TRACKS[name].items()}
        assert clip.confidence is None
        assert clip.name.startswith(clip.source)


@pytest.mark.parametrize("name", ["sky", "walk"])
def test_pixels_marked_as_still_do_not_change(
    name: str, all_clips: dict[str, list[RawClip]]
) -> None:
    for clip in all_clips[name]:
        assert clip.still is not None
        assert np.ptp(clip.frames[:, clip.still].astype(int), axis=0).max(initial=0) <= 1


def test_every_tenth_start_is_for_testing_and_the_one_before_it_for_validation() -> None:
    assert [split_of(start, num_starts=1_000_009) for start in (0, 7, 8, 9, 1_000_008)] == [
        "train", "train", "validation", "test", "validation",
    ]  # fmt: skip


def test_of_few_starts_the_last_ones_are_held_out() -> None:
    few = [[split_of(start, num_starts=num) for start in range(num)] for num in (1, 2, 3, 4)]
    assert few == [
        ["train"], ["train", "test"], ["train", "validation", "test"],
        ["train", "train", "validation", "test"],
    ]  # fmt: skip


@every_simulator
def test_more_starts_leave_the_others_as_they_are(name: str) -> None:
    source = SIMULATORS[name]
    items = source.items()
    assert [item.split for item in items] == (["train"] * 8 + ["validation", "test"]) * 2
    assert {item.clips for item in items} == {3}
    assert list(dataclasses.replace(source, num_starts=30).items()[:20]) == list(items)


@every_simulator
def test_a_simulator_is_a_clip_source_that_can_be_pickled(name: str) -> None:
    source = SIMULATORS[name]
    assert isinstance(source, ClipSource)
    assert pickle.loads(pickle.dumps(source)) == source
    assert (source.name, source.size) == (name, 32)
    assert source.control is None or source.control.name in TRACKS[name]


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        (SIMULATORS["push"], None),
        (Skies(1, foregrounds=Path("/some/folder")), "foregrounds"),
        (Walk(1, motion_folder=Path("/some/folder")), "motion_folder"),
    ],
    ids=SIMULATORS,
)
def test_settings_are_json_and_contain_only_the_last_part_of_paths(
    source: Simulator, folder: str | None
) -> None:
    settings = json.loads(json.dumps(source.settings()))
    assert list(settings) == [field.name for field in dataclasses.fields(source)]
    if folder is not None:
        assert settings[folder] == "folder"


@pytest.mark.parametrize(
    ("name", "options", "limit"),
    [
        *((name, {"num_starts": 0}, "") for name in SIMULATORS),
        *((name, {"futures": 0}, "") for name in SIMULATORS),
        *((name, {"seed": -1}, "at least 0") for name in SIMULATORS),
        *((name, {"num_frames": 1}, "") for name in SIMULATORS),
        ("push", {"size": 31}, "at least 32"),
        ("sky", {"size": 16}, "32 to 4096"),
        ("sky", {"num_starts": 2**32}, "1 to 4194304"),
        ("sky", {"futures": 1024}, "1 to 1023"),
        ("sky", {"num_frames": 129}, "2 to 128"),
        ("walk", {"size": 8}, "at least 16"),
        ("walk", {"fps": 0.0}, "1 to 240"),
        ("walk", {"fps": math.nan}, "1 to 240"),
    ],
)
def test_a_number_outside_its_limits_is_refused(
    name: str, options: dict[str, float], limit: str
) -> None:
    ((field, value),) = options.items()
    with pytest.raises(UserError, match=rf"{field} of {name} must be {limit}.*, got {value}"):
        dataclasses.replace(SIMULATORS[name], **options)


@pytest.mark.parametrize(
    "module", ["push.push", "push.rendering", "sky.skies", "sky.scene", "sky.tiles", "walk.mocap",
               "walk.walk"],
)  # fmt: skip
def test_examples_in_docstrings_run(module: str) -> None:
    found = importlib.import_module(f"cinnema.simulators.{module}")
    assert doctest.testmod(found, extraglobs={"np": np}).failed == 0
