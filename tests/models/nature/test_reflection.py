"""Which water mirrors the sky, where, and what a change of the sky does to it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cinnema.media.pictures import to_tensor
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.model import KIND_DIM, Z_DIM
from cinnema.models.nature.reflection import Reflection, find_reflection, mirrors, reflected
from small_nature import nature_model, textured

Photographs = Callable[[int, int], np.ndarray]

SKY, WATER = KINDS.index("sky"), KINDS.index("water")


def shared(rows: int, *, size: int = 128) -> Tensor:
    """Return shares of the kinds in a picture of sky above water."""
    alphas = torch.zeros(len(KINDS), size, size)
    alphas[SKY, :rows], alphas[WATER, rows:] = 1, 1
    return alphas


def mirrored_about(row: int, strength: float, *, size: int = 128) -> Tensor:
    """Return clouds and their reflection about a row, in [-1, 1]."""
    sky = to_tensor(textured("sky", (size, size), seed=3, contrast=24, cells=8))
    picture = to_tensor(textured("water", (size, size), seed=1, contrast=2))
    below = torch.arange(row, size)
    away = sky - sky.mean((1, 2), keepdim=True)
    picture[:, below] += strength * away[:, (2 * row - 1 - below).clamp_min(0)]
    picture[:, :row] = sky[:, :row]
    return picture.clamp(-1, 1)


@pytest.mark.parametrize("size", [128, 192])
@pytest.mark.parametrize(("row", "strength"), [(64, 0.7), (76, 0.4)])
def test_the_axis_and_the_strength_of_a_mirror_image_are_found(
    row: int, strength: float, size: int
) -> None:
    row = row * size // 128
    picture = mirrored_about(row, strength, size=size)
    found = find_reflection(picture, shared(row, size=size))
    assert found is not None
    assert abs(found.axis - row / size) < 0.01
    assert abs(found.strength - 0.6 * strength) < 0.05  # ripples take the rest


def rough(picture: Tensor) -> Tensor:
    """Give the water a texture of its own."""
    picture[:, 64:] = to_tensor(textured("water", (128, 128), seed=7, contrast=18, cells=8))[:, 64:]
    return picture


def plain(picture: Tensor) -> Tensor:
    """Take the clouds away."""
    picture[:, :64] = picture[:, :64].mean((1, 2), keepdim=True)
    return picture


def moved(picture: Tensor) -> Tensor:
    """Move the water's colours aside."""
    picture[:, 64:] = picture[:, 64:].roll(32, dims=2)
    return picture


def glaring(picture: Tensor) -> Tensor:
    """Let the sky vary less than the water."""
    centre = picture[:, :64].mean((1, 2), keepdim=True)
    picture[:, :64] = centre + 0.5 * (picture[:, :64] - centre)
    return picture


@pytest.mark.parametrize("change", [rough, plain, moved, glaring])
def test_water_whose_colours_are_not_those_above_it_mirrors_nothing(
    change: Callable[[Tensor], Tensor],
) -> None:
    assert find_reflection(change(mirrored_about(64, 0.8)), shared(64)) is None


@pytest.mark.parametrize("rows", [0, 122, 128])
def test_without_sky_or_water_there_is_no_reflection(rows: int) -> None:
    assert find_reflection(mirrored_about(64, 0.7), shared(rows)) is None


def test_a_mirrored_cloud_is_as_far_below_the_axis_and_longer_along_the_vertical() -> None:
    change = torch.zeros(1, 1, 96, 128)
    change[..., 20:24, 60:68] = 1.0
    mirror = mirrors([Reflection(axis=0.5, strength=0.6)], 96)
    assert mirror is not None
    shown = reflected(mirror, change)[0, 0]
    torch.testing.assert_close(shown.sum(), 0.6 * change.sum(), rtol=0.02, atol=0)
    weight = shown / shown.sum()
    y = torch.arange(96) + 0.5
    x = torch.arange(128) + 0.5
    height, width = (weight.sum(1) * y).sum(), (weight.sum(0) * x).sum()
    torch.testing.assert_close((height, width), (torch.tensor(74.0), torch.tensor(64.0)))
    tall = (weight.sum(1) * (y - height).square()).sum().sqrt() / 96
    wide = (weight.sum(0) * (x - width).square()).sum().sqrt() / 128
    assert tall > 1.2 * wide


def test_what_is_below_the_axis_or_above_the_picture_is_not_mirrored() -> None:
    mirror = mirrors([Reflection(axis=0.4, strength=1.0)], 100)
    assert mirror is not None
    below = torch.zeros(1, 1, 100, 8)
    below[:, :, 40:] = 1
    assert float(reflected(mirror, below).max()) < 1e-5
    everywhere = reflected(mirror, torch.ones(1, 1, 100, 8))
    assert float(everywhere[..., 55:65, :].min()) > 0.99
    assert float(everywhere[..., 95:, :].max()) < 0.01


def test_photographs_without_a_reflection_have_none_beside_one_that_has() -> None:
    assert mirrors([None, None], 16) is None
    both = mirrors([None, Reflection(axis=0.5, strength=0.5)], 16)
    assert both is not None
    assert not bool(both[0].any())
    assert bool(both[1].any())


def test_reflections_change_the_water_of_a_lake_and_nothing_else(
    lake: Photographs, coast: Photographs
) -> None:
    model = nature_model()
    torch.manual_seed(0)
    z = 0.1 * torch.randn(2, Z_DIM)
    x0 = torch.stack([to_tensor(make(128, 128)) for make in (lake, coast)])
    layers = model.layers(x0)
    (water,) = (layer for layer in layers if layer.kind == WATER)
    assert water.mirror is not None
    without = [replace(layer, mirror=None) for layer in layers]
    change = model.move(x0, layers, z) - model.move(x0, without, z)
    assert not bool(change[1].any())  # the coast
    assert not bool(change[0][(water.alpha[0] == 0).expand_as(change[0])].any())
    assert float(change[0, :, :, 70:].abs().mean()) > 0.01


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_the_water_has_a_gradient_to_the_motion_of_the_sky(lake: Photographs) -> None:
    model = nature_model()
    z = torch.zeros(1, Z_DIM, requires_grad=True)
    frames = model.decode(to_tensor(lake(128, 128))[None], z)
    (slope,) = torch.autograd.grad(frames[:, 8, :, 80:].square().mean(), z)
    assert bool(slope[0, SKY * KIND_DIM : (SKY + 1) * KIND_DIM].any())
