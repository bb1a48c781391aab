"""Strips and animations of clips."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from cinnema.evaluation.report.clips import (
    animated_webp,
    data_uri,
    shrunk,
    still_webp,
    strip_frames,
    strip_png,
)


@pytest.fixture
def frames() -> np.ndarray:
    ramp = np.linspace(0, 200, 17).astype(np.uint8)
    return np.broadcast_to(ramp[:, None, None, None], (17, 24, 32, 3)).copy()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_a_strip_shows_the_first_and_the_last_frame(frames: np.ndarray) -> None:
    image = opened(strip_png(frames))
    assert image.format == "PNG"
    assert image.size == (6 * 32 + 5 * 2, 24)
    pixels = np.asarray(image)
    chosen = strip_frames(17)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 16, 6)
    for i, frame in enumerate(chosen):
        left = i * 34
        np.testing.assert_array_equal(pixels[:, left : left + 32, :3], frames[frame])
    assert (pixels[:, 32:34, 3] == 0).all()


def test_a_short_clip_is_shown_whole() -> None:
    assert strip_frames(3) == [0, 1, 2]
    assert strip_frames(1) == [0]


def test_an_animation_has_all_frames_at_their_rate(frames: np.ndarray) -> None:
    image = opened(animated_webp(frames, fps=8))
    assert image.format == "WEBP"
    assert image.info["loop"] == 0
    durations, middles = [], []
    for page in ImageSequence.Iterator(image):
        page.load()
        durations.append(page.info["duration"])
        middles.append(np.asarray(page.convert("RGB"))[12, 16, 1])
    assert len(durations) == 17
    assert sum(durations) == round(17 * 1000 / 8)
    np.testing.assert_allclose(middles, frames[:, 12, 16, 1], atol=4)


def test_a_still_is_the_first_frame(frames: np.ndarray) -> None:
    image = opened(still_webp(frames + 40))
    assert image.size == (32, 24)
    np.testing.assert_allclose(np.asarray(image.convert("RGB")), 40, atol=4)


def test_only_large_frames_shrink_and_keep_their_shape(frames: np.ndarray) -> None:
    assert shrunk(frames, max_side=64) is frames
    assert shrunk(frames, max_side=16).shape == (17, 12, 16, 3)


def test_a_data_uri_holds_the_content() -> None:
    uri = data_uri(b"\x00\xff", "image/png")
    assert uri.startswith("data:image/png;base64,")
    assert base64.b64decode(uri.partition(",")[2]) == b"\x00\xff"
