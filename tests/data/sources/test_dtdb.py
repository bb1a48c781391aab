"""Dynamic textures: one folder of numbered pictures a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord
from cinnema.data.sources.dtdb import DTDB

Make = Callable[..., Any]


@pytest.fixture
def texture(tmp_path: Path, film: Make, write_pictures: Make) -> Make:
    """Write a video of so many frames; returns its folder."""

    def write(place: str, num_frames: int = 17, kind: str = "jpg") -> Path:
        folder: Path = write_pictures(tmp_path / place, film(num_frames), "frame{}." + kind)
        return folder

    return write


def test_each_video_is_a_clip(tmp_path: Path, texture: Make, clips_of: Make, film: Make) -> None:
    texture("clouds/train/b", kind="png")
    texture("clouds/eval/a", 20, kind="png")
    texture("fire/train/c")
    source = DTDB(tmp_path, "clouds", size=36)
    assert source.name == "dtdb-clouds"
    assert [(item.name, item.split) for item in source.items()] == [
        ("clouds/eval/a", "test"), ("clouds/train/b", "train"),
    ]  # fmt: skip
    first, second = clips_of(source)
    assert (first.name, first.source, len(first.frames)) == ("clouds/eval/a", "clouds/eval/a", 20)
    assert second.frames.shape == (17, 36, 36, 3)
    # Lossless, and squeezed in width alone, along which blue is the same.
    assert np.array_equal(first.frames[..., 2], film(20, height=36, width=36)[..., 2])


def test_a_share_of_train_validates_for_good(tmp_path: Path, splits_of: Make) -> None:
    for number in range(60):
        folder = tmp_path / f"fire/train/{number}"
        folder.mkdir(parents=True)
        (folder / "frame0.jpg").touch()
    before = splits_of(DTDB(tmp_path, "fire", min_frames=1))
    assert 1 <= list(before.values()).count("validation") <= 15
    (tmp_path / "fire/train/another").mkdir()
    (tmp_path / "fire/train/another/frame0.jpg").touch()
    after = splits_of(DTDB(tmp_path, "fire", min_frames=1))
    assert before.items() < after.items()


def test_videos_of_one_name_in_both_folders_are_different_sources(
    tmp_path: Path, texture: Make, clips_of: Make
) -> None:
    for side in ("train", "eval"):
        texture(f"fire/{side}/1")
    assert [clip.source for clip in clips_of(DTDB(tmp_path, "fire"))] == [
        "fire/eval/1", "fire/train/1",
    ]  # fmt: skip


def test_bad_videos_are_named_and_short_ones_left_out(
    tmp_path: Path, texture: Make, read_all: Make, write_pictures: Make
) -> None:
    texture("fire/eval/short", 16)
    (texture("fire/eval/a", 19) / "frame3.jpg").unlink()
    cut = texture("fire/eval/b") / "frame16.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    write_pictures(texture("fire/eval/c"), [np.zeros((8, 8, 3), np.uint8)], "frame0.jpg")
    source = DTDB(tmp_path, "fire")
    assert source.too_short() == ["fire/eval/short"]
    assert source.settings()["too_short"] == 1
    gap, damaged, odd = read_all(source)
    assert gap == BadRecord(name="fire/eval/a", reason="frame 3 is missing")
    assert (damaged.name, damaged.reason[:13]) == ("fire/eval/b/frame16.jpg", "it is damaged")
    assert odd.name == "fire/eval/c/frame1.jpg"


def test_a_missing_texture_is_told_what_there_is(tmp_path: Path, texture: Make) -> None:
    texture("fire/train/c")
    with pytest.raises(UserError, match=r"clouds/\{train,eval\}/<video>.*its folders: fire"):
        DTDB(tmp_path, "clouds").items()
    with pytest.raises(UserError, match="does not exist"):
        DTDB(tmp_path / "none", "fire").items()
    for name in ("", "..", "fire/train"):
        with pytest.raises(UserError, match="texture must be the name of a folder"):
            DTDB(tmp_path, name)


def test_without_a_texture_all_are_read(tmp_path: Path, texture: Make, splits_of: Make) -> None:
    texture("clouds/eval/a", kind="png")
    texture("fire/train/c")
    source = DTDB(tmp_path)
    assert source.name == "dtdb"
    assert splits_of(source) == {"clouds/eval/a": "test", "fire/train/c": "train"}
    with pytest.raises(UserError, match=r"<texture>/\{train,eval\}"):
        DTDB(tmp_path, min_frames=30).items()
