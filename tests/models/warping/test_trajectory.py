"""The flow of a motion at any time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.models.warping.motion import TemporalBasis, Trajectory

BASIS = TemporalBasis(num_basis=4, num_frames=16)


def coefficients(*, constant: bool = False) -> torch.Tensor:
    shape = (1, 4, 2, 1, 1) if constant else (1, 4, 2, 16, 16)
    values = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return values.expand(1, 4, 2, 16, 16)


@settings(deadline=None)
@given(st.floats(-1, 1))
def test_within_a_clip_it_is_the_basis(time: float) -> None:
    c = coefficients()
    assert torch.equal(Trajectory(BASIS, c).at(time), BASIS.at(c, torch.tensor([time])))


@settings(deadline=None)
@given(st.floats(-6, 6))
def test_uniform_motion_adds_up(time: float) -> None:
    c = coefficients(constant=True)
    whole = max(-(-abs(time) // 1) - 1, 0) * (-1 if time < 0 else 1)
    expected = BASIS.at(c, torch.tensor([time - whole])) + whole * BASIS.at(c, torch.ones(1))
    torch.testing.assert_close(Trajectory(BASIS, c).at(time), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seam", [-3, -2, -1, 0, 1, 2, 3, 7])
def test_clips_meet_without_a_jump(seam: int) -> None:
    trajectory = Trajectory(BASIS, coefficients())
    before, at, after = (trajectory.at(seam + d) for d in (-1e-4, 0, 1e-4))
    assert (after - at).abs().max() < 1e-3
    assert (at - before).abs().max() < 1e-3
