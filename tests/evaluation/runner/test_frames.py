"""PSNR, SSIM and diversity against torchmetrics, sums over pairs, and known values."""

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from cinnema.backbones.lpips import LPIPS
from cinnema.evaluation.metrics.diversity import spread, vgg_spread
from cinnema.evaluation.metrics.quality import psnr, ssim


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 32, 40, generator=generator) * 2 - 1
    noise = 0.2 * torch.randn(x.shape, generator=generator)
    return x, (x + noise).clamp(-1, 1)


def test_psnr_and_ssim_are_those_of_torchmetrics(pair: tuple[Tensor, Tensor]) -> None:
    x, y = pair
    a, b = (x + 1) / 2, (y + 1) / 2
    theirs = peak_signal_noise_ratio(a, b, data_range=1.0, reduction=None, dim=(1, 2, 3))
    torch.testing.assert_close(psnr(x, y), theirs)
    _, places = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    inside = places[..., 5:-5, 5:-5]  # theirs reflects the frame beyond its edges
    torch.testing.assert_close(ssim(x, y), inside.mean(dim=(1, 2, 3)), atol=1e-5, rtol=0)


def test_equal_frames_are_as_near_as_can_be(pair: tuple[Tensor, Tensor]) -> None:
    x, _ = pair
    assert psnr(x, x).tolist() == [100.0] * 3
    torch.testing.assert_close(ssim(x, x), torch.ones(3))


def test_every_frame_is_compared_alone(pair: tuple[Tensor, Tensor]) -> None:
    x, y = pair
    for measure in (psnr, ssim):
        alone = torch.cat([measure(x[i : i + 1], y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(measure(x, y), alone)


def test_spread_is_the_mean_over_ordered_pairs() -> None:
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    pairs = [
        float((features[i] - features[j]).square().mean())
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    assert spread(features) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


def test_futures_that_are_one_have_no_spread() -> None:
    vgg = LPIPS("vgg").eval()
    videos = torch.rand(1, 2, 3, 16, 16).expand(3, -1, -1, -1, -1)
    assert vgg_spread(vgg, videos, size=32) == pytest.approx(0, abs=1e-10)
    other = torch.rand(3, 2, 3, 16, 16)
    assert vgg_spread(vgg, other, size=32) > 1e-6
