"""Video files that are shorter than they say."""

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.data.sources.frames import missing_bytes

KINDS = {"mp4": "libx264", "mov": "libx264", "avi": "mpeg4", "mkv": "libx264", "webm": "libvpx-vp9"}


@pytest.fixture(scope="module", params=sorted(KINDS))
def video(request: Any, film: Callable[..., Any], tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("video") / f"video.{request.param}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(KINDS[request.param], rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for frame in film(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    return path


def missing(content: bytes) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        path.write_bytes(content)
        return missing_bytes(path)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_cut_off_is_missing(video: Path, data: Any) -> None:
    content = video.read_bytes()
    assert missing(content) == 0
    cut = data.draw(st.integers(1, 200))
    assert missing(content[:-cut]) == cut
    assert missing(content[: data.draw(st.integers(64, len(content) - 1))]) >= 0


def test_what_is_appended_is_not_missing(video: Path) -> None:
    assert missing(video.read_bytes() + b"more") == 0
    assert missing(video.read_bytes() + b"\x00\x00\x00\x03 and more") == 0


@given(st.sampled_from([b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"....moov"]), st.binary(max_size=64))
def test_nothing_is_raised_whatever_the_file_holds(begin: bytes, rest: bytes) -> None:
    assert missing(begin + rest) >= 0


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_boxes_of_64_bits_and_up_to_the_end_are_understood() -> None:
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + bytes(100)
    assert missing(box(b"ftyp", b"isom") + large) == 0
    assert missing(box(b"ftyp", b"isom") + large[:-7]) == 7
    assert missing(box(b"ftyp", b"isom") + struct.pack(">I4s", 0, b"mdat") + b"any") == 0


def test_live_streams_state_no_length() -> None:
    assert missing(b"RIFF" + struct.pack("<I", 0) + b"AVI ") == 0
    assert missing(b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"AVI ") == 0
    assert missing(b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7 + b"clusters") == 0
    assert missing(b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x88" + b"12345") == 3


def test_other_files_lack_nothing(tmp_path: Path) -> None:
    assert missing(b"GIF89a") == 0
    assert missing(b"") == 0
    with pytest.raises(FileNotFoundError):
        missing_bytes(tmp_path / "none")
