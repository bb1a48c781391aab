"""Warping along a backward flow, and filling what a layer hides."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cinnema.backbones.optical_flow import backward_flow
from cinnema.models import layers
from cinnema.models.layers import fill, warp


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def constant_flow(x: float, y: float, like: Tensor) -> Tensor:
    """A flow in pixels of a picture, as shares of its width and height."""
    height, width = like.shape[-2:]
    shares = torch.tensor([x / width, y / height], dtype=like.dtype).view(1, 2, 1, 1)
    return shares.expand(len(like), 2, height, width)


@settings(max_examples=20, deadline=None)
@given(st.integers(-6, 6), st.integers(-6, 6))
def test_a_whole_pixel_flow_gives_a_shifted_copy(dx: int, dy: int) -> None:
    picture = noise(2, 3, 20, 28)
    warped = warp(picture, constant_flow(-dx, -dy, picture))  # so the content goes by (dx, dy)
    shifted = picture.roll((dy, dx), dims=(2, 3))
    inner = (..., slice(6, -6), slice(6, -6))
    torch.testing.assert_close(warped[inner], shifted[inner], atol=1e-4, rtol=0)


def test_zero_flow_is_the_identity() -> None:
    picture = noise(1, 3, 45, 80)
    torch.testing.assert_close(warp(picture, torch.zeros(1, 2, 16, 16)), picture, atol=1e-4, rtol=0)


def test_the_sign_is_that_of_optical_flow() -> None:
    y, x = np.mgrid[:64, :64]
    wave = np.sin(x / 5) + np.sin((x + 2 * y) / 7) + np.cos(y / 6)
    first = np.repeat((128 + 40 * wave).astype(np.uint8)[..., None], 3, axis=-1)
    frames = np.stack([first, np.roll(first, (2, 3), axis=(0, 1))])
    pixels = backward_flow(frames, size=(64, 64))[0]
    flow = torch.from_numpy(pixels / 64).permute(2, 0, 1)[None]
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    inner = (..., slice(10, -10), slice(10, -10))
    error = (warp(pictures[:1], flow) - pictures[1:])[inner].abs().mean()
    assert error < 0.1 * (pictures[0] - pictures[1])[inner].abs().mean()
    assert error < 0.1 * (warp(pictures[:1], -flow) - pictures[1:])[inner].abs().mean()


def test_the_picture_goes_on_mirrored_beyond_its_edges() -> None:
    picture = noise(1, 1, 8, 8)
    warped = warp(picture, constant_flow(-3, 0, picture))
    torch.testing.assert_close(warped[..., :3], picture[..., :3].flip(-1), atol=1e-5, rtol=0)


def test_a_coarse_flow_is_brought_to_the_size_of_the_picture() -> None:
    picture = noise(1, 3, 48, 96)
    coarse = torch.tensor([-1 / 12, 1 / 16]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    fine = constant_flow(-8, 3, picture)
    torch.testing.assert_close(warp(picture, coarse), warp(picture, fine), atol=1e-4, rtol=0)


def test_a_rounded_picture_is_warped_to_the_right_place() -> None:
    picture = noise(1, 1, 16, 1024)
    flow = constant_flow(-5, 0, picture)
    exact = warp(picture, flow)
    rounded = warp(picture.bfloat16(), flow.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.03, rtol=0)


def test_warping_has_the_gradient_of_its_formula() -> None:
    picture = noise(1, 1, 5, 6, dtype=torch.float64).requires_grad_()
    flow = (0.2 * noise(1, 2, 5, 6, seed=1, dtype=torch.float64) + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(warp, (picture, flow))


def test_filling_leaves_what_is_seen() -> None:
    picture = noise(2, 3, 33, 50)
    weight = (noise(2, 1, 33, 50, seed=1) > 0.6).float()
    filled = fill(picture, weight)
    is_seen = weight.expand_as(picture) == 1
    assert torch.equal(filled[is_seen], picture[is_seen])
    assert torch.equal(fill(picture, torch.ones_like(weight)), picture)


def test_what_is_hidden_does_not_show() -> None:
    picture, weight = noise(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    weight[..., 20:, :] = 0
    other = picture.clone()
    other[..., 20:, :] = -100
    assert torch.equal(fill(picture, weight), fill(other, weight))


@pytest.mark.parametrize("size", [(32, 32), (45, 80), (128, 128), (33, 200)])
def test_the_hidden_is_filled_from_around(size: tuple[int, int]) -> None:
    height, width = size
    picture = torch.full((1, 1, height, width), 0.25)
    picture[..., width // 2 :] = 0.75
    weight = torch.zeros(1, 1, height, width)
    weight[..., : width // 6], weight[..., -width // 6 :] = 1, 1
    filled = fill(picture * weight + 9 * (1 - weight), weight)
    assert 0.25 - 1e-5 <= filled.min() <= filled.max() <= 0.75 + 1e-5
    columns = filled.mean(dim=(0, 1, 2))
    assert columns[width // 4] < columns[3 * width // 4]  # each side from its own neighbours


def test_a_single_seen_pixel_speaks_for_all() -> None:
    picture, weight = noise(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    weight[..., 10, 20] = 1
    filled = fill(picture, weight)
    torch.testing.assert_close(filled, picture[..., 10:11, 20:21].expand_as(filled))


def test_what_nobody_sees_is_filled_with_grey() -> None:
    picture = noise(1, 3, 40, 40).requires_grad_()
    filled = fill(picture, torch.zeros(1, 1, 40, 40))
    assert (filled == 0).all()
    filled.sum().backward()
    assert torch.isfinite(picture.grad).all()


def test_the_examples_run() -> None:
    assert doctest.testmod(layers).failed == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_flow_that_is_not_finite_shows_and_can_be_differentiated(value: float) -> None:
    flow = torch.zeros(1, 2, 8, 8)
    flow[0, 0, 3, 3] = value
    flow.requires_grad_()
    picture = torch.rand(1, 3, 8, 8)
    warped = warp(picture, flow)
    assert warped.isnan().any()
    warped.sum().backward()
