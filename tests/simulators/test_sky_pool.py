"""Synthetic skies for training: which are shown, and what is known about them."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.simulators.sky import pool as pool_module
from cinnema.simulators.sky.pool import SkyPool

SIZE, NUM_FRAMES, GRID = 64, 3, 16


def skies(**options: int) -> SkyPool:
    settings = {"size": SIZE, "num_frames": NUM_FRAMES, "grid": GRID, "seed": 0, "pool": 4}
    return SkyPool(textures=None, **{**settings, **options})


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


def test_the_examples_run() -> None:
    assert doctest.testmod(pool_module).failed == 0
