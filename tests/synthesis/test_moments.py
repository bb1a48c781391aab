"""The moments that each frame of a loop shows."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnema.synthesis.moments import Loop, looped


@pytest.mark.parametrize("loop", get_args(Loop))
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
