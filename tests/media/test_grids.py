"""Several videos side by side."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.media.grids import contact_grid


def plain(value: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_the_first_frame_stands_left_and_samples_beside_it() -> None:
    x0 = plain(10, 20, 30)
    videos = [[plain(50 * k + t, 20, 30) for t in range(2)] for k in (1, 2, 3)]
    grids = list(contact_grid(x0, videos, gap=4))
    assert [grid.shape for grid in grids] == [(44, 64, 3)] * 2
    for t, grid in enumerate(grids):
        assert (grid[:20, :30] == 10).all()
        assert (grid[:20, 34:] == 50 + t).all()
        assert (grid[24:, :30] == 100 + t).all()
        assert (grid[24:, 34:] == 150 + t).all()
        assert (grid[20:24] == 128).all()
        assert (grid[:, 30:34] == 128).all()


@given(
    num=st.integers(1, 12),
    height=st.integers(16, 900),
    width=st.integers(16, 900),
    max_side=st.integers(200, 700),
)
@settings(max_examples=30, deadline=None)
def test_a_grid_is_even_and_fits(num: int, height: int, width: int, max_side: int) -> None:
    video = [plain(200, height, width)]
    (grid,) = contact_grid(plain(100, height, width), [video] * num, max_side=max_side)
    assert grid.shape[0] % 2 == grid.shape[1] % 2 == 0
    assert max(grid.shape) <= max_side + 1
    assert grid[0, 0, 0] == 100


def test_four_wide_photographs_keep_a_good_size() -> None:
    x0 = plain(0, 720, 1280)
    (grid,) = contact_grid(x0, [[x0]] * 4)
    assert grid.shape[1] == 1920
    assert grid.shape[0] > 1500  # three rows of two


def test_videos_are_read_in_step_and_may_be_generators() -> None:
    x0 = plain(0, 16, 16)
    grids = contact_grid(x0, [(x0 for _ in range(3)), [x0] * 3])
    assert len(list(grids)) == 3


def test_slips_are_named() -> None:
    x0 = plain(0, 16, 16)
    with pytest.raises(UserError, match="at least one video"):
        contact_grid(x0, [])
    with pytest.raises(UserError, match=r"videos \[1\] of the grid end early"):
        list(contact_grid(x0, [[x0] * 3, [x0] * 2]))
    with pytest.raises(UserError, match=r"video 0 of the grid has frames of \(8, 16, 3\)"):
        list(contact_grid(x0, [[x0[:8]]]))
    with pytest.raises(UserError, match="does not fit 16 pixels: ask for fewer"):
        contact_grid(x0, [[x0]] * 20, max_side=16)
