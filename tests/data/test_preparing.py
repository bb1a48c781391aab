"""Packing: the same files however the work is split, interrupted and resumed."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core import files
from cinnema.core.errors import UserError
from cinnema.data import preparing
from cinnema.data.dataset import PackedDataset
from cinnema.data.manifest import Plan, SkippedRecord
from cinnema.data.merging import merge
from cinnema.data.preparing import Preparation, prepare
from cinnema.data.records import BadRecord, ClipSource, Item, RawClip
from cinnema.data.sharing import Share
from cinnema.data.working import Progress
from data.tiny_sources import HAND, TinySource, make_clip

BAD = SkippedRecord(record="03.tfrecords, record 1", reason="a wrong checksum")


def pack(folder: Path, source: ClipSource | None = None, **options: Any) -> Preparation:
    """Prepare in shards of four clips: four of training and two of testing for ten items."""
    return prepare(source or TinySource(10), folder, **({"clips_per_shard": 4} | options))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    pack(folder)
    return contents(folder)


# What is made


def test_shards_are_filled_with_items_of_one_split_in_their_order(tmp_path: Path) -> None:
    result = pack(tmp_path)
    assert (result.num_made, result.num_found, result.num_clips) == (6, 0, 20)
    assert (result.is_complete, result.num_missing, result.skipped) == (True, 0, ())
    plan = Plan.read(tmp_path / "plan.json")
    items = {shard.file: [item.name for item in shard.items] for shard in plan.shards}
    assert items == {
        "train-00000.npz": ["00", "01"],
        "train-00001.npz": ["03", "04"],
        "train-00002.npz": ["06", "07"],
        "train-00003.npz": ["09"],
        "test-00000.npz": ["02", "05"],
        "test-00001.npz": ["08"],
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 8))
def test_every_item_is_in_one_shard_that_is_no_fuller_than_told(
    sizes: list[int], clips_per_shard: int
) -> None:
    items = [Item(name=str(n), split="train", clips=size) for n, size in enumerate(sizes)]
    shards = list(preparing._group(items, clips_per_shard=clips_per_shard))
    assert [item for shard in shards for item in shard.items] == items
    for shard in shards:
        assert len(shard.items) == 1 or sum(i.clips for i in shard.items) <= clips_per_shard


def test_two_workers_make_the_same_files_and_tell_how_far_they_are(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    told: list[Progress] = []
    assert pack(tmp_path, workers=2, progress=told.append).is_complete
    assert contents(tmp_path) == whole
    assert_counts_up(told, found=0)


def test_two_shares_make_the_same_files(tmp_path: Path, whole: dict[str, bytes]) -> None:
    first = pack(tmp_path, share=Share(1, 2))
    assert (first.num_made, first.num_missing, first.is_complete) == (3, 3, False)
    assert not (tmp_path / "manifest.json").exists()
    second = pack(tmp_path, share=Share(0, 2))
    assert (second.num_made, second.num_found, second.is_complete) == (3, 0, True)
    assert contents(tmp_path) == whole


def test_a_share_without_shards_makes_none(tmp_path: Path) -> None:
    assert pack(tmp_path, share=Share(7, 8)).num_made == 0


def test_running_again_makes_nothing_and_changes_nothing(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    pack(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = pack(tmp_path)
    assert (again.num_made, again.num_found, again.num_clips) == (0, 6, 20)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_progress_counts_up_from_what_is_found(tmp_path: Path) -> None:
    pack(tmp_path, share=Share(0, 2))
    told: list[Progress] = []
    pack(tmp_path, progress=told.append)
    assert_counts_up(told, found=3)
    assert {p.clips for p in told} == set(range(told[0].clips, 21))


def assert_counts_up(told: list[Progress], *, found: int) -> None:
    first, last = told[0], told[-1]
    assert (first.shards, first.num_shards, first.num_clips) == (found, 6, 20)
    assert [p.clips for p in told] == sorted(p.clips for p in told)
    assert (last.shards, last.num_shards, last.clips, last.num_clips) == (6, 6, 20, 20)


# What goes on after an interruption


def in_a_process_that_is_killed(work: Callable[[], object]) -> None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def kill_when_flushing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Kill the process when a file of this name is written, but not yet renamed."""

    def flush(path: Path) -> None:
        if path.name.startswith(f".{Path(name).stem}.partial") and path.suffix == Path(name).suffix:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(files, "_flush", flush)


