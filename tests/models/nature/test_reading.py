"""From clips to velocity, strength and churn."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cinnema.models.nature.motion import CHURN_MODES, CHURN_SHAPE, GRID, Churn, KindDynamics
from cinnema.models.nature.reading import (
    log_strength,
    measure_churn,
    measure_flow,
    measure_motion,
    strength_of,
    velocity_of,
)


def rolled(right: int, down: int, frames: int = 5) -> Tensor:
    """A clip of cloudy texture that moves by whole pixels a frame."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 32, 32))).float()
    texture = functional.interpolate(noise, (128, 128), mode="bicubic", align_corners=False)[0]
    clip = [torch.roll(texture, (t * down, t * right), (1, 2)) for t in range(frames)]
    return (0.4 * torch.stack(clip)).clamp(-1, 1)[None]


def test_the_velocity_of_a_drifting_texture_is_found() -> None:
    flow = measure_flow(rolled(2, -1))
    motion = measure_motion(flow, torch.ones(1, GRID, GRID))
    velocity = velocity_of(motion.coefficients)
    middle = velocity[0, :, 8:24, 8:24].mean((1, 2)) * 128
    torch.testing.assert_close(middle, torch.tensor([2.0, -1.0]), atol=0.2, rtol=0)


def test_only_the_region_of_a_kind_counts() -> None:
    flow = torch.zeros(1, 4, 2, GRID, GRID)
    flow[:, :, 0, :16] = 0.01
    flow[:, :, 0, 16:] = -0.03
    share = torch.zeros(1, GRID, GRID)
    share[:, :16] = 1
    velocity = velocity_of(measure_motion(flow, share).coefficients)
    torch.testing.assert_close(velocity[0, 0, :16].mean(), torch.tensor(0.01), atol=0.001, rtol=0)


def test_a_region_without_pixels_does_not_move() -> None:
    motion = measure_motion(torch.randn(1, 4, 2, GRID, GRID), torch.zeros(1, GRID, GRID))
    assert torch.equal(motion.coefficients, torch.zeros(1, 2, 16))
    assert motion.strength.item() == 0


def test_a_steady_flow_has_no_strength_and_an_unsteady_one_has() -> None:
    steady = torch.full((1, 6, 2, GRID, GRID), 0.01)
    assert measure_motion(steady, torch.ones(1, GRID, GRID)).strength.item() < 1e-6
    unsteady = steady.clone()
    unsteady[:, ::2] *= -1
    strength = measure_motion(unsteady, torch.ones(1, GRID, GRID)).strength
    torch.testing.assert_close(strength, torch.tensor([0.01 * 2**0.5]))


def test_the_logarithm_of_a_strength_is_inverted() -> None:
    strength = torch.tensor([0.0, 1e-4, 0.003, 0.02])
    torch.testing.assert_close(strength_of(log_strength(strength)), strength)


def test_churn_is_read_back_from_its_own_flow() -> None:
    dynamics = KindDynamics(correlation=6.0, memory=0.6)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(2, *CHURN_SHAPE, generator=generator)
    strength = torch.tensor([0.01, 0.002])
    churn = Churn(numbers, strength, dynamics)
    flow = torch.stack([churn.at(float(t)) for t in range(17)], 1).diff(dim=1)
    read = measure_churn(flow, strength, dynamics)
    assert read.shape == numbers.shape
    again = Churn(read, strength, dynamics)
    seen = torch.stack([again.at(float(t)) for t in range(17)], 1).diff(dim=1)
    # What the filter leaves out is what noise would hide.
    error = (seen - flow).square().mean() / flow.square().mean()
    assert error < 0.35
    moved = read[:, : 6 * CHURN_MODES].unflatten(1, (2, CHURN_MODES, 3))
    assert torch.equal(moved[:, :, :, 2], torch.zeros_like(moved[:, :, :, 2]))
