"""Uploaded files are recognised by their content, checked against limits and read safely."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cinnema.app.uploads import check_video, fit, read_picture, saved_kind, shown_name, video_suffix
from cinnema.core.errors import UserError
from cinnema.core.files import sha256_of
from visitor import LIMITS


def test_a_picture_is_scaled_down_to_what_videos_may_have(
    tmp_path: Path, picture_at: Callable[..., Path]
) -> None:
    path = picture_at(tmp_path / "0123.png", width=1000, height=800)
    picture = read_picture(path, "coast.png", LIMITS)
    assert (picture.name, picture.size) == ("coast.png", (1000, 800))
    assert picture.pixels.shape == (400, 500, 3)
    assert picture.sha256 == sha256_of(path)


def test_errors_name_a_file_as_its_owner_does_and_hide_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "0123.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^holiday\.jpg is not a picture") as caught:
        read_picture(path, "C:\\photos\\holiday.jpg", LIMITS)
    assert str(tmp_path) not in str(caught.value)


def test_too_many_pixels_and_too_many_bytes_are_refused(
    tmp_path: Path, picture_at: Callable[..., Path]
) -> None:
    wide = picture_at(tmp_path / "wide.png", width=1600, height=1000)
    with pytest.raises(UserError, match=r"wide\.png is 1600x1000 .* more than 1\.5"):
        read_picture(wide, "wide.png", LIMITS)
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(3_000_000))
    with pytest.raises(UserError, match=r"heavy\.png has 3 MB, more than 2"):
        read_picture(heavy, "heavy.png", LIMITS)


def test_a_video_is_recognised_whatever_its_name_is(waves: Path) -> None:
    path = waves.rename(waves.with_name("waves.jpg"))
    assert video_suffix(path, "waves.jpg", LIMITS) == ".mp4"


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD/>",
        b"\x93NUMPY\x01\x00",
        b"text",
    ],
)
def test_files_that_could_name_other_files_are_no_videos(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"film\.mp4 is not a video that can be read"):
        video_suffix(path, "film.mp4", LIMITS)


def test_a_video_with_too_large_frames_is_refused(waves: Path) -> None:
    assert check_video(waves, "waves.mp4", LIMITS) == (64, 96)
    small = type(LIMITS)(max_megapixels=0.001)
    with pytest.raises(UserError, match=r"waves\.mp4 is 96x64 pixels"):
        check_video(waves, "waves.mp4", small)


def test_json_and_motion_files_are_told_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    path.write_text('  {"seed": 0}')
    assert saved_kind(path, "saved", LIMITS) == "json"
    path.write_bytes(np.arange(8).tobytes())
    assert saved_kind(path, "saved", LIMITS) == "motion"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\sea.png", "sea.png"),
        ("a<b>.png", "a_b_.png"),
        (None, "file"),
        ("...", "file"),
    ],
)
def test_names_lose_folders_and_odd_characters(given: str | None, shown: str) -> None:
    assert shown_name(given) == shown


def test_a_picture_is_never_scaled_up() -> None:
    assert fit((60, 90), 1e9) == (60, 90)
    assert fit((60, 90), 1e9, side=45) == (30, 45)
    assert fit((100, 400), 10_000) == (50, 200)
