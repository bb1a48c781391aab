"""Batches of real and synthetic clips, and how they are varied."""

import dataclasses
import doctest
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data import clips
from cinnema.data.clips import (
    ClipBatch,
    ClipStream,
    SkyPool,
    augment,
    join,
    moving_target,
    real_item,
)
from cinnema.data.scenes import Scene, SceneCrops
from cinnema.stage1.warping import warp

SIZE, NUM_FRAMES, GRID = 64, 3, 16
REAL_FLOW = 7.0  # no sky moves like that


def crops_of(name: str = "a", texture: str = "clouds", *, num: int = 5) -> SceneCrops:
    """Clips of one colour a frame: 10 times its number, and the number of the clip."""
    levels = 10 * np.arange(NUM_FRAMES + 1)[None, :] + np.arange(num)[:, None]
    frames = np.broadcast_to(
        levels[..., None, None, None], (num, NUM_FRAMES + 1, SIZE, SIZE, 3)
    ).astype(np.uint8)
    return SceneCrops(
        scene=Scene(name, texture, Path(name), stride=1, split="train", source="", licence=""),
        frames=frames,
        flow=np.full((num, 2, NUM_FRAMES, GRID, GRID), REAL_FLOW, dtype=np.float32),
        motion=np.full((num, 2 * GRID, 2 * GRID), 5.0, dtype=np.float32),
    )


def skies(**options: int) -> SkyPool:
    settings = {"size": SIZE, "num_frames": NUM_FRAMES, "grid": GRID, "seed": 0, "pool": 4}
    return SkyPool(textures=None, **{**settings, **options})


def stream(crops: list[SceneCrops], *, sky_share: float = 0.5, **options: int) -> ClipStream:
    settings = {"batch_size": 4, "num_rendered": 1, "seed": 0, "num_workers": 0, **options}
    weights = {"clouds": 1.0, "water": 3.0, "fire": 0.0}
    return ClipStream(crops, weights=weights, skies=skies(), sky_share=sky_share, **settings)


def values_of(batch: ClipBatch) -> list[torch.Tensor]:
    return [getattr(batch, field.name) for field in dataclasses.fields(batch)]


def same(a: ClipBatch, b: ClipBatch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(values_of(a), values_of(b), strict=True))


@pytest.mark.parametrize("num_rendered", [0, 1, 2])
def test_a_batch_has_the_shapes_that_training_wants(num_rendered: int) -> None:
    batch = next(stream([crops_of()], num_rendered=num_rendered))
    assert [tuple(value.shape) for value in values_of(batch)] == [
        (4, 3, SIZE, SIZE), (4, 2, NUM_FRAMES, GRID, GRID), (4, 32, 32), (4, 32, 32),
        (4, num_rendered, 3, SIZE, SIZE), (4, num_rendered),
    ]  # fmt: skip
    assert all(value.dtype == torch.float32 for value in values_of(batch))
    assert all(torch.isfinite(value).all() for value in values_of(batch))
    assert batch.x0.abs().max() <= 1


