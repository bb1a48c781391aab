"""Clips for training: how they are cut, mirrored and recoloured."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.data import clips
from cinnema.data.clips import (
    ClipBatch,
    Variation,
    draw_variation,
    moving_target,
    real_item,
    varied,
)
from cinnema.models.layers import warp
from data.small_crops import GRID, NUM_FRAMES, SIZE, crops_of, values_of


def test_later_frames_come_with_their_times() -> None:
    crops, generator = crops_of(), np.random.default_rng(0)
    for index in (0, 1, 4) * 3:
        item = real_item(crops, index, generator=generator, num_rendered=2)
        levels = (torch.stack([item.x0, *item.frames]).mean(dim=(1, 2, 3)) + 1) * 127.5
        later = (levels[1:] - levels[0]) / 10 / NUM_FRAMES
        torch.testing.assert_close(later, item.times, atol=1e-3, rtol=0)
        assert (item.times > 0).all()


@pytest.mark.parametrize("num", [2, NUM_FRAMES])
def test_several_later_frames_follow_one_another(num: int) -> None:
    crops, generator, firsts = crops_of(), np.random.default_rng(0), set()
    for _ in range(20):
        item = real_item(crops, 0, generator=generator, num_rendered=num)
        numbers = (item.times * NUM_FRAMES).round().int().tolist()
        assert numbers == list(range(numbers[0], numbers[0] + num))
        firsts.add(numbers[0])
    assert firsts == set(range(1, NUM_FRAMES - num + 2))


def test_one_later_frame_is_any_of_them() -> None:
    crops, drawn, generator = crops_of(), np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(10):
        item = real_item(crops, 0, generator=generator, num_rendered=1)
        number = drawn.integers(1, NUM_FRAMES + 1, size=1)
        assert np.allclose(item.times.numpy() * NUM_FRAMES, number)


@pytest.mark.parametrize(
    ("pixels", "moves", "is_known"),
    [(0.0, 0, 1), (0.3, 0, 1), (0.5, 0, 0), (1.0, 1, 0), (1.3, 1, 1), (40.0, 1, 1)],
)
def test_small_motion_is_still_large_moves_and_between_is_not_known(
    pixels: float, moves: int, is_known: int
) -> None:
    moving, known = moving_target(torch.full((2, 2), pixels))
    assert (moving == moves).all()
    assert (known == is_known).all()


def shifted_clips(shift: int, *, num: int = 6) -> ClipBatch:
    """Clips that move to the right as one piece, their left halves called still."""
    generator = torch.Generator().manual_seed(shift)
    x0 = torch.rand(num, 3, SIZE, SIZE, generator=generator) * 1.8 - 0.9
    flow = torch.zeros(num, 2, NUM_FRAMES, GRID, GRID)
    flow[:, 0] = -shift / SIZE
    flow[:, 1, :, :8] = 0.01  # the upper half comes from below
    moving = torch.zeros(num, 32, 32)
    moving[:, :, 16:] = 1
    frames = x0.roll(shift, dims=-1)[:, None]
    return ClipBatch(x0, flow, moving, moving, frames, torch.ones(num, 1))


def augment(batch: ClipBatch, *, seed: int = 0) -> ClipBatch:
    generator = np.random.default_rng(seed)
    return varied(batch, [draw_variation(generator) for _ in batch.x0])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_a_varied_clip_still_moves_by_its_flow(seed: int, shift: int) -> None:
    batch = augment(shifted_clips(shift), seed=seed)
    flow = batch.flow[:, :, -1]
    flow = torch.stack([flow[:, 0], torch.zeros_like(flow[:, 0])], dim=1)
    inner = (..., slice(shift, SIZE - shift))
    torch.testing.assert_close(
        warp(batch.x0, flow)[inner], batch.frames[:, 0][inner], atol=1e-3, rtol=0
    )
    assert batch.x0.abs().max() <= 1


def test_mirroring_turns_the_flow_and_the_mask_around() -> None:
    before = shifted_clips(4, num=20)
    after = augment(before)
    mirrored = after.moving[:, 0, 0] == 1
    assert 4 <= int(mirrored.sum()) <= 16
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None, None]
    assert torch.equal(after.flow[:, 0], before.flow[:, 0] * sign)
    assert torch.equal(after.flow[:, 1], before.flow[:, 1])
    for name in ("moving", "known"):
        kept, turned = getattr(after, name), getattr(before, name).flip(-1)
        assert torch.equal(kept[mirrored], turned[mirrored])
        assert torch.equal(kept[~mirrored], getattr(before, name)[~mirrored])
    assert torch.equal(after.times, before.times)


def test_a_clip_is_recoloured_as_a_whole() -> None:
    still = shifted_clips(0)
    after = augment(still)
    assert torch.equal(after.frames[:, 0], after.x0)
    assert not torch.allclose(after.x0.mean((1, 2, 3)), still.x0.mean((1, 2, 3)), atol=1e-3)


def test_a_variation_that_changes_nothing_changes_nothing() -> None:
    before = shifted_clips(2, num=3)
    after = varied(before, [Variation(False, 1.0, (1.0, 1.0, 1.0), 1.0)] * 3)
    torch.testing.assert_close(values_of(after), values_of(before))


def test_the_examples_run() -> None:
    assert doctest.testmod(clips).failed == 0
