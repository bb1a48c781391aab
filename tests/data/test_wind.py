"""The wind read from pictures: right where it is sure, and unsure where it cannot be right."""

import doctest
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data import wind as module
from cinnema.data.records import BadRecord, ClipSource, Control, Item, RawClip
from cinnema.data.wind import WIND, Wind, WithWind, estimate_wind
from cinnema.simulators.sky import Skies

Frames = np.ndarray[Any, np.dtype[np.uint8]]


def texture(seed: int = 0, size: int = 320) -> np.ndarray:
    """Cloud-like noise without edges, as wide as it is high."""
    rng = np.random.default_rng(seed)
    noise = sum(
        cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), s) * s
        for s in (2, 4, 8, 16)
    )
    return ((noise - noise.mean()) / noise.std() * 40 + 128).clip(0, 255)


def drifting(x: float, y: float, *, num: int = 9, ground: int = 0, size: int = 128) -> Frames:
    """A sky that moves by (x, y) pixels a frame, over `ground` rows that stand still."""
    sky, earth = texture(), texture(1)[:size, :size]
    frames = []
    for t in range(num):
        shift = np.array([[1, 0, x * t - 96], [0, 1, y * t - 96]], dtype=np.float32)
        frame = cv2.warpAffine(sky, shift, (size, size), flags=cv2.INTER_LINEAR)
        frame[size - ground :] = earth[size - ground :]
        frames.append(np.repeat(frame[..., None], 3, axis=2))
    return np.stack(frames).astype(np.uint8)


def error_of(wind: Wind, known: np.ndarray) -> float:
    """Of the direction, in degrees."""
    turn = np.arctan2(*wind.mean[::-1]) - np.arctan2(known[1], known[0])
    return float(np.degrees(np.abs(np.angle(np.exp(1j * turn)))))


@cache
def skies() -> list[tuple[RawClip, Wind]]:
    source = Skies(12, size=64, num_frames=9, seed=77)
    clips = [clip for item in source.items() for clip in source.read(item)]
    return [(clip, estimate_wind(clip.frames)) for clip in clips if isinstance(clip, RawClip)]


@pytest.mark.parametrize(("x", "y"), [(2.0, 0.0), (-1.0, 1.0), (0.0, -3.0), (0.25, 0.1)])
def test_the_drift_of_a_sky_is_found(x: float, y: float) -> None:
    wind = estimate_wind(drifting(x, y, ground=32))
    expected = np.tile([x / 128, y / 128], (8, 1))
    np.testing.assert_allclose(wind.displacement[1:], expected, atol=0.08 * np.hypot(x, y) / 128)
    assert wind.confidence.min() > 0.7
    assert not wind.displacement[0].any()


def test_widths_and_heights_are_the_units_of_pictures_of_any_size() -> None:
    square = drifting(2.0, 1.0, ground=32)
    wide = np.stack([cv2.resize(frame, (320, 96)) for frame in square])
    found = [estimate_wind(frames).mean for frames in (square, wide)]
    np.testing.assert_allclose(found[0], found[1], rtol=0.1)


def test_ground_that_stands_still_does_not_slow_the_wind_down() -> None:
    open_sky, half = (estimate_wind(drifting(2.0, 0.0, ground=g)).mean for g in (0, 64))
    np.testing.assert_allclose(half, open_sky, atol=0.1 * 2 / 128)


def test_speeds_that_change_are_followed() -> None:
    frames = drifting(1.0, 0.0, num=33, ground=32)
    faster = np.concatenate([frames[:17], frames[18::2]])
    found = estimate_wind(faster).displacement[:, 0] * 128
    assert found[4:12].mean() == pytest.approx(1.0, rel=0.15)
    assert found[-6:].mean() == pytest.approx(2.0, rel=0.15)


