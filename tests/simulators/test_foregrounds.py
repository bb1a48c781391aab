"""What stands still under a sky: from photographs and from noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.simulators.sky.foregrounds import (
    Daylight,
    Foreground,
    draw_foreground,
    read_foregrounds,
)
from cinnema.simulators.sky.tiles import Draws, blur_levels, blur_of, pixel_centres, sample_tile

seeds = st.integers(0, 10_000)


def draw(seed: int, *, size: int = 32, red: bool = False) -> Foreground:
    light = Daylight(ambient=torch.ones(3, 1, 1), haze=torch.full((3, 1, 1), 0.8), is_low=False)
    textures = torch.zeros(2, 3, 24, 24, dtype=torch.uint8)
    textures[:, 0] = 200
    draws = Draws(torch.Generator().manual_seed(seed))
    return draw_foreground(draws, size=size, light=light, textures=textures if red else None)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_foregrounds_stay_in_their_range(seed: int) -> None:
    foreground = draw(seed)
    assert foreground.picture.shape == (3, 32, 32)
    for values in (foreground.picture, foreground.coverage):
        assert 0 <= values.min() <= values.max() <= 1
    assert 0.4 < foreground.horizon <= 1.4


def test_most_foregrounds_are_below_the_sky_and_some_hide_none_or_all_of_it() -> None:
    foregrounds = [draw(seed) for seed in range(60)]
    shares = torch.stack([f.coverage.mean() for f in foregrounds])
    assert (shares == 0).sum() > 1
    assert (shares == 1).sum() > 1
    partly = [f for f in foregrounds if 0 < f.coverage.mean() < 1]
    assert len(partly) > 40
    assert all(f.coverage[-6:].mean() > f.coverage[:6].mean() for f in partly if not f.waterline)


def test_lakes_mirror_the_land() -> None:
    lakes = [f for f in map(draw, range(80)) if f.waterline is not None]
    assert len(lakes) > 5
    for lake in lakes:
        line = round(lake.waterline * 32)
        above, below = lake.coverage[line - 4 : line].flip(0), lake.coverage[line : line + 4]
        assert (above - below).abs().mean() < 0.25


def test_grounds_are_cut_from_pictures_where_there_are_some() -> None:
    pictures = [draw(seed, red=True).picture for seed in range(40)]
    is_red = [bool((p[1:] == 0).all() and p[0].max() > 0.1) for p in pictures]
    assert 16 <= sum(is_red) <= 36


def test_foregrounds_are_squares_of_photographs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    squares = read_foregrounds(tmp_path, side=32, each=3)
    assert (squares.shape, squares.dtype) == ((6, 3, 32, 32), torch.uint8)
    assert torch.equal(squares, read_foregrounds(tmp_path, side=32, each=3))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        read_foregrounds(tmp_path / "empty", side=32)


def test_tiles_are_periodic_and_sampled_between_texels_and_levels() -> None:
    tile = Draws(torch.Generator().manual_seed(0)).tile(exponent=1.5)
    assert float(tile.mean()) == pytest.approx(0.5, abs=1e-4)
    assert float(tile.std()) == pytest.approx(0.25, abs=1e-3)
    levels, at = blur_levels(tile), pixel_centres(16)
    sharp = torch.zeros(16, 16)
    torch.testing.assert_close(
        sample_tile(levels, at, blur=sharp),
        sample_tile(levels, at + torch.tensor([2.0, -3.0])[:, None, None], blur=sharp),
        atol=1e-3,
        rtol=0,
    )
    first, between, second = (sample_tile(levels, at, blur=sharp + b) for b in (1.0, 1.5, 2.0))
    torch.testing.assert_close(between, (first + second) / 2)
    spreads = [float(level.std()) for level in levels]
    assert spreads == sorted(spreads, reverse=True)


def test_blur_follows_the_distance_between_samples() -> None:
    at = pixel_centres(64)
    levels = [float(blur_of(at * scale).mean()) for scale in (0.25, 1.0, 4.0)]
    assert levels == pytest.approx([0.0, 1.0, 2.0], abs=1e-3)  # 1, 4 and 16 texels a pixel
