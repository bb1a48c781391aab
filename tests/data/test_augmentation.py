"""How training varies a clip and its control."""

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.data import augmentation
from cinnema.data.augmentation import PAPER, Augmentation, Variation
from cinnema.data.records import Control

SIZE = 32
LUMA = np.array([0.299, 0.587, 0.114])
WIND = Control(name="wind", kind="velocity", labels=("x", "y"), unit="picture sizes")
ARM = Control(
    name="arm", kind="position", labels=("x", "y", "z"), unit="m", mirror_axis=1, mirror_centre=0.5
)
FACE = Control(name="face", kind="position", labels=("x", "y"), unit="picture sizes")


def noise(num_frames: int = 3, size: int = SIZE, *, low: int = 0, high: int = 256) -> NDArray[Any]:
    shape = (num_frames, size, size, 3)
    return np.random.default_rng(size).integers(low, high, shape).astype(np.uint8)


def ramp(size: int, *, num_frames: int = 2) -> NDArray[np.uint8]:
    """Red tells x and green y, in shares of the picture."""
    axis = np.round((np.arange(size) + 0.5) / size * 255)
    x, y = np.meshgrid(axis, axis)
    frame = np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    return np.repeat(frame[None], num_frames, axis=0)


def draws(config: Augmentation, *, num: int = 400) -> list[Variation]:
    return [config.draw(np.random.default_rng(seed)) for seed in range(num)]


def test_the_default_changes_nothing() -> None:
    for variation in draws(Augmentation(), num=10):
        assert np.array_equal(variation.frames(noise(), size=SIZE), noise())
        assert variation.stride == 1
        value = np.array([0.25, -1], dtype=np.float32)
        assert np.array_equal(variation.control(value, WIND, size=SIZE), value)


def test_the_frames_given_are_left_alone() -> None:
    frames = noise()
    for variation in draws(PAPER["landscape"], num=4):
        variation.frames(frames, size=SIZE)
        variation.frames(frames, size=SIZE + 8)
    assert np.array_equal(frames, noise())


def test_mirroring_swaps_left_and_right() -> None:
    assert np.array_equal(Variation(mirrored=True).frames(noise(), size=SIZE), noise()[:, :, ::-1])


@given(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3))
def test_the_control_is_mirrored_with_the_picture(values: list[float]) -> None:
    value = np.array(values, dtype=np.float32)
    mirrored = Variation(mirrored=True).control(value, ARM, size=SIZE)
    np.testing.assert_allclose(mirrored, [value[0], 1 - value[1], value[2]], atol=1e-6)
    mirrored = Variation(mirrored=True).control(value[:2], WIND, size=SIZE)
    np.testing.assert_allclose(mirrored, [-value[0], value[1]], atol=1e-6)


def test_a_share_of_the_clips_is_mirrored() -> None:
    for share in (0.0, 0.3, 1.0):
        mirrored = [variation.mirrored for variation in draws(Augmentation(mirror=share))]
        assert abs(np.mean(mirrored) - share) < 0.08


def test_strides_are_drawn_alike() -> None:
    strides = [variation.stride for variation in draws(Augmentation(strides=(1, 2, 5)))]
    values, counts = np.unique(strides, return_counts=True)
    assert values.tolist() == [1, 2, 5]
    assert counts.min() > 100


def test_amounts_bound_the_draws_and_are_used_in_full() -> None:
    config = Augmentation(brightness=0.1, contrast=0.2, saturation=0.3, hue=0.15)
    all_draws = draws(config)
    for name, centre in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
        amount = getattr(config, name)
        away = np.array([getattr(variation, name) - centre for variation in all_draws])
        assert np.abs(away).max() <= amount
        assert away.min() < -0.95 * amount
        assert away.max() > 0.95 * amount


def test_changing_one_amount_leaves_the_other_draws_alone() -> None:
    with_hue = Augmentation(mirror=0.5, contrast=0.2, hue=0.1, strides=(1, 2), enlarge=1.5)
    without = Augmentation(mirror=0.5, contrast=0.2, strides=(1, 2), enlarge=1.5)
    for a, b in zip(draws(with_hue, num=20), draws(without, num=20), strict=True):
        assert (a.mirrored, a.stride, a.contrast, a.corner) == (
            b.mirrored, b.stride, b.contrast, b.corner,
        )  # fmt: skip


