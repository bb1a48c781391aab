"""Uploaded files are recognised by their content, checked against limits and read safely."""

import resource
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(side: int) -> bytes:
    return 2 * side.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))


ZEROS = zlib.compress(bytes(100_000_000))  # 97 KB
BOMBS = {
    "more pixels than any picture": png((b"IHDR", header(30_000)), (b"IDAT", ZEROS)),
    "more pixels than are allowed": png((b"IHDR", header(5_000)), (b"IDAT", ZEROS)),
    "a text of 100 MB": png(
        (b"IHDR", header(8)), (b"zTXt", b"a\0\0" + ZEROS), (b"IDAT", zlib.compress(bytes(8 * 25)))
    ),
    "a profile of 100 MB": png(
        (b"IHDR", header(8)), (b"iCCP", b"a\0\0" + ZEROS), (b"IDAT", zlib.compress(bytes(8 * 25)))
    ),
    "more rows than it states": png((b"IHDR", header(8)), (b"IDAT", ZEROS)),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_a_small_file_that_would_become_large_takes_no_memory(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(UserError):  # what is small and readable besides may be read
        assert read_picture(path, "bomb.png", LIMITS).pixels.shape == (8, 8, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB


def test_a_video_of_very_many_frames_is_checked_by_its_first(tmp_path: Path) -> None:
    frame = Image.new("L", (160, 160))
    others = [Image.new("L", (160, 160), 8 * (n % 2)) for n in range(300)]
    frame.save(tmp_path / "long.gif", save_all=True, append_images=others, duration=20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert check_video(tmp_path / "long.gif", "long.gif", LIMITS) == (160, 160)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # of 23 MB