def test_mirror_images_on_water_do_not_count() -> None:
    sky = drifting(1.0, 2.0)[:, :64]
    lake = np.concatenate([sky, sky[:, ::-1] // 2 + 20], axis=1)
    found = estimate_wind(lake, still=np.zeros((128, 128), dtype=bool)).mean * 128
    np.testing.assert_allclose(found, [1.0, 2.0], atol=0.3)


def test_a_camera_that_moves_lowers_the_confidence() -> None:
    moving, standing = (estimate_wind(drifting(2.0, 1.0, ground=g)) for g in (0, 40))
    assert moving.confidence.max() < 0.5 < standing.confidence.min()
    known = estimate_wind(drifting(2.0, 1.0), still=np.zeros((128, 128), dtype=bool))
    assert known.confidence.min() > 0.7


def test_nothing_that_moves_is_no_wind_and_no_confidence() -> None:
    for frames in (drifting(0.0, 0.0, ground=32), np.full((5, 40, 40, 3), 90, dtype=np.uint8)):
        wind = estimate_wind(frames)
        assert np.abs(wind.displacement).max() < 1e-3
        assert wind.confidence.max() < 0.1


def test_noise_has_no_wind_to_be_sure_of() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
    assert estimate_wind(noise).confidence.max() < 0.3


def test_what_is_said_to_stand_still_does_not_count() -> None:
    frames = drifting(2.0, 0.0)
    frames[:, 64:] = drifting(-2.0, 0.0)[:, 64:]
    below = np.zeros((128, 128), dtype=bool)
    below[60:] = True
    up, down = (estimate_wind(frames, still=mask).mean[0] * 128 for mask in (below, ~below))
    assert up == pytest.approx(2.0, rel=0.1)
    assert down == pytest.approx(-2.0, rel=0.15)


def test_directions_of_synthetic_skies_are_found() -> None:
    errors = [
        error_of(wind, clip.tracks["wind"][1:].sum(axis=0))
        for clip, wind in skies()
        if np.linalg.norm(clip.tracks["wind"].sum(axis=0)) > 0.01 and wind.confidence.mean() > 0.5
    ]
    assert len(errors) >= 6
    assert np.median(errors) < 6


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 20), st.integers(0, 1000))
def test_every_frame_has_a_wind_and_a_confidence(num: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = drifting(rng.uniform(-3, 3), rng.uniform(-3, 3), num=num, size=48)
    wind = estimate_wind(frames)
    assert wind.displacement.shape == (num, 2)
    assert np.isfinite(wind.displacement).all()
    assert ((wind.confidence >= 0) & (wind.confidence <= 1)).all()


def test_the_same_frames_have_the_same_wind() -> None:
    frames = drifting(1.0, 1.0)
    first, second = estimate_wind(frames), estimate_wind(frames)
    assert np.array_equal(first.displacement, second.displacement)
    assert np.array_equal(first.confidence, second.confidence)


def test_frames_that_cannot_be_used_are_refused() -> None:
    frames = drifting(1.0, 0.0, num=3, size=64)
    with pytest.raises(UserError, match="at least 2 frames"):
        estimate_wind(frames[:1])
    with pytest.raises(UserError, match=r"32x64 pixels.*64x64"):
        estimate_wind(frames, still=np.zeros((64, 32), dtype=bool))


@dataclass(frozen=True)
class Album:
    """A source of two clips and a damaged one."""

    control: Control | None = None
    name: str = "album"
    size: int = 64

    def settings(self) -> dict[str, Any]:
        return {"pages": 3}

    def items(self) -> Sequence[Item]:
        return [Item(name="a", split="train", clips=3)]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        assert item == self.items()[0]
        frames = drifting(2.0, 0.0, num=5, size=64, ground=16)
        track = {"page": np.zeros((5, 1), dtype=np.float32)}
        yield RawClip(name="a/0", source="a", frames=frames, fps=8, tracks=track)
        yield BadRecord(name="a/1", reason="torn")
        yield RawClip(name="a/2", source="a", frames=frames[:1], fps=8)


def test_clips_of_any_source_get_their_wind() -> None:
    source = WithWind(Album())
    assert isinstance(source, ClipSource)
    assert (source.name, source.size, source.control) == ("album", 64, WIND)
    assert source.items() == Album().items()
    assert source.settings() == {"pages": 3, "control": "wind"}
    clip, torn, single = source.read(source.items()[0])
    assert isinstance(clip, RawClip)
    expected = estimate_wind(clip.frames)
    assert np.array_equal(clip.tracks["wind"], expected.displacement)
    assert np.array_equal(clip.confidence, expected.confidence)
    assert clip.tracks["page"].shape == (5, 1)
    assert torn == BadRecord(name="a/1", reason="torn")
    assert single == BadRecord(name="a/2", reason="a single frame has no wind")


def test_synthetic_and_real_skies_share_one_control() -> None:
    assert WithWind(Album()).control == Skies(1).control
    with pytest.raises(UserError, match=r"sky has the control wind already"):
        WithWind(Skies(1))
    WithWind(Album(control=replace(WIND, name="smoke")))


def test_the_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