@pytest.mark.parametrize(("share", "num"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_share_of_the_clips_is_synthetic(share: float, num: int) -> None:
    batch = next(stream([crops_of()], sky_share=share))
    is_sky = batch.flow.abs().amax(dim=(1, 2, 3, 4)) < REAL_FLOW
    assert int(is_sky.sum()) == num


def test_textures_share_by_weight_and_their_scenes_alike() -> None:
    scenes = [crops_of("a"), crops_of("b", "water"), crops_of("c", "water"), crops_of("d", "fire")]
    np.testing.assert_allclose(stream(scenes).shares, [1 / 4, 3 / 8, 3 / 8, 0])


def test_real_clips_of_no_scene_are_refused() -> None:
    for scenes in ([], [crops_of(texture="fire")], [crops_of(texture="smoke")]):
        with pytest.raises(UserError, match=r"no scene.*clouds, water, fire.*synthetic"):
            stream(scenes)
    next(stream([], sky_share=1.0))


def test_seeds_decide_the_batches() -> None:
    first, second = (next(stream([crops_of()], seed=3)) for _ in range(2))
    assert same(first, second)
    assert not same(first, next(stream([crops_of()], seed=4)))


def test_a_process_of_its_own_draws_the_same_skies() -> None:
    here = stream([crops_of()])
    there = stream([crops_of()], num_workers=1)
    assert all(same(next(here), next(there)) for _ in range(3))


def test_the_global_random_stream_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    next(stream([crops_of()]))
    assert torch.equal(torch.rand(1), expected)


def test_a_pool_depends_on_its_seed_alone() -> None:
    first, second, other = (next(iter(skies(seed=seed))) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.x0, other.x0)


@pytest.mark.parametrize("pool", [1, 3, 8])
def test_a_sky_is_used_a_few_times(pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, source = [], skies(pool=pool, uses=4)
    draw = source.draw
    monkeypatch.setattr(source, "draw", lambda generator: drawn.append(0) or draw(generator))
    for _ in itertools.islice(source, 60):
        pass
    assert 6 <= len(drawn) <= 30  # 15 in the mean


def test_a_sky_holds_its_own_later_frames() -> None:
    item = skies(rendered=5).draw(torch.Generator().manual_seed(0))
    assert item.frames.shape == (5, 3, SIZE, SIZE)
    assert set((item.times * NUM_FRAMES).round().int().tolist()) <= {1, 2, 3}
    assert (item.known == 1).all()
    assert ((item.moving >= 0) & (item.moving <= 1)).all()


def test_the_flow_of_a_sky_is_nothing_where_its_mask_is() -> None:
    for seed in range(6):
        item = skies().draw(torch.Generator().manual_seed(seed))
        moves = torch.nn.functional.max_pool2d(item.moving[None], 2)[0]
        assert (item.flow.abs().amax(dim=(0, 1)) <= 4 * moves).all()


def test_later_frames_come_with_their_times() -> None:
    crops, generator = crops_of(), np.random.default_rng(0)
    for _ in range(10):
        item = real_item(crops, generator, 2)
        levels = (torch.stack([item.x0, *item.frames]).mean(dim=(1, 2, 3)) + 1) * 127.5
        later = (levels[1:] - levels[0]) / 10 / NUM_FRAMES
        torch.testing.assert_close(later, item.times, atol=1e-3, rtol=0)
        assert (item.times > 0).all()


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


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 8))
def test_a_varied_clip_still_moves_by_its_flow(seed: int, shift: int) -> None:
    batch = augment(shifted_clips(shift), np.random.default_rng(seed))
    flow = batch.flow[:, :, -1]
    flow = torch.stack([flow[:, 0], torch.zeros_like(flow[:, 0])], dim=1)
    inner = (..., slice(shift, SIZE - shift))
    torch.testing.assert_close(
        warp(batch.x0, flow)[inner], batch.frames[:, 0][inner], atol=1e-3, rtol=0
    )
    assert batch.x0.abs().max() <= 1


def test_mirroring_turns_the_flow_and_the_mask_around() -> None:
    before = shifted_clips(4, num=20)
    after = augment(before, np.random.default_rng(0))
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
    after = augment(still, np.random.default_rng(0))
    assert torch.equal(after.frames[:, 0], after.x0)
    assert not torch.allclose(after.x0.mean((1, 2, 3)), still.x0.mean((1, 2, 3)), atol=1e-3)


def test_joined_batches_keep_their_order() -> None:
    a, b = shifted_clips(1, num=2), shifted_clips(2, num=3)
    both = join([a, b])
    assert torch.equal(both.x0[:2], a.x0)
    assert torch.equal(both.x0[2:], b.x0)
    assert same(both.to(torch.device("cpu")), both)


def test_the_examples_run() -> None:
    assert doctest.testmod(clips).failed == 0
