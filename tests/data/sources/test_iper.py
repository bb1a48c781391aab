"""iPER from its videos and from their frames, with and without the published lists."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, RawClip
from cinnema.data.sources.iper import IPer
from cinnema.media.videos import write_video

Make = Callable[..., Any]


@pytest.fixture
def person(tmp_path: Path, film: Make, write_pictures: Make) -> Make:
    """Write a video, as an mp4 or as a folder of frames."""

    def write(place: str, num_frames: int = 18) -> Path:
        frames = film(num_frames, height=48, width=48)
        if place.endswith(".mp4"):
            return write_video(tmp_path / place, frames, fps=30)
        folder: Path = write_pictures(tmp_path / place, frames, "frame_{}.png")
        return folder

    return write


def test_videos_and_folders_of_frames_are_read(
    tmp_path: Path, person: Make, clips_of: Make, film: Make
) -> None:
    person("videos/001_1_1.mp4")
    person("002_10_2")
    (tmp_path / "notes.mp4").touch()
    (tmp_path / "smpl").mkdir()
    clips = clips_of(IPer(tmp_path, size=48))
    assert [clip.name for clip in clips] == ["videos/001_1_1.mp4/0", "002_10_2/0"]
    assert [clip.source for clip in clips] == ["videos/001_1_1.mp4", "002_10_2"]
    assert [clip.fps for clip in clips] == [30, 30]
    frames = film(18, height=48, width=48)
    assert np.array_equal(clips[1].frames, frames)
    assert np.abs(clips[0].frames.astype(int) - frames).mean() < 4  # mp4 loses a little


def test_the_action_is_the_weight_of_every_frame(
    tmp_path: Path, person: Make, clips_of: Make
) -> None:
    person("001_1_1.mp4")
    person("001_1_2")
    tracks = [clip.tracks["weight"] for clip in clips_of(IPer(tmp_path))]
    for track, weight in zip(tracks, (1, 2), strict=True):
        assert (track.shape, track.dtype) == ((18, 1), np.float32)
        assert (track == weight).all()


def test_frames_are_taken_before_the_video_of_the_same_name(
    tmp_path: Path, person: Make, splits_of: Make
) -> None:
    person("001_1_1.mp4")
    person("frames/001_1_1")
    assert list(splits_of(IPer(tmp_path))) == ["frames/001_1_1"]


@pytest.mark.parametrize("name", ["001_1_2.mp4", "001_1_2"])
def test_long_videos_become_consecutive_clips_of_one_source(
    tmp_path: Path, person: Make, clips_of: Make, name: str
) -> None:
    person(name, 45)
    clips = clips_of(IPer(tmp_path, min_frames=5, max_frames=20, size=48))
    assert [len(clip.frames) for clip in clips] == [20, 20, 5]
    assert {clip.source for clip in clips} == {name}
    assert [clip.name for clip in clips] == [f"{name}/{k}" for k in range(3)]
    blue = np.concatenate([clip.frames for clip in clips])[..., 2].mean(axis=(1, 2))
    assert np.abs(blue - 10 - 3 * np.arange(45)).max() < 2.5  # one frame off would be 3
    assert len(clips_of(IPer(tmp_path, min_frames=6, max_frames=20))) == 2  # 5 are left over


def test_lists_decide_the_splits(
    tmp_path: Path, person: Make, splits_of: Make, read_all: Make
) -> None:
    root = tmp_path / "iPER_frames"
    for name in ("001_1_1", "002_1_1", "003_1_1", "004_1_1"):
        person(f"iPER_frames/{name}")
    lists = {"train.txt": "001/1/1\n002/1/1\n", "val.txt": "003/1/1", "test.txt": "005/1/1\n"}
    expected = {
        "001_1_1": "train", "002_1_1": "train", "003_1_1": "validation", "005_1_1": "test",
    }  # fmt: skip
    for place in (root, root / "iPER", root / "lists", tmp_path):
        place.mkdir(exist_ok=True)
        for file, text in lists.items():
            (place / file).write_text(text)
        source = IPer(root)
        assert splits_of(source) == expected
        settings = source.settings()
        assert (settings["splits"], settings["unlisted"]) == ("lists", 1)
        for file in lists:
            (place / file).unlink()
    for file, text in lists.items():
        (root / file).write_text(text)
    *_, missing = read_all(IPer(root))
    assert missing.name == "005_1_1"
    assert missing.reason == "it is listed, but neither its mp4 nor its folder exists"


def test_lists_of_other_data_sets_are_passed_over(tmp_path: Path, person: Make) -> None:
    person("001_1_1")
    (tmp_path / "train.txt").write_text("cat.jpg\n")
    (tmp_path / "val.txt").write_text("")
    assert IPer(tmp_path).settings()["splits"] == "actors"


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"train.txt": b"001/1/1\nmore\n"}, r"train\.txt has a line 'more': write <actor>"),
        ({"train.txt": b"001/1/1", "val.txt": b"001/1/1"}, r"val\.txt names 001_1_1, as another"),
        ({"test.txt": b"\xff\xfe"}, r"test\.txt cannot be read"),
    ],
)
def test_damaged_lists_are_named(
    tmp_path: Path, person: Make, lists: dict[str, bytes], said: str
) -> None:
    person("001_1_1")
    for file, content in lists.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=said):
        IPer(tmp_path).items()


def test_without_lists_an_actor_is_on_one_side(tmp_path: Path, splits_of: Make) -> None:
    for actor in range(40):
        for cloth in (1, 2):
            (tmp_path / f"{actor:03d}_{cloth}_1.mp4").touch()
    splits = splits_of(IPer(tmp_path))
    sides = {name[:3]: {s for n, s in splits.items() if n[:3] == name[:3]} for name in splits}
    assert all(len(side) == 1 for side in sides.values())
    assert set(splits.values()) == {"train", "validation", "test"}
    assert list(splits.values()).count("train") > 40


def test_short_folders_are_left_out_and_short_videos_named(
    tmp_path: Path, person: Make, read_all: Make
) -> None:
    person("001_1_1", 16)
    person("001_1_2.mp4", 16)
    person("001_2_1")
    source = IPer(tmp_path)
    assert source.too_short() == ["001_1_1"]
    assert source.settings()["too_short"] == 1
    short, good = read_all(source)
    assert isinstance(good, RawClip)
    assert short == BadRecord(name="001_1_2.mp4", reason="it has 16 frames, fewer than 17")


def test_damaged_videos_are_named(tmp_path: Path, person: Make, read_all: Make) -> None:
    cut = person("001_1_1.mp4")
    cut.write_bytes(cut.read_bytes()[:-500])
    (tmp_path / "001_1_2.mp4").touch()
    (person("001_2_1") / "frame_4.png").unlink()
    person("001_2_2")
    short, empty, gap, good = read_all(IPer(tmp_path))
    assert short == BadRecord(
        name="001_1_1.mp4", reason="it is truncated: 500 bytes of it are missing"
    )
    assert empty == BadRecord(name="001_1_2.mp4", reason="it is empty, not a video")
    assert gap == BadRecord(name="001_2_1", reason="frame 4 is missing")
    assert isinstance(good, RawClip)


def test_other_folders_are_told_what_is_expected(tmp_path: Path, person: Make) -> None:
    person("001_1_1", 3)
    with pytest.raises(UserError, match=r"needs <actor>_<cloth>_<action>\.mp4, or folders of that"):
        IPer(tmp_path).items()
    with pytest.raises(UserError, match="does not exist"):
        IPer(tmp_path / "none").items()
    with pytest.raises(UserError, match=r"max_frames must be at least min_frames \(17\), got 5"):
        IPer(tmp_path, max_frames=5)
