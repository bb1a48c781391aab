"""The sky time-lapse data set, under published and renamed names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord
from cinnema.data.sources.landscape import Landscape

Make = Callable[..., Any]


@pytest.fixture
def sky(tmp_path: Path, film: Make, write_pictures: Make) -> Make:
    """Write a clip of so many frames; returns its folder."""

    def write(place: str, num_frames: int = 18, pattern: str = "frame{}.jpg") -> Path:
        folder: Path = write_pictures(tmp_path / place, film(num_frames), pattern)
        return folder

    return write


def test_a_long_video_is_the_source_of_its_clips(tmp_path: Path, sky: Make, clips_of: Make) -> None:
    for place in ("sky_train/ab/ab_1", "sky_train/ab/ab_2", "sky_test/cd/cd_3"):
        sky(place)
    source = Landscape(tmp_path, size=32)
    assert [(item.name, item.clips) for item in source.items()] == [
        ("sky_test/cd", 1), ("sky_train/ab", 2),
    ]  # fmt: skip
    clips = clips_of(source)
    assert [clip.name for clip in clips] == [
        "sky_test/cd/cd_3", "sky_train/ab/ab_1", "sky_train/ab/ab_2",
    ]  # fmt: skip
    assert [clip.source for clip in clips] == ["cd", "ab", "ab"]
    assert all(clip.frames.shape == (18, 32, 32, 3) for clip in clips)
    blue = clips[0].frames[..., 2].mean(axis=(1, 2))
    assert np.abs(blue - 10 - 3 * np.arange(18)).max() < 1.4


def test_published_names_are_read_in_natural_order_over_gaps(
    tmp_path: Path, sky: Make, clips_of: Make
) -> None:
    folder = sky("sky_test/cd/cd_3", pattern="cd_frames_{}.jpg")
    (folder / "cd_frames_3.jpg").unlink()
    (clip,) = clips_of(Landscape(tmp_path, size=16))
    blue = clip.frames[..., 2].mean(axis=(1, 2))
    assert np.abs(blue - 10 - 3 * np.array([0, 1, 2, *range(4, 18)])).max() < 1.4


def test_a_gap_between_renamed_frames_is_named(tmp_path: Path, sky: Make, read_all: Make) -> None:
    (sky("sky_test/cd/cd_3") / "frame7.jpg").unlink()
    (bad,) = read_all(Landscape(tmp_path))
    assert bad == BadRecord(name="sky_test/cd/cd_3", reason="frame 7 is missing")


def test_short_clips_are_left_out_and_counted(tmp_path: Path, sky: Make, clips_of: Make) -> None:
    for place, count in {"ab/ab_1": 16, "ab/ab_2": 17, "ef/ef_1": 3}.items():
        sky(f"sky_train/{place}", count)
    source = Landscape(tmp_path)
    assert [clip.name for clip in clips_of(source)] == ["sky_train/ab/ab_2"]
    assert [item.clips for item in source.items()] == [1]
    assert source.too_short() == ["sky_train/ab/ab_1", "sky_train/ef/ef_1"]
    assert source.settings()["too_short"] == 2
    assert len(clips_of(Landscape(tmp_path, min_frames=3))) == 3


def empty_videos(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"sky_train/v{number}/v{number}_1"
        folder.mkdir(parents=True)
        for frame in range(2):
            (folder / f"frame{frame}.jpg").touch()


def test_a_tenth_of_the_long_videos_validates_for_good(tmp_path: Path, splits_of: Make) -> None:
    empty_videos(tmp_path / "all", 120)
    empty_videos(tmp_path / "part", 100)
    everything = splits_of(Landscape(tmp_path / "all", min_frames=2))
    part = splits_of(Landscape(tmp_path / "part", min_frames=2))
    assert part == {name: everything[name] for name in part}
    assert 5 <= list(everything.values()).count("validation") <= 20
    assert set(everything.values()) == {"train", "validation"}
    more = splits_of(Landscape(tmp_path / "all", min_frames=2, validation_share=0.5))
    assert list(more.values()).count("validation") > 40
    assert all(more[name] == "validation" for name, s in everything.items() if s == "validation")


def test_a_video_in_both_folders_tests(tmp_path: Path, sky: Make, splits_of: Make) -> None:
    for place in ("sky_train/ab/ab_1", "sky_test/ab/ab_2", "sky_train/cd/cd_1"):
        sky(place)
    assert splits_of(Landscape(tmp_path)) == {
        "sky_test/ab": "test", "sky_train/ab": "test", "sky_train/cd": "train",
    }  # fmt: skip


def test_damaged_and_odd_pictures_are_named(
    tmp_path: Path, sky: Make, read_all: Make, write_pictures: Make
) -> None:
    truncated = sky("sky_test/ab/ab_1") / "frame11.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-300])
    write_pictures(sky("sky_test/ab/ab_2"), [np.zeros((36, 60, 3), np.uint8)], "frame17.jpg")
    (sky("sky_test/ab/ab_3") / "frame0.jpg").write_bytes(b"")
    first, second, third = read_all(Landscape(tmp_path))
    assert first.name == "sky_test/ab/ab_1/frame11.jpg"
    assert first.reason.startswith("it is damaged")
    assert second == BadRecord(
        name="sky_test/ab/ab_2/frame17.jpg", reason="the frame is 60x36 pixels, the first 64x36"
    )
    assert third == BadRecord(
        name="sky_test/ab/ab_3/frame0.jpg", reason="it is empty, not a picture"
    )


def test_other_folders_are_told_what_is_expected(tmp_path: Path, sky: Make) -> None:
    with pytest.raises(UserError, match=r"no clip of 17 frames.*sky_train/<video>/<video>_<k>/"):
        Landscape(tmp_path).items()
    sky("sky_train/ab/ab_1", 5)
    with pytest.raises(UserError, match="no clip of 17 frames"):
        Landscape(tmp_path).items()
    with pytest.raises(UserError, match="does not exist: name the folder of the data set"):
        Landscape(tmp_path / "none").items()
    with pytest.raises(UserError, match="min_frames must be at least 1, got 0"):
        Landscape(tmp_path, min_frames=0)
    with pytest.raises(UserError, match="together below 1, got 1 and 0"):
        Landscape(tmp_path, validation_share=1.0)