def test_a_run_that_is_killed_while_it_reads_is_resumed(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    in_a_process_that_is_killed(lambda: pack(tmp_path, TinySource(10, fatal="06")))
    assert not (tmp_path / "manifest.json").exists()
    assert pack(tmp_path).num_found == 2
    assert contents(tmp_path) == whole


@pytest.mark.parametrize(
    ("name", "num_found"),
    [
        ("plan.json", 0),
        ("train-00001.npz", 1),
        ("train-00001.json", 1),
        ("test-00001.json", 5),
        ("manifest.json", 6),
    ],
)
def test_a_run_that_is_killed_while_it_writes_is_resumed(
    tmp_path: Path,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    num_found: int,
) -> None:
    with monkeypatch.context() as patch:
        kill_when_flushing(patch, name)
        in_a_process_that_is_killed(lambda: pack(tmp_path))
    assert not (tmp_path / name).exists()
    assert pack(tmp_path).num_found == num_found
    assert contents(tmp_path) == whole  # and nothing besides


def test_a_shard_of_another_size_than_its_receipt_says_is_made_again(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    pack(tmp_path)
    (tmp_path / "train-00002.npz").write_bytes(b"cut short")
    (tmp_path / "test-00000.json").write_bytes(b'{"format": "cinnema-sh')
    assert pack(tmp_path).num_made == 2
    assert contents(tmp_path) == whole


def test_a_worker_that_is_killed_is_told_and_its_work_resumed(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with pytest.raises(UserError, match=r"worker process came to a sudden end .*fewer workers"):
        pack(tmp_path, TinySource(10, fatal="06"), workers=2)
    assert pack(tmp_path).is_complete
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing_half_written(tmp_path: Path, workers: int) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.clips >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path, TinySource(30), workers=workers, progress=interrupt)
    assert_nothing_is_half_written(tmp_path)
    assert not multiprocessing.active_children()


def assert_nothing_is_half_written(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert not [name for name in names if name.startswith(".")]
    assert {n.removesuffix(".npz") for n in names if n.endswith(".npz")} == {
        n.removesuffix(".json") for n in names if n.endswith(".json") and n != "plan.json"
    }


def test_a_full_disk_leaves_what_is_finished(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    class Growing(TinySource):
        def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
            yield make_clip(item.name, frames=60 if item.name == "06" else 3)

    with small_disk(6000), pytest.raises(UserError, match=r"train-00002\.npz .*disk is full"):
        pack(tmp_path, Growing(10))
    assert_nothing_is_half_written(tmp_path)
    assert pack(tmp_path, Growing(10)).num_found == 2


# Several processes at once


def test_the_loser_of_the_race_for_the_plan_accepts_an_equal_one(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def not_yet(path: Path, **options: Any) -> bool:
        if path.name == "plan.json" and not exists(path):
            path.write_bytes(whole["plan.json"])
            return False
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", not_yet)
    assert pack(tmp_path).is_complete
    assert contents(tmp_path) == whole


def test_the_loser_of_the_race_for_the_plan_refuses_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "other", TinySource(10, seed=1))
    plan = (tmp_path / "other" / "plan.json").read_bytes()
    folder = tmp_path / "tiny"
    folder.mkdir()
    exists = Path.exists

    def not_yet(path: Path, **options: Any) -> bool:
        if path == folder / "plan.json" and not exists(path):
            path.write_bytes(plan)
            return False
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", not_yet)
    with pytest.raises(UserError, match="begun with the setting seed 1, not 0"):
        pack(folder)


@pytest.mark.parametrize("name", ["train-00002.npz", "train-00002.json", "manifest.json"])
def test_a_file_that_another_process_has_finished_and_ours_removed_is_accepted(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    flush = files._flush

    def finish_and_clean_up(path: Path) -> None:
        if path.name.startswith(f".{Path(name).stem}.partial") and path.suffix == Path(name).suffix:
            path.unlink()
            for other, content in whole.items():
                (tmp_path / other).write_bytes(content)
        flush(path)

    monkeypatch.setattr(files, "_flush", finish_and_clean_up)
    assert pack(tmp_path).is_complete
    assert contents(tmp_path) == whole


def test_shards_of_another_plan_do_not_count(tmp_path: Path) -> None:
    pack(tmp_path, TinySource(10, seed=1))
    (tmp_path / "plan.json").unlink()
    assert pack(tmp_path).num_made == 6


def test_merging_names_what_is_missing_and_can_be_repeated(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with pytest.raises(UserError, match=r"plan\.json does not exist"):
        merge(tmp_path)
    pack(tmp_path, share=Share(0, 2))
    with pytest.raises(UserError, match=r"3 of 6 shards are missing \(train-00001\.npz, train-000"):
        merge(tmp_path)
    pack(tmp_path, share=Share(1, 2))
    (tmp_path / "manifest.json").unlink()
    assert merge(tmp_path) == merge(tmp_path) == PackedDataset(tmp_path).manifest
    assert contents(tmp_path) == whole


# What is refused


@pytest.mark.parametrize(
    ("source", "options", "complaint"),
    [
        (TinySource(10), {"encoding": "jpeg"}, "begun with encoding png, not jpeg: go on with"),
        (TinySource(10), {"clips_per_shard": 5}, "begun with clips_per_shard 4, not 5"),
        (TinySource(10, seed=3), {}, "begun with the setting seed 0, not 3"),
        (TinySource(11), {}, "begun with the number of items 10, not 11"),
    ],
)
def test_a_folder_that_was_begun_otherwise_is_refused(
    tmp_path: Path, source: TinySource, options: dict[str, Any], complaint: str
) -> None:
    pack(tmp_path, share=Share(0, 6))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=complaint):
        pack(tmp_path, source, **options)
    assert contents(tmp_path) == before


def test_items_that_have_changed_are_named(tmp_path: Path) -> None:
    class Renamed(TinySource):
        def items(self) -> list[Item]:
            return [*super().items()[:-1], Item(name="new", split="train", clips=3)]

    pack(tmp_path, share=Share(0, 6))
    with pytest.raises(UserError, match=r"with the item 09 \(train, 2 clips\), not new \(train, 3"):
        pack(tmp_path, Renamed(10))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"clips_per_shard": 0}, "clips_per_shard must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        pack(tmp_path, **options)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UserError, match="encoding must be one of png, jpeg, webp, raw, got gif"):
        preparing._check_options(encoding="gif", workers=1, clips_per_shard=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_record_ends_the_run_unless_it_is_to_be_skipped(tmp_path: Path, workers: int) -> None:
    source = TinySource(10, bad=("03",))
    with pytest.raises(
        UserError, match=r"03\.tfrecords, record 1 .*\(a wrong checksum\): .*--skip-bad$"
    ):
        pack(tmp_path, source, workers=workers)
    assert_nothing_is_half_written(tmp_path)
    assert not (tmp_path / "train-00001.npz").exists()
    told: list[Progress] = []
    result = pack(tmp_path, source, skip_bad=True, progress=told.append)
    assert (result.num_clips, result.skipped, result.is_complete) == (19, (BAD,), True)
    assert told[-1].skipped == (BAD,)
    clips = PackedDataset(tmp_path)
    assert clips.manifest.skipped == (BAD,)
    assert clips.manifest.clips[-1].clip == "08/b"
    clips.read(len(clips) - 1)


class Named(TinySource):
    """Clips and source videos whose names the test gives, by item."""

    names: dict[str, str]
    sources: dict[str, str]
    tracks: dict[str, Any]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        name = self.names.get(item.name, item.name)
        others = {"tracks": self.tracks[item.name]} if item.name in self.tracks else {}
        yield make_clip(name, source=self.sources.get(item.name, name), **others)


def named(**fields: Any) -> Named:
    source = Named(10)
    for name in ("names", "sources", "tracks"):
        object.__setattr__(source, name, fields.get(name, {}))
    return source


def test_two_clips_of_one_name_are_refused_wherever_they_are(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"two clips are named 00, in train-00000\.npz and test-00001\.npz: rename"
    ):
        pack(tmp_path / "a", named(names={"08": "00"}))
    with pytest.raises(UserError, match="two clips are named 00"):
        pack(tmp_path / "b", named(names={"01": "00"}))


def test_a_source_video_on_both_sides_of_a_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"v\.mp4 has clips in train \(00\) and in test \(08\)"):
        pack(tmp_path, named(sources={"00": "v.mp4", "08": "v.mp4"}))


def test_clips_of_different_tracks_are_refused(tmp_path: Path) -> None:
    more = make_clip("08").tracks["hand"]
    tracks = {"02": {"hand": more, "knee": more}, "05": {"hand": more, "knee": more}}
    with pytest.raises(UserError, match=r"train-00000\.npz has .*, test-00000\.npz has .*knee"):
        pack(tmp_path, named(tracks=tracks))


def test_two_items_of_one_name_are_refused(tmp_path: Path) -> None:
    class Twice(TinySource):
        def items(self) -> list[Item]:
            return [*super().items()] * 2

    with pytest.raises(UserError, match="two items of tiny are named 00"):
        pack(tmp_path, Twice(2))


def test_the_tiny_source_is_one_and_can_travel() -> None:
    source = TinySource()
    assert isinstance(source, ClipSource)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.control == HAND


# Shares


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers()), st.integers(1, 9))
def test_shares_divide_the_work(pieces: list[int], count: int) -> None:
    shares = [Share(index, count).of(pieces) for index in range(count)]
    assert sorted(piece for share in shares for piece in share) == sorted(pieces)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_is_written_with_a_stroke() -> None:
    assert Share.parse("2/8") == Share(2, 8)
    for text in ("2", "", "a/b", "2/8/9", "-1/2", "1.0/2", "/"):
        with pytest.raises(UserError, match="a share is written i/n"):
            Share.parse(text)
    for text in ("8/8", "0/0", "9/8"):
        with pytest.raises(UserError, match=rf"there is no share {text}: .* the first is 0/"):
            Share.parse(text)


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, Share(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, Share(3, 4)),
        ({"RANK": "3"}, Share(0, 1)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Share(1, 2)),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "8"}, Share(4, 8)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "9",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_STEP": "4",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
            },
            Share(2, 3),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
            Share(1, 2),
        ),
    ],
)
def test_a_scheduler_gives_the_share(environment: dict[str, str], share: Share) -> None:
    assert Share.from_environment(environment) == share


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"RANK": "x", "WORLD_SIZE": "4"}, "RANK must be a whole number, got 'x'"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "there is no share 4/4"),
        ({"SLURM_ARRAY_TASK_ID": "4"}, "SLURM_ARRAY_TASK_COUNT must be a whole number, got ''"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            r"task 7 is none of 3 Slurm array tasks in a row from 1: .*--shard 2/8",
        ),
    ],
)
def test_a_scheduler_that_makes_no_sense_is_told(
    environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        Share.from_environment(environment)
