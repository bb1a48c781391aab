"""The order of clips: by seed and number alone, whatever workers, ranks and resumptions."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.data.scenes import SceneCrops
from cinnema.recipes import clip_streams
from cinnema.recipes.clip_streams import ClipStream, MixedClips, SkyPool
from data.small_crops import GRID, NUM_FRAMES, REAL_FLOW, SIZE, crops_of, joined, same, values_of


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


def stream(*, batch_size: int = 4, num_workers: int = 0, **options: int) -> ClipStream:
    source = mixed([crops_of("a"), crops_of("b")])
    return ClipStream(source, batch_size=batch_size, num_workers=num_workers, **options)


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


def test_real_clips_of_no_scene_are_refused() -> None:
    for scenes in ([], [crops_of(texture="fire")], [crops_of(texture="smoke")]):
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


def test_a_sky_depends_on_its_seed_and_number_alone() -> None:
    first, second, other = (skies(seed=seed).sky(5) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.x0, other.x0)
    assert not torch.equal(first.x0, skies(seed=1).sky(6).x0)


@settings(max_examples=30, deadline=None)
@given(pool=st.integers(1, 50), uses=st.integers(1, 10), turn=st.integers(0, 10**9))
def test_skies_are_shown_from_a_window_that_moves_on(pool: int, uses: int, turn: int) -> None:
    source = skies(pool=pool, uses=uses)
    number = source.number_of(turn)
    assert turn // uses <= number < turn // uses + pool
    assert number == skies(pool=pool, uses=uses).number_of(turn)


def test_a_sky_is_used_as_often_as_it_should_be() -> None:
    source = skies(pool=20, uses=6)
    numbers = [source.number_of(turn) for turn in range(3000)]
    counts = [numbers.count(number) for number in range(20, 480)]  # those whose window is over
    assert abs(np.mean(counts) - 6) < 0.5
    assert np.mean(np.equal(counts, 0)) < 0.03  # e^-6 are never shown, and never drawn


def test_a_sky_is_drawn_once_and_forgotten_when_its_window_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, source = [], skies(pool=3, uses=4)
    item = source.sky(0)
    monkeypatch.setattr(source, "sky", lambda number: drawn.append(number) or item)
    for turn in range(200):
        source.shown(turn)
        assert len(source._kept) <= 4
    assert len(drawn) == len(set(drawn)) <= 53


def test_a_sky_holds_its_own_later_frames_in_a_row() -> None:
    item = skies(rendered=3).sky(0)
    assert item.frames.shape == (3, 3, SIZE, SIZE)
    assert (item.times * NUM_FRAMES).round().int().tolist() == [1, 2, 3]
    assert (item.known == 1).all()
    assert ((item.moving >= 0) & (item.moving <= 1)).all()


def test_a_sky_holds_any_two_frames_that_follow_one_another() -> None:
    firsts = set()
    for number in range(12):
        first, second = (skies(rendered=2).sky(number).times * NUM_FRAMES).round().int().tolist()
        assert second == first + 1
        firsts.add(first)
    assert firsts == {1, 2}


def test_the_flow_of_a_sky_is_nothing_where_its_mask_is() -> None:
    for seed in range(6):
        item = skies().sky(seed)
        moves = torch.nn.functional.max_pool2d(item.moving[None], 2)[0]
        assert (item.flow.abs().amax(dim=(0, 1)) <= 4 * moves).all()


def test_a_batch_moves_to_a_device_with_its_names() -> None:
    batch = mixed([crops_of()]).batch(range(2))
    assert same(batch.to(torch.device("cpu")), batch)


def test_the_examples_run() -> None:
    assert doctest.testmod(clip_streams).failed == 0
