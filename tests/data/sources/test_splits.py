"""Which videos train, validate and test: by name, by label, by a file, and in time."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data.manifest import ClipEntry, Manifest, ShardEntry
from cinnema.data.records import Split
from cinnema.data.sources.splits import (
    check_shares,
    divide_in_time,
    read_splits,
    split_by_label,
    split_by_name,
)

NAMES = [f"video {k}" for k in range(1000)]


def counts(names: list[str], **shares: float) -> list[int]:
    splits = list(split_by_name(names, **shares).values())
    return [splits.count(side) for side in ("train", "validation", "test")]


def test_many_videos_are_split_by_the_shares() -> None:
    train, validation, test = counts(NAMES, validation=0.1, test=0.2)
    assert abs(validation - 100) < 30
    assert abs(test - 200) < 40
    assert train + validation + test == 1000


@settings(max_examples=40)
@given(st.integers(0, 900), st.integers(60, 99), st.sampled_from(NAMES))
def test_another_video_does_not_move_the_others(first: int, count: int, another: str) -> None:
    names = NAMES[first : first + count]
    before = split_by_name(names, validation=0.2, test=0.2)
    after = split_by_name([*names, another], validation=0.2, test=0.2)
    assert before.items() <= after.items()


@given(st.sets(st.text(max_size=5), max_size=8))
def test_few_videos_leave_no_side_empty_that_can_be_filled(names: set[str]) -> None:
    train, validation, test = counts(sorted(names), validation=0.1, test=0.1)
    assert (train >= 1) == (len(names) >= 1)
    assert (validation >= 1) == (len(names) >= 2)
    assert (test >= 1) == (len(names) >= 3)


@given(st.sets(st.text(max_size=5), max_size=12))
def test_a_share_of_0_stays_empty(names: set[str]) -> None:
    train, validation, test = counts(sorted(names), validation=0.0, test=0.0)
    assert (train, validation, test) == (len(names), 0, 0)
    assert counts(sorted(names), validation=0.5, test=0.0)[2] == 0


def test_the_split_is_the_same_in_every_run() -> None:
    # Written down once: a data set that is prepared again next year has the same split.
    splits = split_by_name(NAMES, validation=0.1, test=0.1)
    held_out = [name for name in NAMES[:30] if splits[name] != "train"]
    assert held_out == ["video 8", "video 9", "video 12", "video 27"]


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    check_shares(validation=0.0)
    for validation, test in ((0.5, 0.5), (-0.1, 0.1), (1.0, 0.0), (float("nan"), 0.0)):
        with pytest.raises(UserError, match="at least 0 and together below 1"):
            check_shares(validation=validation, test=test)


VIDEOS = ["a/sea.mp4", "b/sea.mp4", "sky.avi", "trees/1"]


def listed(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "splits.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_file_of_splits_names_videos_by_the_end_of_their_paths(tmp_path: Path) -> None:
    path = listed(tmp_path, {"train": ["sky", "b/sea"], "test": ["trees/1"]})
    assert read_splits(path, VIDEOS) == {
        "b/sea.mp4": "train", "sky.avi": "train", "trees/1": "test",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ([], "must be an object of lists"),
        ({"training": ["sky"]}, "must be an object of lists"),
        ({"train": 3}, "must be an object of lists"),
        ({"train": ["sea"]}, "'sea' is called so 2 times"),
        ({"train": ["moon"]}, "'moon' is not among the videos"),
        ({"train": [7]}, "7 is not among the videos"),
        ({"train": ["sky"], "test": ["sky.avi"]}, "sky.avi is listed twice"),
    ],
)
def test_a_file_of_splits_that_does_not_fit_is_refused(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_splits(listed(tmp_path, content), VIDEOS)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.sampled_from("ab"), max_size=12))
def test_every_label_of_two_videos_is_held_out_in_part(labels: dict[str, str]) -> None:
    splits = split_by_label(labels)
    assert splits.keys() == labels.keys()
    if len(labels) < 3:
        assert set(splits.values()) <= {"train"}
        return
    held_out = [name for name in labels if splits[name] != "train"]
    assert 1 <= len(held_out) < len(labels)
    if len(held_out) > 1:
        assert {splits[name] for name in held_out} == {"validation", "test"}
    for label in "ab":
        of_label = [splits[name] for name in labels if labels[name] == label]
        if len(of_label) > 1:
            assert of_label.count("train") == len(of_label) - -(-len(of_label) // 3)


def manifest_of(*clips: tuple[str, Split, int]) -> Manifest:
    """Clips by source, split and number of frames, all in one shard."""
    entries = tuple(
        ClipEntry(
            clip=f"{source}/{n}", source=source, split=split, frames=frames, fps=8.0, shard=0,
            index=n,
        )
        for n, (source, split, frames) in enumerate(clips)
    )  # fmt: skip
    return Manifest(
        name="few", encoding="png", settings={}, tracks={}, clips=entries, skipped=(),
        shards=(ShardEntry(file="s", sha256="", bytes=1, clips=len(clips)),),
    )  # fmt: skip


def parts_of(manifest: Manifest) -> list[tuple[str, str, int, int]]:
    return [(c.clip, c.split, c.first, c.frames) for c in manifest.clips]


def test_the_end_of_a_single_video_is_held_out() -> None:
    divided = divide_in_time(manifest_of(("a", "train", 300), ("a", "train", 60)))
    assert parts_of(divided) == [
        ("a/0", "train", 0, 240),
        ("a/0@240", "validation", 240, 60),
        ("a/1", "test", 0, 60),
    ]
    assert "too few videos to hold some out whole: the end of a is held out" in divided.notes[0]


def test_of_three_videos_the_one_held_out_is_halved() -> None:
    clips = (("a", "validation", 41), ("b", "train", 9), ("c", "train", 9))
    divided = divide_in_time(manifest_of(*clips))  # type: ignore[arg-type]
    assert parts_of(divided)[:2] == [("a/0", "validation", 0, 21), ("a/0@21", "test", 21, 20)]
    assert len(divided.clips) == 4


@given(st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_parts_of_a_video_share_no_frame_and_lose_none(lengths: list[int]) -> None:
    divided = divide_in_time(manifest_of(*(("a", "train", n) for n in lengths)))
    for index, length in enumerate(lengths):
        frames = [range(c.first, c.first + c.frames) for c in divided.clips if c.index == index]
        assert [n for part in frames for n in part] == list(range(length))
    order = [c.split for c in divided.clips]
    assert order == sorted(order, key=["train", "validation", "test"].index)
    assert len({c.clip for c in divided.clips}) == len(divided.clips)
    total = {s: sum(c.frames for c in divided.clips if c.split == s) for s in order}
    if sum(lengths) >= 34:  # then there is something to train on and something to test on
        assert min(total["train"], total["test"]) >= 17
    if sum(lengths) >= 51:
        assert total["validation"] >= 17


def test_a_data_set_with_a_test_split_is_left_alone() -> None:
    manifest = manifest_of(("a", "train", 300), ("b", "test", 60))
    assert divide_in_time(manifest) is manifest
