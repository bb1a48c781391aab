"""What stage 1 is trained to do."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cinnema.training.losses import (
    mask_loss,
    motion_loss,
    random_windows,
    relative_flow_error,
    roughness,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_no_motion_has_a_relative_error_of_one() -> None:
    flow = 0.1 * noise(3, 2, 4, 8, 8)
    assert relative_flow_error(torch.zeros_like(flow), flow) == pytest.approx(1.0)
    assert relative_flow_error(flow, flow) == 0
    assert relative_flow_error(flow / 2, flow) == pytest.approx(0.5)
    assert relative_flow_error(flow, torch.zeros_like(flow)) > 1e6


def test_fast_clips_do_not_drown_slow_ones() -> None:
    slow, fast = torch.full((1, 2, 4, 8, 8), 0.05), torch.full((1, 2, 4, 8, 8), 0.5)
    loss = motion_loss(torch.zeros_like(slow), slow), motion_loss(torch.zeros_like(fast), fast)
    assert loss[0].item() == pytest.approx(0.05 / 0.06)
    assert loss[1].item() == pytest.approx(0.5 / 0.51)
    both = motion_loss(torch.zeros(2, 2, 4, 8, 8), torch.cat([slow, fast]))
    assert both.item() == pytest.approx((loss[0] + loss[1]).item() / 2)


def test_still_clips_are_no_division_by_zero() -> None:
    still = torch.zeros(1, 2, 4, 8, 8)
    assert motion_loss(still, still) == 0
    assert torch.isfinite(motion_loss(still + 0.01, still))


def test_the_mask_is_told_only_where_the_flow_tells() -> None:
    logits, moving = noise(2, 1, 16, 16), (noise(2, 8, 8, seed=1) > 0).float()
    known = torch.zeros(2, 8, 8)
    assert mask_loss(logits, moving, known) == 0
    known[:, :, :4] = 1
    other = logits.clone()
    other[..., 8:] = 100
    assert mask_loss(logits, moving, known) == mask_loss(other, moving, known)
    small = functional.avg_pool2d(logits, 2)[:, 0, :, :4]
    expected = functional.binary_cross_entropy_with_logits(small, moving[..., :4])
    torch.testing.assert_close(mask_loss(logits, moving, known), expected)


def test_a_plane_is_not_rough() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    plane = (0.3 * x - 0.2 * y + 1).expand(1, 2, 2, 8, 8)
    assert roughness(plane) < 1e-6
    bent = (x.square() / 2).expand(1, 2, 2, 8, 8)
    assert roughness(bent).item() == pytest.approx(1.0)
    assert roughness(bent.mT).item() == pytest.approx(1.0)


def test_windows_are_cut_at_the_same_place() -> None:
    a = noise(2, 3, 32, 40)
    generator = torch.Generator().manual_seed(0)
    places = set()
    for _ in range(8):
        window, same = random_windows(a, 2 * a, size=16, generator=generator)
        assert window.shape == (2, 3, 16, 16)
        assert torch.equal(same, 2 * window)
        places.add(float(window[0, 0, 0, 0]))
    assert len(places) > 3


@pytest.mark.parametrize("size", [24, 40])
def test_pictures_no_larger_than_the_window_come_back_whole(size: int) -> None:
    a = noise(1, 3, 24, 32)
    window, _ = random_windows(a, a, size=size, generator=torch.Generator())
    assert window is a
