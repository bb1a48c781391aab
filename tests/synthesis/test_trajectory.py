"""Motion at any time, and the moments that loops show."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.models.warping.motion import TemporalBasis
from cinnema.synthesis.moments import Loop, looped
from cinnema.synthesis.trajectory import Trajectory

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


@pytest.mark.parametrize("loop", get_args(Loop))
@settings(deadline=None)
@given(num_frames=st.integers(2, 40))
def test_shares_add_up_to_1(loop: Loop, num_frames: int) -> None:
    for mix in looped(loop, num_frames):
        assert sum(moment.share for moment in mix) == pytest.approx(1)
        assert all(moment.share > 0 for moment in mix)


def test_a_pingpong_repeats_neither_end() -> None:
    times = [mix[0].time for mix in looped("pingpong", 4)]
    assert times == [1, 2, 3, 4, 3, 2]
    assert len(looped("pingpong", 2)) == 2


def test_a_crossfade_ends_at_the_photographs_own_time() -> None:
    assert looped("crossfade", 4)[-1] == ((0, 1.0),)
    assert looped("crossfade", 4)[0] == ((1, 0.75), (-3, 0.25))