def test_all_frames_of_a_clip_are_varied_alike() -> None:
    still = np.repeat(noise(1), 4, axis=0)
    for variation in draws(PAPER["landscape"], num=20):
        varied = variation.frames(still, size=SIZE)
        assert (varied == varied[:1]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_colours_are_those_of_the_formulas(seed: int) -> None:
    config = Augmentation(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5)
    variation = config.draw(np.random.default_rng(seed))
    frames = noise()
    x = frames.astype(np.float64)
    grey = float((x @ LUMA).mean()) * variation.brightness
    x = x * variation.brightness
    x = grey + variation.contrast * (x - grey)
    luma = (x @ LUMA)[..., None]
    yiq = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    chroma = (x @ yiq[1:].T) @ np.array([1, 1j]) * variation.saturation
    chroma = chroma * np.exp(2j * np.pi * variation.hue)
    x = np.concatenate([luma, chroma.real[..., None], chroma.imag[..., None]], -1)
    expected = np.clip(x @ np.linalg.inv(yiq).T, 0, 255)
    np.testing.assert_allclose(variation.frames(frames, size=SIZE), expected, atol=1.0)


def test_greys_stay_grey_whatever_the_hue() -> None:
    grey = np.repeat(noise(1)[..., :1], 3, axis=-1)
    turned = Variation(hue=0.3, saturation=1.4).frames(grey, size=SIZE)
    np.testing.assert_allclose(turned.astype(int), grey, atol=1)


def test_a_turn_of_the_hue_keeps_the_luma() -> None:
    muted = noise(low=100, high=156)
    turned = Variation(hue=0.25).frames(muted, size=SIZE)
    assert np.abs(turned.astype(int) - muted).max() > 10
    np.testing.assert_allclose(turned @ LUMA, muted @ LUMA, atol=1.5)


@pytest.mark.parametrize("size", [SIZE, 24, 48])
def test_frames_come_at_the_size_that_is_asked_for(size: int) -> None:
    for variation in draws(PAPER["dtdb"], num=6):
        varied = variation.frames(noise(), size=size)
        assert varied.shape == (3, size, size, 3)
        assert varied.dtype == np.uint8


@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.999, 0.0), (0.3, 0.7)])
def test_a_crop_shows_a_part_of_the_picture_enlarged(corner: tuple[float, float]) -> None:
    size, enlarge = 64, 1.25
    crop = Variation(enlarge=enlarge, corner=corner).frames(ramp(size), size=size)[0] / 255
    centres = (np.arange(size) + 0.5) / size / enlarge
    for channel, share in enumerate(corner):
        levels = crop.mean(axis=channel)[:, channel]  # x along rows, y down columns
        np.testing.assert_allclose(levels, share * (1 - 1 / enlarge) + centres, atol=0.02)


def test_crops_reach_every_edge() -> None:
    reached = set()
    for variation in draws(Augmentation(enlarge=36 / 32), num=300):
        crop = variation.frames(ramp(36), size=32)[0, 0, 0]
        reached.add((int(crop[0]), int(crop[1])))
    assert len({x for x, _ in reached}) == len({y for _, y in reached}) == 5


def test_data_packed_so_much_larger_are_cut_and_not_resampled() -> None:
    frames = noise(size=36)
    for variation in draws(Augmentation(enlarge=36 / 32), num=10):
        left, top = (int(share * 5) for share in variation.corner)
        expected = frames[:, top : top + SIZE, left : left + SIZE]
        assert np.array_equal(variation.frames(frames, size=SIZE), expected)


def test_a_smaller_size_takes_means_over_pixels() -> None:
    frames = noise(size=2 * SIZE).astype(int)
    means = frames.reshape(3, SIZE, 2, SIZE, 2, 3).mean(axis=(2, 4))
    halved = Variation().frames(frames.astype(np.uint8), size=SIZE)
    np.testing.assert_allclose(halved, means, atol=0.51)


def test_a_velocity_in_picture_sizes_grows_with_the_picture_and_nothing_else_does() -> None:
    value = np.array([0.5, -0.25, 2.0], dtype=np.float32)
    enlarged = Variation(enlarge=1.25)
    np.testing.assert_allclose(enlarged.control(value[:2], WIND, size=SIZE), [0.625, -0.3125])
    assert np.array_equal(enlarged.control(value, ARM, size=SIZE), value)
    metres = Control(name="v", kind="velocity", labels=("x", "y"), unit="m")
    assert np.array_equal(enlarged.control(value[:2], metres, size=SIZE), value[:2])


def test_motion_in_the_varied_picture_is_the_varied_control() -> None:
    centre = np.array([0.4, 0.45])
    wind = np.array([0.15, 0.1], dtype=np.float32)
    size = 64
    for variation in draws(Augmentation(mirror=0.5, enlarge=1.25), num=10):
        frames = np.stack([dot(centre, size), dot(centre + wind, size)])
        before, after = (place(frame) for frame in variation.frames(frames, size=size))
        control = variation.control(wind, WIND, size=size)
        np.testing.assert_allclose(after - before, control, atol=0.01)


def dot(centre: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    axis = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    light = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 2 / 0.03**2)
    return np.repeat(np.round(light * 255)[..., None], 3, axis=-1).astype(np.uint8)


def place(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    axis = (np.arange(len(frame)) + 0.5) / len(frame)
    light = frame[..., 0] / frame[..., 0].sum()
    return np.array([(light.sum(axis=0) * axis).sum(), (light.sum(axis=1) * axis).sum()])


def test_a_position_in_the_picture_cannot_be_cropped() -> None:
    Augmentation(mirror=0.5).check_control(FACE)
    for control in (None, WIND, ARM):
        PAPER["landscape"].check_control(control)
    with pytest.raises(UserError, match=r"face is a position.*enlarge must be 1, got 1.125"):
        PAPER["landscape"].check_control(FACE)


def test_the_papers_settings_are_those_of_its_code() -> None:
    assert set(PAPER) == {"bair", "iper", "landscape", "dtdb"}
    assert [PAPER[name].contrast for name in PAPER] == [0.1, 0.2, 0.3, 0.3]
    assert [PAPER[name].hue for name in PAPER] == [0, 0, 0.15, 0.15]
    assert all(config.mirror == 0.5 for config in PAPER.values())
    assert round(128 * PAPER["landscape"].enlarge) == 128 + 16


def test_settings_survive_their_file() -> None:
    for config in PAPER.values():
        assert config_from_dict(Augmentation, config_to_dict(config)) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"mirror": 1.1}, {"mirror": -0.1}, {"strides": ()}, {"strides": (0,)}, {"hue": 0.6},
        {"brightness": 1.5}, {"enlarge": 0.9}, {"contrast": -0.1}, {"colour": 0.1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Augmentation(**wrong)
    with pytest.raises(UserError, match="does not fit"):
        config_from_dict(Augmentation, wrong)


def test_the_examples_run() -> None:
    assert doctest.testmod(augmentation).failed == 0
