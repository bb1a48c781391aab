"""Layers, what moves and what stays, and the painter."""

import pytest
import torch
from torch import Tensor

from cinnema.models.warping.rendering import MaskHead, Painter, cut


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def half_moving(size: int) -> Tensor:
    """A mask of the upper half."""
    moving = torch.zeros(1, 1, size, size)
    moving[..., : size // 2, :] = 1
    return moving


def test_still_pixels_stay_exactly() -> None:
    x0, moving = noise(1, 3, 64, 64), half_moving(64)
    frame = cut(x0, moving).composite(0.1 * noise(1, 2, 16, 16, seed=1))
    assert torch.equal(frame[..., 32:, :], x0[..., 32:, :])
    assert not torch.allclose(frame[..., :32, :], x0[..., :32, :], atol=0.1)


def test_without_motion_the_composite_is_the_picture() -> None:
    x0 = noise(2, 3, 48, 80)
    moving = noise(2, 1, 24, 40, seed=1).abs()
    layers = cut(x0, moving)
    still = layers.composite(torch.zeros(2, 2, 16, 16))
    moves = (layers.moving > 0.999) | (layers.moving < 0.001)
    difference = (still - x0).abs() * moves
    assert difference.max() < 1e-2
    everything = cut(x0, torch.ones(2, 1, 24, 40)).composite(torch.zeros(2, 2, 16, 16))
    torch.testing.assert_close(everything, x0, atol=1e-4, rtol=0)


def test_the_sky_behind_the_hills_is_sky() -> None:
    x0 = torch.full((1, 3, 64, 64), -0.8)  # dark hills
    x0[..., :32, :] = 0.5
    layers = cut(x0, half_moving(64))
    torch.testing.assert_close(layers.plate, torch.full_like(x0, 0.5), atol=1e-4, rtol=0)
    down = torch.zeros(1, 2, 16, 16)
    down[:, 1] = 0.25  # what is drawn comes from below, from behind the hills
    torch.testing.assert_close(layers.composite(down), x0, atol=1e-4, rtol=0)


def test_a_mask_of_any_resolution_is_brought_to_the_picture() -> None:
    layers = cut(noise(1, 3, 90, 160), half_moving(32))
    assert layers.moving.shape == (1, 1, 90, 160)
    assert (layers.moving[..., :40, :] == 1).all()
    assert (layers.moving[..., -40:, :] == 0).all()


def test_an_untrained_painter_adds_nothing() -> None:
    torch.manual_seed(0)
    painter, x0 = Painter(width=16), noise(2, 3, 64, 64)
    layers = cut(x0, torch.ones(2, 1, 32, 32))
    painted = painter(layers, noise(2, 3, 64, 64, seed=1), noise(2, 2, 16, 16, seed=2))
    assert painted.shape == x0.shape
    assert (painted == 0).all()


def test_a_painter_learns_from_its_first_step() -> None:
    torch.manual_seed(0)
    painter, x0 = Painter(width=16), noise(1, 3, 64, 64)
    layers = cut(x0, torch.ones(1, 1, 32, 32))
    painter(layers, x0, torch.zeros(1, 2, 16, 16)).sum().backward()
    assert painter.leave.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(64, 64), (72, 128)])
def test_the_mask_has_half_the_size_of_the_picture(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    height, width = size
    head = MaskHead(feature_dim=8, fine_dims=(5, 6), width=16)
    logits = head(
        noise(2, 8, height // 8, width // 8),
        (noise(2, 5, height // 2, width // 2), noise(2, 6, height // 4, width // 4)),
    )
    assert logits.shape == (2, 1, height // 2, width // 2)
