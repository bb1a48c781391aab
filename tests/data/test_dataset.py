"""A folder of packed clips is read at random, and what is wrong with it is named."""

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data import dataset as dataset_module
from cinnema.data.dataset import PackedDataset
from cinnema.data.prepare import prepare
from cinnema.data.records import Item, RawClip
from data.tiny_sources import HAND, TinySource, make_clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four clips in each of two shards of training, four in one of testing."""
    prepare(TinySource(), tmp_path / "tiny", clips_per_shard=4)
    return tmp_path / "tiny"


def assert_is(mine: Any, raw: RawClip, frames: Any = slice(None)) -> None:
    assert mine.entry.clip == raw.name
    assert np.array_equal(mine.frames, raw.frames[frames])
    assert np.array_equal(mine.tracks["hand"], raw.tracks["hand"])
    assert np.array_equal(mine.confidence, raw.confidence)
    assert np.array_equal(mine.still, raw.still)


def test_every_clip_is_read_as_the_source_gave_it(folder: Path) -> None:
    clips = PackedDataset(folder)
    source = TinySource()
    raw = {clip.name: clip for item in source.items() for clip in source.read(item)}
    assert len(clips) == len(raw) == 12
    for position, entry in enumerate(clips.manifest.clips):
        clip = raw[entry.clip]
        assert_is(clips.read(position), clip)
        assert_is(clips.read(position, [2, 0]), clip, [2, 0])
        assert (entry.frames, entry.fps, entry.source) == (len(clip.frames), 5.0, clip.source)
        assert entry.control == pytest.approx(clip.tracks["hand"][-1].tolist())


def test_the_manifest_tells_what_the_data_set_is(folder: Path) -> None:
    manifest = PackedDataset(folder).manifest
    assert (manifest.name, manifest.size, manifest.encoding) == ("tiny", 6, "png")
    assert (manifest.control, manifest.tracks) == (HAND, {"hand": 3})
    assert manifest.settings == {"seed": 0, "parts": ["a", 1]}
    files = [shard.file for shard in manifest.shards]
    assert files == ["train-00000.npz", "train-00001.npz", "test-00000.npz"]


def test_splits_are_the_sources_own(folder: Path) -> None:
    clips = PackedDataset(folder)
    names = [clips.manifest.clips[i].clip for i in clips.indices("test")]
    assert names == ["02/a", "02/b", "05/a", "05/b"]
    assert len(clips.indices("train")) == 8
    assert clips.indices("validation").tolist() == []


def test_what_is_not_known_of_a_clip_is_none(tmp_path: Path) -> None:
    class Bare(TinySource):
        control = None  # type: ignore[assignment]

        def read(self, item: Item) -> Iterator[RawClip]:
            yield make_clip(item.name, tracks={}, confidence=None, still=None)

    prepare(Bare(1), tmp_path / "bare")
    clip = PackedDataset(tmp_path / "bare").read(0)
    assert (clip.tracks, clip.confidence, clip.still, clip.entry.control) == ({}, None, None, None)


@pytest.mark.parametrize(("index", "frames"), [(12, None), (-1, None), (0, [9])])
def test_what_is_not_there_is_an_index_error(folder: Path, index: int, frames: Any) -> None:
    with pytest.raises(IndexError, match=r"(clip|frames) .*(12 clips|which has 3)"):
        PackedDataset(folder).read(index, frames)


def test_only_so_many_files_are_open_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "MAX_OPEN_SHARDS", 2)
    clips = PackedDataset(folder)
    first = [clips.read(position).frames for position in range(12)]
    assert open_files_in(folder) <= 2
    for position in (0, 11, 5, 0, 3, 8):
        assert np.array_equal(clips.read(position).frames, first[position])
    assert open_files_in(folder) <= 2


def test_square_frames_are_not_resized(folder: Path) -> None:
    dataset = PackedDataset(folder, size=4)
    assert dataset.size == 6
    assert dataset.read(0).frames.shape[1:] == (6, 6, 3)


def open_files_in(folder: Path) -> int:
    links = (Path(f"/proc/self/fd/{path.name}") for path in Path("/proc/self/fd").iterdir())
    return sum(link.exists() and link.resolve().parent == folder.resolve() for link in links)


def test_a_copy_in_another_process_reads_for_itself(folder: Path) -> None:
    clips = PackedDataset(folder)
    before = clips.read(7)
    copy = pickle.loads(pickle.dumps(clips))
    assert np.array_equal(copy.read(7).frames, before.frames)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.apply(clips.read, (7,))
    assert np.array_equal(theirs.frames, before.frames)
    assert theirs.entry == before.entry


def test_a_folder_that_holds_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a folder: create one"):
        PackedDataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="contains no packed clips"):
        PackedDataset(tmp_path)


def test_an_unfinished_data_set_says_how_to_continue(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="is unfinished, it has 3 shards but no manifest: run"):
        PackedDataset(folder)


def test_a_missing_or_shortened_shard_is_named(folder: Path) -> None:
    shard = folder / "train-00001.npz"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train-00001\.npz is damaged, it has \d+ bytes and the"):
        PackedDataset(folder)
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001\.npz cannot be found .*made it again"):
        PackedDataset(folder)


def damage(path: Path) -> None:
    """Change a byte of the last picture."""
    content = bytearray(path.read_bytes())
    content[content.rindex(b"IDAT") + 20] ^= 1
    path.write_bytes(content)


def test_a_damaged_clip_is_never_handed_out(folder: Path) -> None:
    damage(folder / "train-00000.npz")
    clips = PackedDataset(folder)
    with pytest.raises(UserError, match=r"train-00000\.npz is damaged .*clip 01/b is wrong"):
        clips.read(3)
    assert_is(clips.read(0), make_clip("00/a"))


def test_verifying_names_the_damaged_shards(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    clips = PackedDataset(folder)
    clips.verify(lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    damage(folder / "train-00000.npz")
    (folder / "test-00000.npz").unlink()
    with pytest.raises(
        UserError, match=r"2 of 3 shards are damaged \(train-00000\.npz, test-00000\.npz\): delete"
    ):
        clips.verify()


def test_deleting_a_damaged_shard_and_preparing_again_mends_it(folder: Path) -> None:
    damage(folder / "train-00000.npz")
    (folder / "train-00000.npz").unlink()
    prepare(TinySource(), folder, clips_per_shard=4)
    PackedDataset(folder).verify()
