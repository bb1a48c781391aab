"""Packing: the same files however the work is split, interrupted and resumed."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset
from cinnema.data.manifest import SkippedRecord
from cinnema.data.prepare import Prepared, group_items, prepare
from cinnema.data.records import BadRecord, ClipSource, Item, RawClip
from cinnema.data.shards import Shard
from data.tiny_sources import HAND, TinySource, make_clip
from two_processes import in_two_processes

BAD = SkippedRecord(record="03.tfrecords, record 1", reason="a wrong checksum")


def pack(folder: Path, source: ClipSource | None = None, **options: Any) -> Prepared:
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
    assert (result.num_made, result.num_found, len(result.manifest.clips)) == (6, 0, 20)
    assert result.manifest == PackedDataset(tmp_path).manifest
    assert {path.name: items_of(path) for path in tmp_path.glob("*.npz")} == {
        "train-00000.npz": ["00", "01"],
        "train-00001.npz": ["03", "04"],
        "train-00002.npz": ["06", "07"],
        "train-00003.npz": ["09"],
        "test-00000.npz": ["02", "05"],
        "test-00001.npz": ["08"],
    }


def items_of(shard: Path) -> list[str]:
    plan = Shard(shard).index().plan
    assert plan is not None
    return [item.name for item in plan.items]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 8))
def test_every_item_is_in_one_group_of_at_most_so_many_clips(
    sizes: list[int], clips_per_shard: int
) -> None:
    items = [Item(name=str(n), split="train", clips=size) for n, size in enumerate(sizes)]
    groups = group_items(items, clips_per_shard)
    assert [item for group in groups for item in group] == items
    for group in groups:
        assert len(group) == 1 or sum(item.clips for item in group) <= clips_per_shard


def test_two_workers_make_the_same_files_and_report_progress(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    reports: list[tuple[int, int]] = []
    pack(tmp_path, workers=2, progress=lambda *report: reports.append(report))
    assert contents(tmp_path) == whole
    assert_counts_up(reports)


def test_two_ranks_make_the_same_files(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def work(ranks: Ranks) -> list[int]:
        result = pack(tmp_path, ranks=ranks)
        return [result.num_made, result.num_found, len(result.manifest.clips)]

    (tmp_path / "train-00003.npz").write_bytes(whole["train-00003.npz"])
    assert in_two_processes(work) == [[5, 1, 20]] * 2
    assert contents(tmp_path) == whole


def test_running_again_makes_nothing_and_changes_nothing(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    pack(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = pack(tmp_path)
    assert (again.num_made, again.num_found, len(again.manifest.clips)) == (0, 6, 20)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_progress_counts_up_from_what_is_found(tmp_path: Path) -> None:
    pack(tmp_path)
    (tmp_path / "train-00002.npz").unlink()
    reports: list[tuple[int, int]] = []
    pack(tmp_path, progress=lambda *report: reports.append(report))
    assert reports[0] == (16, 20)
    assert_counts_up(reports)
    assert {done for done, _ in reports} == set(range(16, 21))


@pytest.mark.parametrize(("workers", "expected"), [(1, 1), (1, 5), (2, 1)])
def test_progress_never_exceeds_its_total(tmp_path: Path, workers: int, expected: int) -> None:
    """Items that yield more clips than expected, or fewer."""
    reports: list[tuple[int, int]] = []
    source = TinySource(5, expected=expected)
    pack(tmp_path, source, workers=workers, progress=lambda *report: reports.append(report))
    assert all(done <= total for done, total in reports)
    assert reports[-1] == (10, 10)


def assert_counts_up(reports: list[tuple[int, int]]) -> None:
    done = [done for done, _ in reports]
    assert done == sorted(done)
    assert {total for _, total in reports} == {20}
    assert done[-1] == 20


# What goes on after an interruption


def in_a_process_that_is_killed(work: Callable[[], object]) -> None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def kill_when_flushing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Kill the process when a file of this name is written, but not yet renamed."""

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.name.startswith(f".{Path(name).stem}.partial") and path.suffix == Path(name).suffix:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(os, "fsync", fsync)


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
        ("train-00001.npz", 1),
        ("test-00001.npz", 5),
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


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_damaged_shard_is_made_again(
    tmp_path: Path, whole: dict[str, bytes], *, with_manifest: bool
) -> None:
    pack(tmp_path)
    (tmp_path / "train-00002.npz").write_bytes(whole["train-00002.npz"][:-1])
    if not with_manifest:  # then all of every file is checked
        (tmp_path / "manifest.json").unlink()
        content = bytearray(whole["test-00000.npz"])
        content[content.rindex(b"IDAT") + 20] ^= 1
        (tmp_path / "test-00000.npz").write_bytes(content)
    assert pack(tmp_path).num_made == (1 if with_manifest else 2)
    assert contents(tmp_path) == whole


