"""Several pictures and videos side by side."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.media import grids
from cinnema.media.grids import VideoGrid, tile


def plain(value: int, height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_the_first_frame_stands_left_and_samples_beside_it() -> None:
    grid = VideoGrid(plain(10, 20, 30), num_videos=3, gap=4)
    for k in (1, 2, 3):
        grid.add(plain(50 * k + t, 20, 30) for t in range(2))
    frames = list(grid.frames())
    assert [frame.shape for frame in frames] == [(44, 64, 3)] * 2
    for t, frame in enumerate(frames):
        assert (frame[:20, :30] == 10).all()
        assert (frame[:20, 34:] == 50 + t).all()
        assert (frame[24:, :30] == 100 + t).all()
        assert (frame[24:, 34:] == 150 + t).all()
        assert (frame[20:24] == 128).all()
        assert (frame[:, 30:34] == 128).all()


@given(
    num=st.integers(1, 12),
    height=st.integers(16, 900),
    width=st.integers(16, 900),
    max_side=st.integers(200, 700),
)
@settings(max_examples=30, deadline=None)
def test_a_grid_is_even_and_fits(num: int, height: int, width: int, max_side: int) -> None:
    grid = VideoGrid(plain(100, height, width), num_videos=num, max_side=max_side)
    for _ in range(num):
        grid.add([plain(200, height, width)])
    (frame,) = grid.frames()
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert max(frame.shape) <= max_side + 1
    assert frame[0, 0, 0] == 100


def test_four_wide_photographs_keep_a_good_size() -> None:
    x0 = plain(0, 720, 1280)
    grid = VideoGrid(x0, num_videos=4, max_side=1920)
    for _ in range(4):
        grid.add([x0])
    (frame,) = grid.frames()
    assert frame.shape[1] == 1920
    assert frame.shape[0] > 1500  # three rows of two


def test_a_short_video_stays_at_its_last_frame_and_a_long_one_is_cut() -> None:
    grid = VideoGrid(plain(0, 16, 16), num_videos=2, gap=2)  # one below the other
    grid.add([plain(t, 48, 32) for t in range(2)], num_frames=4)
    grid.add([plain(100 + t, 16, 16) for t in range(9)], num_frames=4)
    frames = list(grid.frames())
    assert [int(frame[18, 0, 0]) for frame in frames] == [0, 1, 1, 1]
    assert [int(frame[36, 0, 0]) for frame in frames] == [100, 101, 102, 103]


def test_more_videos_than_fit_are_refused() -> None:
    with pytest.raises(UserError, match="does not fit 16 pixels: ask for fewer"):
        VideoGrid(plain(0, 16, 16), num_videos=20, max_side=16)


def test_short_rows_are_filled_with_grey() -> None:
    tiled = tile([[plain(1, 4, 6)] * 2, [plain(2, 4, 6)]], gap=1)
    assert tiled.shape == (9, 13, 3)
    assert (tiled[5:, :6] == 2).all()
    assert (tiled[5:, 6:] == 128).all()


def test_the_examples_run() -> None:
    assert doctest.testmod(grids).failed == 0


def test_frames_that_are_watched_pass_and_make_the_grid() -> None:
    grid = VideoGrid(plain(0, 16, 16), num_videos=1)
    frames = [plain(50, 16, 16), plain(90, 16, 16)]
    watched = list(grid.watch(frames))
    assert np.array_equal(watched, frames)
    other = VideoGrid(plain(0, 16, 16), num_videos=1)
    other.add(frames)
    assert np.array_equal(list(grid.frames()), list(other.frames()))
