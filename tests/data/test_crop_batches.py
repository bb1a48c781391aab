"""Batches of crops: how clips are mirrored and recoloured, and which clip has which number."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data import crop_batches
from cinnema.data.crop_batches import (
    ClipBatch,
    CropVariation,
    MixedClips,
    draw_variation,
    moving_target,
    real_item,
    varied,
)
from cinnema.data.crops import SceneCrops
from cinnema.data.loader import BatchLoader
from cinnema.models.layers import warp
from cinnema.simulators.sky.pool import SkyPool
from data.small_crops import GRID, NUM_FRAMES, REAL_FLOW, SIZE, crops_of, joined, same, values_of


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
    after = varied(before, [CropVariation(False, 1.0, (1.0, 1.0, 1.0), 1.0)] * 3)
    torch.testing.assert_close(values_of(after), values_of(before))


# Which clip has which number


def skies(**options: int) -> SkyPool:
    settings = {"size": SIZE, "num_frames": NUM_FRAMES, "grid": GRID, "seed": 0, "pool": 4}
    return SkyPool(textures=None, **{**settings, **options})


def mixed(
    crops: list[SceneCrops], *, sky_share: float = 0.5, num_rendered: int = 1, seed: int = 0
) -> MixedClips:
    return MixedClips(
        crops,
        weights={"clouds": 1.0, "water": 3.0, "fire": 0.0},
        skies=skies(seed=seed),
        sky_share=sky_share,
        num_rendered=num_rendered,
        seed=seed,
    )


def stream(*, batch_size: int = 4, num_workers: int = 0, **options: int) -> BatchLoader[ClipBatch]:
    source = mixed([crops_of("a"), crops_of("b")])
    return BatchLoader(source, batch_size=batch_size, num_workers=num_workers, **options)


@pytest.mark.parametrize("num_rendered", [0, 1, 2])
def test_a_batch_has_the_shapes_that_training_wants(num_rendered: int) -> None:
    batch = mixed([crops_of()], num_rendered=num_rendered).batch(range(4))
    assert [tuple(value.shape) for value in values_of(batch)] == [
        (4, 3, SIZE, SIZE), (4, 2, NUM_FRAMES, GRID, GRID), (4, 32, 32), (4, 32, 32),
        (4, num_rendered, 3, SIZE, SIZE), (4, num_rendered),
    ]  # fmt: skip
    assert all(value.dtype == torch.float32 for value in values_of(batch))
    assert all(torch.isfinite(value).all() for value in values_of(batch))
    assert batch.x0.abs().max() <= 1


@pytest.mark.parametrize(("share", "num"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_share_of_every_batch_is_synthetic(share: float, num: int) -> None:
    for first in (0, 4, 1_000_000):
        batch = mixed([crops_of()], sky_share=share).batch(range(first, first + 4))
        is_sky = batch.flow.abs().amax(dim=(1, 2, 3, 4)) < REAL_FLOW
        assert int(is_sky.sum()) == num
        assert [name.startswith("sky:") for name in batch.ids] == is_sky.tolist()


def test_a_clip_is_named_by_its_scene_and_crop() -> None:
    batch = mixed([crops_of("dune")], sky_share=0.0).batch(range(20))
    assert set(batch.ids) == {f"dune:{index}" for index in range(5)}


def test_textures_share_by_weight_and_their_scenes_alike() -> None:
    scenes = [crops_of("a"), crops_of("b", "water"), crops_of("c", "water"), crops_of("d", "fire")]
    np.testing.assert_allclose(mixed(scenes).shares, [1 / 4, 3 / 8, 3 / 8, 0])
    names = [name[0] for name in mixed(scenes, sky_share=0.0).batch(range(400)).ids]
    counts = [names.count(scene) for scene in "abcd"]
    np.testing.assert_allclose(counts, [100, 150, 150, 0], atol=30)


def test_scenes_of_other_textures_are_drawn_equally_often() -> None:
    np.testing.assert_allclose(mixed([crops_of(texture="smoke"), crops_of("b", "")]).shares, 0.5)


def test_real_clips_of_no_scene_are_refused() -> None:
    for scenes in ([], [crops_of(texture="fire")]):
        with pytest.raises(UserError, match=r"no scene.*clouds, water, fire.*synthetic"):
            mixed(scenes)
    mixed([], sky_share=1.0).batch(range(2))


def test_a_clip_is_a_function_of_the_seed_and_its_number_alone() -> None:
    whole = mixed([crops_of()]).batch(range(40, 52))
    apart = [mixed([crops_of()]).batch([number]) for number in reversed(range(40, 52))]
    assert same(joined(apart[::-1]), whole)
    assert not same(mixed([crops_of()], seed=1).batch(range(40, 52)), whole)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_change_nothing(num_workers: int) -> None:
    here, there = stream(), stream(num_workers=num_workers)
    assert all(same(next(here), next(there)) for _ in range(4))
    there.close()


def test_a_stream_goes_on_where_another_one_was_to_the_bit() -> None:
    first = stream()
    batches = [next(first) for _ in range(5)]
    assert first.state_dict() == {"clips": 20}
    second = stream()
    second.load_state_dict({"clips": 8})
    assert all(same(next(second), batch) for batch in batches[2:])
    second.load_state_dict({"clips": 4})  # back again
    assert same(next(second), batches[1])
    other_size = stream(batch_size=2)
    other_size.load_state_dict({"clips": 8})
    assert same(joined([next(other_size), next(other_size)]), batches[2])


def test_ranks_share_the_batches_of_one() -> None:
    alone, ranks = stream(), [stream(batch_size=2, rank=rank, num_ranks=2) for rank in range(2)]
    for _ in range(3):
        assert same(joined([next(rank) for rank in ranks]), next(alone))
    assert [rank.clips for rank in ranks] == [alone.clips, alone.clips]


def test_the_global_random_stream_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    next(stream())
    next(stream(num_workers=1))
    assert torch.equal(torch.rand(1), expected)


def test_a_batch_moves_to_a_device_with_its_names() -> None:
    batch = mixed([crops_of()]).batch(range(2))
    assert same(batch.to(torch.device("cpu")), batch)


def test_the_examples_run() -> None:
    assert doctest.testmod(crop_batches).failed == 0