def test_a_worker_that_is_killed_is_reported_and_its_work_resumed(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with pytest.raises(UserError, match=r"worker process ended suddenly .*fewer workers"):
        pack(tmp_path, TinySource(10, fatal="06"), workers=2)
    pack(tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing_half_written(tmp_path: Path, workers: int) -> None:
    def interrupt(done: int, _: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(tmp_path, TinySource(30), workers=workers, progress=interrupt)
    assert_nothing_is_half_written(tmp_path)
    assert not multiprocessing.active_children()


def assert_nothing_is_half_written(folder: Path) -> None:
    """A folder into which nothing was packed is removed."""
    made = list(folder.iterdir()) if folder.exists() else []
    assert all(path.suffix == ".npz" and path.name[0] != "." for path in made)
    for path in made:
        Shard(path)


def test_an_error_before_the_first_shard_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="record 1"):
        pack(tmp_path / "tiny", TinySource(10, bad=("00",)))
    assert not (tmp_path / "tiny").exists()


def test_a_full_disk_leaves_what_is_finished(
    tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    class Growing(TinySource):
        def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
            yield make_clip(item.name, frames=60 if item.name == "06" else 3)

    with small_disk(8000), pytest.raises(UserError, match=r"train-00002\.npz .*disk is full"):
        pack(tmp_path, Growing(10))
    assert_nothing_is_half_written(tmp_path)
    assert pack(tmp_path, Growing(10)).num_found == 2


def test_shards_of_an_earlier_version_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    pack(tmp_path)
    path = tmp_path / "train-00000.npz"
    with np.load(path) as arrays:
        members = dict(arrays)
    index = json.loads(members["index"].tobytes())
    del index["plan"]
    members["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    np.savez(path, **members)
    with pytest.raises(UserError, match="packed by an earlier version"):
        pack(tmp_path)


def test_the_manifest_can_be_finished_by_the_caller(tmp_path: Path) -> None:
    result = pack(tmp_path, finish=lambda m: dataclasses.replace(m, name="renamed"))
    assert result.manifest.name == PackedDataset(tmp_path).manifest.name == "renamed"


# What is refused


@pytest.mark.parametrize(
    ("source", "options", "complaint"),
    [
        (TinySource(10), {"encoding": "jpeg"}, "begun with encoding png, not jpeg: use the same"),
        (TinySource(10), {"clips_per_shard": 5}, "begun with clips_per_shard 4, not 5"),
        (TinySource(10, seed=3), {}, "begun with the setting seed 0, not 3"),
        (TinySource(9), {}, r"begun with more clips .* contains train-00003\.npz"),
        (TinySource(11), {}, r"begun with a number of items in train-00003\.npz of 1, not 2"),
    ],
)
def test_a_folder_that_was_begun_otherwise_is_refused(
    tmp_path: Path, source: TinySource, options: dict[str, Any], complaint: str
) -> None:
    pack(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=complaint):
        pack(tmp_path, source, **options)
    assert contents(tmp_path) == before


def test_items_that_have_changed_are_named(tmp_path: Path) -> None:
    class Renamed(TinySource):
        def items(self) -> list[Item]:
            return [*super().items()[:-1], Item(name="new", split="train", clips=3)]

    pack(tmp_path)
    with pytest.raises(UserError, match=r"with the item 09 \(train, 2 clips\), not new \(train, 3"):
        pack(tmp_path, Renamed(10))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"clips_per_shard": 0}, "clips_per_shard must be at least 1, got 0"),
        ({"source": TinySource(0)}, "tiny has no clips: choose another"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        pack(tmp_path, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_record_ends_the_run_unless_it_is_to_be_skipped(tmp_path: Path, workers: int) -> None:
    source = TinySource(10, bad=("03",))
    with pytest.raises(
        UserError, match=r"03\.tfrecords, record 1 .*\(a wrong checksum\): .*--skip-bad$"
    ):
        pack(tmp_path, source, workers=workers)
    assert_nothing_is_half_written(tmp_path)
    assert not (tmp_path / "train-00001.npz").exists()
    reports: list[tuple[int, int]] = []
    result = pack(tmp_path, source, skip_bad=True, progress=lambda *report: reports.append(report))
    assert (len(result.manifest.clips), result.manifest.skipped) == (19, (BAD,))
    assert reports[-1] == (20, 20)
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
