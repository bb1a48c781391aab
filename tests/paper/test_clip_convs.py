"""Convolutions of clips with constant weights are those of torch, in fewer multiplications."""

import doctest

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cinnema.paper import clip_convs
from cinnema.paper.clip_convs import (
    DirectConv,
    WinogradConv,
    convolve_doubled,
    doubling_filters,
    minimal_filtering,
    phase_filters,
)

LENGTHS = [1, 2, 3, 4, 6, 8, 16]


def clip_and_weight(length: int, *, rows: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(rows, 5, length, 6, 7, generator=generator)
    return x, torch.randn(4, 5, 3, 3, 3, generator=generator)


@pytest.mark.parametrize("kind", [DirectConv, WinogradConv])
@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_filters_of_each_phase_convolve_a_clip_whose_frames_are_repeated(
    kind: type[DirectConv] | type[WinogradConv], factor: int, length: int
) -> None:
    x, weight = clip_and_weight(length)
    expected = functional.conv3d(x.repeat_interleave(factor, dim=2), weight, padding=1)
    found = kind(phase_filters(weight, factor=factor), length=length)(x)
    # Errors of F(8, 3) are 1e-5 of the standard deviation of the results, which is 12 here.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_fewer_multiplications_cost_little_precision_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 16, 8, 8, generator=generator).bfloat16()
    weight = torch.randn(32, 64, 3, 3, 3, generator=generator) / 40
    expected = functional.conv3d(x.float(), weight, padding=1)
    direct, filtered = (
        (kind([weight], length=16, dtype=torch.bfloat16)(x) - expected).square().mean()
        / expected.var()
        for kind in (DirectConv, WinogradConv)
    )
    # Shares of the variance: errors of 0.2 % and of 1 %.
    assert 0 < direct < 1e-5
    assert direct < filtered < 1.5e-4


@pytest.mark.parametrize("length", LENGTHS)
def test_a_doubled_clip_has_the_result_and_the_gradients_of_repeated_frames(length: int) -> None:
    found, expected = [], []
    for results, is_doubled in ((found, True), (expected, False)):
        x, weight = (a.double().requires_grad_(True) for a in clip_and_weight(length))
        bias = torch.arange(4.0, dtype=torch.float64, requires_grad=True)
        if is_doubled:
            y = convolve_doubled(x, *doubling_filters(weight), bias)
        else:
            y = functional.conv3d(x.repeat_interleave(2, dim=2), weight, bias, padding=1)
        results += [y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_clip_in_the_format_channels_last_gives_the_same() -> None:
    x, weight = clip_and_weight(8)
    for conv in (DirectConv([weight], length=8), WinogradConv([weight], length=8)):
        found = conv(x.contiguous(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(found, conv(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_results", range(1, 9))
def test_minimal_filtering_is_exact_in_double_precision(num_results: int) -> None:
    generator = torch.Generator().manual_seed(0)
    frames, taps, results = minimal_filtering(num_results)
    d = torch.randn(num_results + 2, generator=generator, dtype=torch.float64)
    g = torch.randn(3, generator=generator, dtype=torch.float64)
    expected = d.unfold(0, 3, 1) @ g
    torch.testing.assert_close(results @ ((taps @ g) * (frames @ d)), expected)


def test_direct_convolutions_leave_out_taps_that_are_zero() -> None:
    _, weight = clip_and_weight(4)
    even, odd = (
        part.shape[2] for part, *_ in DirectConv(phase_filters(weight, factor=2), length=4)._parts
    )
    assert (even, odd) == (2, 2)


def test_examples_run() -> None:
    assert doctest.testmod(clip_convs, extraglobs={"torch": torch}).failed == 0
