"""Paths, churn and the renewal of texture."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cinnema.models.nature.motion import (
    CHURN_PERIOD,
    CHURN_SHAPE,
    GRID,
    Churn,
    KindDynamics,
    KindMotion,
    cosines,
    follow,
    frequencies,
)

LIVELY = KindDynamics(gain=1.5, period=10.0, jitter=0.3, churn=1.0, flicker=0.2, upright=0.5)


def numbers_of(seed: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, *CHURN_SHAPE, generator=torch.Generator().manual_seed(seed))


def motion_of(dynamics: KindDynamics, *, steps: float = 16.0, loop: bool = False) -> KindMotion:
    velocity = torch.full((1, 2, GRID, GRID), 0.01)
    return KindMotion(
        velocity, torch.tensor([0.004]), numbers_of(0), dynamics, num_steps=steps, loop=loop
    )


def test_the_first_cosine_is_the_constant_and_they_are_orthogonal() -> None:
    functions = cosines().flatten(1)
    gram = functions @ functions.T
    assert torch.equal(functions[0], torch.ones(GRID * GRID))
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-3, rtol=0)
    assert frequencies()[0] == 0


def test_a_path_along_a_constant_velocity_is_straight() -> None:
    velocity = torch.tensor([0.02, -0.01]).view(1, 2, 1, 1).expand(1, 2, GRID, GRID)
    paths = follow(velocity, 5)
    for step in range(6):
        torch.testing.assert_close(paths[:, step], -step * velocity)


@given(
    seed=st.integers(0, 99),
    period=st.sampled_from([0.0, 8.0, 13.0]),
    jitter=st.floats(0, 0.4),
    loop=st.booleans(),
)
@settings(max_examples=20)
def test_the_first_frame_is_the_photograph(
    seed: int, period: float, jitter: float, *, loop: bool
) -> None:
    dynamics = KindDynamics(period=period, jitter=jitter, churn=1.0, flicker=0.1)
    motion = KindMotion(
        0.01 * torch.randn(1, 2, GRID, GRID, generator=torch.Generator().manual_seed(seed)),
        torch.tensor([0.01]),
        numbers_of(seed),
        dynamics,
        num_steps=16,
        loop=loop,
    )
    (warp,) = motion.at(0.0)
    assert torch.equal(warp.displacement, torch.zeros_like(warp.displacement))
    assert torch.equal(warp.weight, torch.ones_like(warp.weight))
    assert torch.equal(motion.churn.gain(0.0), torch.ones(1, 1, GRID, GRID))


@given(time=st.floats(0, 40), loop=st.booleans())
@settings(max_examples=30)
def test_weights_of_textures_sum_to_1_at_any_time(time: float, *, loop: bool) -> None:
    warps = motion_of(LIVELY, steps=40.0, loop=loop).at(time)
    total = torch.stack([warp.weight for warp in warps]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [16.0, 23.7, 40.0])
@pytest.mark.parametrize("period", [0.0, 10.0])
def test_a_loop_ends_as_it_begins(steps: float, period: float) -> None:
    dynamics = KindDynamics(period=period, jitter=0.3, churn=1.0, flicker=0.2)
    motion = motion_of(dynamics, steps=steps, loop=True)
    warps = [warp for warp in motion.at(steps) if bool((warp.weight > 1e-4).any())]
    assert len(warps) == 1
    torch.testing.assert_close(
        warps[0].displacement, torch.zeros(1, 2, GRID, GRID), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(motion.churn.gain(steps), motion.churn.gain(0.0), atol=1e-5, rtol=0)


def test_no_texture_is_warped_further_than_its_life_allows() -> None:
    motion = motion_of(KindDynamics(period=10.0), steps=200.0)
    for time in range(0, 200, 7):
        for warp in motion.at(float(time)):
            assert warp.displacement.abs().max() <= 0.01 * 5 + 1e-6


def test_what_is_not_renewed_moves_on() -> None:
    (warp,) = motion_of(KindDynamics(), steps=16.0).at(16.0)
    torch.testing.assert_close(warp.displacement, torch.full((1, 2, GRID, GRID), -0.16))


def test_the_churn_moves_with_the_strength_that_is_asked_for() -> None:
    strength = torch.tensor([0.002, 0.01])
    churn = Churn(numbers_of(1, rows=2), strength, KindDynamics(correlation=6.0))
    steps = torch.stack([churn.at(float(t)) for t in range(25)]).diff(dim=0)
    measured = steps.square().mean((0, 2, 3, 4)).sqrt()
    torch.testing.assert_close(measured, strength, atol=0, rtol=0.25)


def test_the_churn_repeats_after_its_period() -> None:
    churn = Churn(numbers_of(2), torch.tensor([0.01]), KindDynamics())
    torch.testing.assert_close(churn.at(3.5), churn.at(3.5 + CHURN_PERIOD), atol=1e-5, rtol=0)


def test_videos_of_a_batch_move_independently() -> None:
    velocity = 0.01 * torch.randn(2, 2, GRID, GRID)
    numbers, strength = numbers_of(3, rows=2), torch.tensor([0.01, 0.02])
    both = KindMotion(velocity, strength, numbers, LIVELY, num_steps=16)
    alone = KindMotion(velocity[1:], strength[1:], numbers[1:], LIVELY, num_steps=16)
    for one, other in zip(both.at(4.0), alone.at(4.0), strict=False):
        torch.testing.assert_close(one.displacement[1:], other.displacement)
        torch.testing.assert_close(one.weight[1:], other.weight)


def test_a_video_shorter_than_a_textures_life_shows_one_texture() -> None:
    (warp,) = motion_of(KindDynamics(period=64.0, jitter=0.3), steps=32.0).at(31.0)
    torch.testing.assert_close(warp.displacement, torch.full((1, 2, GRID, GRID), -0.31))
    assert len(motion_of(KindDynamics(period=64.0), steps=33.0).at(16.0)) == 2
