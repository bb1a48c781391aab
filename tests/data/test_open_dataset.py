"""A folder of videos is opened as a data set: packed once, split by source video or in time."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.dataset import PackedDataset, open_dataset
from cinnema.data.loader import ClipLoader
from cinnema.data.scenes import find_scenes
from cinnema.data.windows import load_windows
from cinnema.media.videos import read_video, write_video
from two_processes import in_two_processes

Drift = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def videos(tmp_path: Path, drift: Drift) -> Path:
    """Four videos in two folders, all of their own shape."""
    for number, name in enumerate(("sea/a.gif", "sea/b.gif", "sky/c.gif", "sky/d.gif")):
        frames = drift(8 + number, height=24, width=30 + 2 * number)
        write_video(tmp_path / "clips" / name, frames, fps=10)
    return tmp_path / "clips"


def test_a_folder_of_videos_is_packed_once(videos: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    first = open_dataset(videos, progress=lambda *report: reports.append(report))
    assert first.folder.parent == videos.parent / ".cinnema-cache"
    assert reports[0][0] == f"packing {videos} into {first.folder}, for this and later uses"
    assert [counts for _, *counts in reports] == [[n, 4] for n in range(5)]
    second = open_dataset(videos, progress=lambda *report: reports.append(report))
    assert (second.folder, len(reports)) == (first.folder, 5)
    assert (first.size, len(first), first.manifest.notes) == (24, 4, ())
    for index, entry in enumerate(first.manifest.clips):
        assert np.array_equal(first.read(index).frames, read_video(videos / entry.source).frames)
        assert entry.label == entry.source.split("/")[0]
    splits = {clip.source: clip.split for clip in first.manifest.clips}
    assert splits == {
        "sea/a.gif": "validation", "sea/b.gif": "train", "sky/c.gif": "test", "sky/d.gif": "train",
    }  # fmt: skip


def test_it_is_packed_again_when_a_file_changes(videos: Path, drift: Drift) -> None:
    before = open_dataset(videos).folder
    write_video(videos / "sky" / "e.gif", drift(9), fps=10)
    after = open_dataset(videos)
    assert len(after) == 5
    assert after.folder != before
    assert not before.exists()
    os.utime(videos / "sky" / "e.gif", (0, 0))
    assert open_dataset(videos).folder != after.folder


def test_frames_are_resized_for_a_model(videos: Path) -> None:
    dataset = open_dataset(videos, size=16)
    assert dataset.size == 16
    assert dataset.read(0, [3, 1]).frames.shape == (2, 16, 16, 3)


def test_a_packed_data_set_is_opened_as_it_is(videos: Path) -> None:
    folder = open_dataset(videos).folder
    again = open_dataset(folder)
    assert isinstance(again, PackedDataset)
    assert again.folder == folder
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="is unfinished"):
        open_dataset(folder)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_videos_have_clips_in_every_split(tmp_path: Path, drift: Drift, count: int) -> None:
    for number in range(count):
        write_video(tmp_path / "clips" / f"{number}.gif", drift(60), fps=10)
    dataset = open_dataset(tmp_path / "clips")
    for split in ("train", "validation", "test"):
        assert dataset.indices(split).size
        for index in dataset.indices(split):
            assert dataset.manifest.clips[index].frames >= 17
    seen = [
        (entry.source, entry.first + t)
        for entry in dataset.manifest.clips
        for t in range(entry.frames)
    ]
    assert len(seen) == len(set(seen)) == 60 * count
    (note,) = dataset.manifest.notes
    assert ("is held out instead" in note) == (count < 3)
    entry = dataset.manifest.clips[-1]
    whole = read_video(tmp_path / "clips" / entry.source).frames
    assert np.array_equal(dataset.read(len(dataset) - 1).frames, whole[entry.first :])


def test_videos_that_cannot_be_read_are_skipped_and_named(videos: Path) -> None:
    (videos / "broken.mp4").write_bytes(b"not a video")
    dataset = open_dataset(videos)
    assert len(dataset) == 4
    assert dataset.manifest.notes == ("skipped broken.mp4: it is not a video that can be read",)


def test_a_folder_without_a_usable_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_dataset(tmp_path / "none")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(UserError, match=r"none of its 1 videos can be used .*broken\.mp4"):
        open_dataset(tmp_path, cache=tmp_path / "cache")
    (tmp_path / "broken.mp4").unlink()
    with pytest.raises(UserError, match="contains no video"):
        open_dataset(tmp_path)


def test_where_the_place_beside_cannot_be_written_the_users_cache_is_used(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (videos.parent / ".cinnema-cache").write_text("in the way")
    monkeypatch.delenv("CINNEMA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert open_dataset(videos).folder.parent == tmp_path / "user" / "cinnema"
    monkeypatch.setenv("CINNEMA_CACHE", str(tmp_path / "own"))
    folder = open_dataset(videos).folder
    assert folder.parent == tmp_path / "own"
    assert open_dataset(videos, cache=tmp_path / "given").folder.parent == tmp_path / "given"


def test_a_folder_that_nobody_may_write_to_is_respected(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CINNEMA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-user"))
    tmp_path.chmod(0o555)
    try:
        assert (
            open_dataset(videos).folder.parent == tmp_path.parent / f"{tmp_path.name}-user/cinnema"
        )
        assert not (tmp_path / ".cinnema-cache").exists()
    finally:
        tmp_path.chmod(0o755)


def test_photographs_beside_videos_are_left_out_and_told(videos: Path, drift: Drift) -> None:
    for number, frame in enumerate(drift(3)):
        Image.fromarray(frame).save(videos / "sea" / f"IMG_{number}.png")
    with pytest.warns(UserWarning, match=r"contains 3 photographs .* left out"):
        assert len(open_dataset(videos)) == 4
    with pytest.raises(UserError, match="contains 3 photographs"):
        open_dataset(videos, photographs="error")
    assert len(open_dataset(videos, photographs="frames")) == 5


def test_two_processes_pack_a_folder_once(videos: Path) -> None:
    def work(_: Ranks) -> int:
        reports: list[int] = []
        dataset = open_dataset(videos, progress=lambda _, done, __: reports.append(done))
        load_windows(dataset, find_scenes(dataset), size=32, num_frames=4, fps=10.0, starts=2)
        return len(reports)

    assert sorted(in_two_processes(work)) == [0, 5]


def test_the_cache_of_videos_can_be_sent_to_another_process(videos: Path) -> None:
    dataset: Any = pickle.loads(pickle.dumps(open_dataset(videos, size=8)))
    assert dataset.read(0).frames.shape[1:] == (8, 8, 3)


def test_a_loader_resizes_clips_of_any_shape(videos: Path) -> None:
    loader = ClipLoader(open_dataset(videos), batch_size=2, num_frames=5, size=16, num_workers=0)
    assert next(loader).video.shape == (2, 5, 3, 16, 16)
