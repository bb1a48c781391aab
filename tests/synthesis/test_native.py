"""Frames at the photograph's own size."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.layers import warp
from cinnema.models.warping.rendering import cut
from cinnema.synthesis.native import NativeRenderer, fill_plate, refine_mask

Photographs = Callable[[int, int], np.ndarray]
EVERYWHERE = np.ones((64, 64), np.float32)


def random_flow(scale: float, *, seed: int = 0) -> torch.Tensor:
    flow = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(flow, 5, stride=1, padding=2) * (5 * scale)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 17 + y / 23), np.cos(x / 19), np.sin(y / 29 - x / 31)]
    return (128 + 100 * np.stack(waves, axis=-1)).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("scale", "size"),
    [(0.0, (90, 150)), (0.01, (90, 150)), (0.1, (90, 150)), (1.0, (90, 150)), (5.0, (90, 150)),
     (0.1, (600, 500))],  # of two strips
)  # fmt: skip
def test_warping_is_that_of_stage_1(scale: float, size: tuple[int, int]) -> None:
    pixels, flow = smooth(*size), random_flow(scale)
    frame = NativeRenderer(pixels, EVERYWHERE).frame(flow)
    expected = to_pixels(warp(to_tensor(pixels)[None], flow)[0])
    # Stage 1 looks up linearly: of waves this fine that is two levels from the cubic look-up.
    assert np.abs(frame.astype(int) - expected).max() <= 2


def test_a_shift_by_half_a_pixel_keeps_the_contrast_of_fine_texture() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 196, (90, 150, 3)).astype(np.uint8)
    half = torch.full((1, 2, 16, 16), 0.0)
    half[:, 0] = 0.5 / 150
    frame = NativeRenderer(pixels, EVERYWHERE).frame(half)
    linear = to_pixels(warp(to_tensor(pixels)[None], half)[0])
    assert linear.std() < 0.75 * pixels.std() < 0.99 * frame.std()


def test_painting_is_enlarged_and_added(photograph: Photographs) -> None:
    pixels = photograph(90, 150)
    coarse = 0.1 * torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    painted = torch.nn.functional.interpolate(coarse, (128, 128), mode="bicubic")
    still = np.zeros((64, 64), np.float32)
    frame = NativeRenderer(pixels, still).frame(torch.zeros(1, 2, 16, 16), painted)
    large = torch.nn.functional.interpolate(painted, (90, 150), mode="bilinear")
    assert np.abs(frame.astype(int) - to_pixels(to_tensor(pixels) + large[0])).max() <= 1


def test_single_pixels_of_the_painting_do_not_show_as_a_grid(photograph: Photographs) -> None:
    pixels = photograph(256, 256)
    dots = torch.zeros(1, 3, 128, 128)
    dots[..., ::2, ::2] = 0.2
    still = np.zeros((64, 64), np.float32)
    frame = NativeRenderer(pixels, still).frame(torch.zeros(1, 2, 16, 16), dots)
    painted = frame.astype(int) - pixels
    assert painted.mean() > 0
    assert painted[16:-16, 16:-16].std() < 2


def test_a_refined_mask_ends_where_the_photograph_does() -> None:
    pixels = np.full((360, 640, 3), 220, np.uint8)
    skyline = 200 + (8 * np.sign(np.sin(np.arange(640) / 40))).astype(int)  # steps of 16 px
    below = np.arange(360)[:, None] >= skyline
    pixels[below] = 40
    coarse = np.zeros((64, 64), np.float32)
    coarse[:36] = 1  # straight, at row 202
    refined = refine_mask(coarse, pixels)
    rows, columns = np.arange(360)[:, None], np.arange(640)
    straight = np.broadcast_to(np.clip((205 - rows) / 6, 0, 1), refined.shape)
    for mask, least, most in ((refined, 0.3, 1.0), (straight, 0.0, 0.1)):
        step = mask[skyline - 3, columns] - mask[skyline + 2, columns]
        assert least <= step.mean() <= most
    assert np.abs(refined - ~below).mean() < 0.9 * np.abs(straight - ~below).mean()
    assert refined.min() == 0
    assert refined.max() == 1


def test_a_flat_photograph_keeps_the_mask() -> None:
    refined = refine_mask(np.full((64, 64), 0.5, np.float32), np.full((50, 70, 3), 99, np.uint8))
    np.testing.assert_allclose(refined, 0.5, atol=1e-4)


def test_large_photographs_are_filled_as_small_ones(photograph: Photographs) -> None:
    height, width = 960, 1280
    pixels = photograph(height, width)
    moving = np.zeros((height, width), np.float32)
    moving[:640] = 1
    layers = cut(to_tensor(pixels)[None], torch.from_numpy(moving)[None, None])
    plate, expected = fill_plate(pixels, moving), to_pixels(layers.plate[0])
    assert np.array_equal(plate[:640], pixels[:640])
    hidden = np.abs(plate[656:].astype(int) - expected[656:])
    was_there = np.abs(pixels[656:].astype(int) - expected[656:])
    assert hidden.mean() < 0.2 * was_there.mean()
