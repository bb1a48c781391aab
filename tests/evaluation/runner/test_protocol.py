"""Which frames stand beside which, and which windows are measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.evaluation.protocol import (
    PackedClips,
    choose_protocol,
    choose_split,
    choose_starts,
    find_partners,
    thin_shared_starts,
)

from .conftest import packed, windows

REAL = np.arange(17, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
GENERATED = 100 + REAL[1:]


def times(clip: np.ndarray) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in clip]


@pytest.mark.parametrize(
    ("name", "data", "real", "generated"),
    [
        ("aligned", "anything", range(1, 17), range(101, 117)),
        ("paper", "landscape", range(16), range(101, 117)),
        ("paper", "dtdb-fire", range(16), range(101, 117)),
        ("paper", "bair", range(16), [0, *range(101, 116)]),
        ("paper", "iper", range(17), [0, *range(101, 117)]),
    ],
)
def test_frames_stand_beside_each_other_as_aligned_or_as_published(
    name: str, data: str, real: range, generated: list[int]
) -> None:
    protocol = choose_protocol(name, data, num_frames=16)  # type: ignore[arg-type]
    assert times(protocol.real(REAL)) == list(real)
    assert times(protocol.generated(REAL[0], GENERATED)) == list(generated)


def test_what_the_paper_did_not_measure_has_no_paper_protocol() -> None:
    with pytest.raises(UserError, match="did not measure mine: its data sets are bair"):
        choose_protocol("paper", "mine", num_frames=16)
    with pytest.raises(UserError, match="needs 15 generated frames, the model makes 4"):
        choose_protocol("paper", "bair", num_frames=4)


def test_windows_do_not_overlap_and_are_all_there(dataset: PackedDataset) -> None:
    starts = choose_starts(
        dataset, choose_protocol("aligned", "drifting", num_frames=4), num_frames=4
    )
    assert {start.source for start in starts} == {f"video of test{i}" for i in range(8)}
    assert len({start.key for start in starts}) == len(starts) == 16  # 13 frames hold two of 5
    firsts = sorted({start.first for start in starts})
    assert firsts[1] - firsts[0] >= 5


def test_a_choice_of_some_is_the_same_every_time_and_grows_with_the_number(
    dataset: PackedDataset,
) -> None:
    protocol = choose_protocol("aligned", "drifting", num_frames=4)
    some, more = (
        {s.key for s in choose_starts(dataset, protocol, num_frames=4, most=n)} for n in (4, 7)
    )
    assert (len(some), len(more)) == (4, 7)
    assert some <= more


def test_the_papers_counts_are_its_own(tmp_path: Path) -> None:
    for name, per_clip in (("landscape", 6), ("dtdb-fire", 5), ("bair", 1)):
        data = packed(tmp_path / name, name=name, num_train=0, num_test=2, frames=20)
        protocol = choose_protocol("paper", name, num_frames=16)
        starts = choose_starts(data, protocol, num_frames=16)
        assert len(starts) == 2 * per_clip
        assert len({start.key for start in starts}) == len(starts)
        if name != "landscape":
            assert {start.first for start in starts} == {0}


def test_a_clip_is_read_at_its_stride_with_the_control_of_these_frames(
    dataset: PackedDataset,
) -> None:
    clips = windows(dataset, stride=3)
    start = clips.starts[0]
    clip = clips.read(start)
    whole = dataset.read(start.position)
    assert np.array_equal(clip.frames, whole.frames[[0, 3, 6, 9, 12]])
    assert clip.eta is not None
    np.testing.assert_allclose(clip.eta, 12 * whole.tracks["wind"][0], rtol=1e-5)
    assert np.array_equal(np.asarray(clips.eta(start)), clip.eta)
    assert np.array_equal(np.asarray(clips.track(start)), np.asarray(clip.track))
    assert clips.fps(start) == pytest.approx(8 / 3)
    assert clips.continuation(start, num_frames=4) is not None
    assert clips.continuation(start, num_frames=5) is None


def test_clips_of_another_size_are_stretched_and_the_record_says_so(tmp_path: Path) -> None:
    data = packed(tmp_path / "clips", size=48, num_train=0, num_test=1)
    clips = windows(data, size=64)
    assert clips.read(clips.starts[0]).frames.shape == (5, 64, 64, 3)
    assert clips.facts()["size"] == "64, resized from 48, stretched to a square as in training"
    assert windows(data, size=48).facts()["size"] == "48"


@pytest.mark.parametrize(
    ("num_test", "num_train", "split", "reason"),
    [
        (1, 1, "test", "the split test is evaluated"),
        (0, 2, "train", "test and validation have no clip that is long enough; the model may"),
    ],
)
def test_the_split_is_the_first_with_a_clip_and_the_reason_says_why(
    tmp_path: Path, num_test: int, num_train: int, split: str, reason: str
) -> None:
    data = packed(tmp_path / "clips", num_train=num_train, num_test=num_test)
    found, why = choose_split(data, num_frames=4)
    assert found == split
    assert reason in why
    with pytest.raises(UserError, match="no clip has 17 frames at stride 1"):
        choose_split(data, num_frames=16)


def test_some_shared_first_frames_keep_all_their_futures(forked: PackedDataset) -> None:
    starts = windows(forked).starts
    (name,) = {start.key.split("-")[0] for start in thin_shared_starts(forked, starts, most=1)}
    kept = [start for start in starts if start.key.startswith(name)]
    assert thin_shared_starts(forked, starts, most=1) == kept
    assert set(thin_shared_starts(forked, starts, most=None)) == set(starts)


def test_a_partner_is_of_another_source(dataset: PackedDataset) -> None:
    starts = windows(dataset).starts
    partners = find_partners(starts)
    assert all(partners[start.key].source != start.source for start in starts)
    assert find_partners([s for s in starts if s.source == starts[0].source]) == {}


def test_other_futures_are_all_other_clips_of_a_start_each_with_another_one_first(
    forked: PackedDataset,
) -> None:
    clips = windows(forked, stride=2)
    starts, others = clips.starts, clips.other_futures()
    names = {
        forked.manifest.clips[start.position].clip: [
            forked.manifest.clips[other.position].clip for other in others.get(start.key, [])
        ]
        for start in starts
    }
    assert names == {
        "test0-0": ["test0-1", "test0-2"],
        "test0-1": ["test0-2", "test0-0"],
        "test0-2": ["test0-0", "test0-1"],
        "test1-0": ["test1-1"],
        "test1-1": ["test1-0"],
        "test2-0": [],
    }
    assert {(o.first, o.stride) for found in others.values() for o in found} == {(0, 2)}
    alone = PackedClips(forked, starts[:1], num_frames=4, size=64, split="test").other_futures()
    assert alone == {starts[0].key: others[starts[0].key]}


def test_what_is_too_short_or_begins_later_is_no_other_future(forked: PackedDataset) -> None:
    starts = windows(forked, num_frames=12).starts
    later = [replace(start, first=1) for start in starts]
    for chosen, num_frames, count in ((starts, 12, 5), (starts, 13, 0), (later, 4, 0)):
        clips = PackedClips(forked, chosen, num_frames=num_frames, size=64, split="test")
        assert len(clips.other_futures()) == count


def test_clips_that_are_too_short_are_refused(dataset: PackedDataset) -> None:
    protocol = choose_protocol("aligned", "drifting", num_frames=16)
    with pytest.raises(UserError, match="no clip of the split test has 17 frames"):
        choose_starts(dataset, protocol, num_frames=16)
