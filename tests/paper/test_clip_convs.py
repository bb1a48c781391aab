"""Convolutions of clips with constant weights are those of torch, in fewer multiplications."""

import doctest

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cinnema.paper import clip_convs
from cinnema.paper.clip_convs import DirectConv, WinogradConv, minimal_filtering, phase_filters

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
