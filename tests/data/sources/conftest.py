"""Data sets of every layout, tiny, and tfrecords written by hand."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cinnema.data.records import BadRecord, ClipSource, RawClip

Pixels = NDArray[np.uint8]


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = (crc >> 15) | ((crc & 0x7FFF) << 17)
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def varint(value: int) -> bytes:
    value %= 2**64
    out = b""
    while value >= 128:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number * 8 + 2) + varint(len(content)) + content


def feature(values: Sequence[bytes] | NDArray[Any], *, packed: bool) -> bytes:
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        each = [value.tobytes() for value in values]
        inner = field(1, b"".join(each)) if packed else b"".join(b"\x0d" + v for v in each)
        return field(2, inner)
    if isinstance(values, np.ndarray):
        each = [varint(int(value)) for value in values]
        inner = field(1, b"".join(each)) if packed else b"".join(b"\x08" + v for v in each)
        return field(3, inner)
    return field(1, b"".join(field(1, value) for value in values))


def example(features: Mapping[str, Any], *, packed: bool = True) -> bytes:
    entries = [
        field(1, field(1, key.encode()) + field(2, feature(values, packed=packed)))
        for key, values in features.items()
    ]
    return field(1, b"".join(entries))


@pytest.fixture(scope="session")
def tfrecord() -> Any:
    """What writes tfrecords: framed, example, masked, field."""

    class Writer:
        framed, example, masked = staticmethod(framed), staticmethod(example), staticmethod(masked)
        field = staticmethod(field)

    return Writer


def drifting(num_frames: int, *, height: int = 36, width: int = 64, seed: int = 0) -> Pixels:
    t, y, x = np.ogrid[:num_frames, :height, :width]
    wave = 128 + 90 * np.sin((x - 2 * t) / 7 + y / 5 + seed)
    return np.stack([wave, wave * 0.8, 0 * wave + 3 * t + 10], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def film() -> Callable[..., Pixels]:
    """Smooth stripes that drift to the right; blue counts the frames: 10, 13, 16, ..."""
    return drifting


@pytest.fixture(scope="session")
def write_pictures() -> Callable[..., Path]:
    """Write frames as pictures into a folder, called by a pattern of their numbers."""

    def write(folder: Path, frames: Iterable[Pixels], pattern: str = "frame{}.png") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(folder / pattern.format(index))
        return folder

    return write


@pytest.fixture(scope="session")
def bair_features() -> Callable[..., dict[str, Any]]:
    """The features of a record of BAIR, as published but for the camera "main"."""

    def make(seed: int = 0, camera: str = "aux1") -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        frames = drifting(30, height=64, width=64, seed=seed)
        features: dict[str, Any] = {}
        for index, frame in enumerate(frames):
            features[f"{index}/image_{camera}/encoded"] = [frame.tobytes()]
            features[f"{index}/endeffector_pos"] = rng.random(3).astype(np.float32)
            features[f"{index}/action"] = rng.random(4).astype(np.float32)
        return features

    return make


def all_of(source: ClipSource) -> Iterator[RawClip | BadRecord]:
    for item in source.items():
        yield from source.read(item)


@pytest.fixture(scope="session")
def read_all() -> Callable[[ClipSource], list[RawClip | BadRecord]]:
    """Read a source whole."""
    return lambda source: list(all_of(source))


@pytest.fixture(scope="session")
def clips_of() -> Callable[[ClipSource], list[RawClip]]:
    """Read a source that has no bad record."""

    def read(source: ClipSource) -> list[RawClip]:
        clips = []
        for clip in all_of(source):
            assert isinstance(clip, RawClip), clip
            clips.append(clip)
        return clips

    return read


@pytest.fixture(scope="session")
def splits_of() -> Callable[[ClipSource], dict[str, str]]:
    """The split of each item."""
    return lambda source: {item.name: item.split for item in source.items()}
