"""Random streams."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for


def draw(seed: int, sample: int) -> torch.Tensor:
    return torch.randn(1000, generator=generator_for(seed, sample), dtype=torch.float64)


@given(seed=st.integers(0, 2**100), sample=st.integers(0, 2**32 - 1))
def test_a_stream_is_repeatable_and_differs_from_its_neighbours(seed: int, sample: int) -> None:
    mine = draw(seed, sample)
    assert torch.equal(mine, draw(seed, sample))
    assert not torch.equal(mine, draw(seed, (sample + 1) % 2**32))
    assert not torch.equal(mine, draw(seed + 1, sample))


def test_streams_are_uncorrelated_and_standard_normal() -> None:
    x = torch.stack([draw(seed, sample) for seed in range(10) for sample in range(20)])
    correlation = torch.corrcoef(x).fill_diagonal_(0)
    assert correlation.abs().max() < 0.2  # 6 standard deviations
    assert x.mean().abs() < 0.01
    assert (x.std() - 1).abs() < 0.01


def test_the_global_stream_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw(1, 2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("seed", "sample"), [(-1, 0), (0, -1), (0, 2**32)])
def test_numbers_out_of_range_are_refused(seed: int, sample: int) -> None:
    with pytest.raises(UserError, match="must be"):
        generator_for(seed, sample)
