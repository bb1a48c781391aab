"""Frechet distances against scipy, closed forms, and themselves in other orders."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from cinnema.core.errors import UserError
from cinnema.evaluation.statistics.distances import (
    GaussianStatistics,
    extrapolate,
    frechet_distance,
)


def rows(n: int, d: int, seed: int, *, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + shift


def gathered(x: Tensor, *, batch: int | None = None) -> GaussianStatistics:
    statistics = GaussianStatistics(x.shape[1])
    for part in x.split(batch or len(x)):
        statistics.add(part)
    return statistics


def by_scipy(x: Tensor, y: Tensor) -> float:
    (m1, s1), (m2, s2) = ((v.numpy().mean(0), np.cov(v.numpy(), rowvar=False)) for v in (x, y))
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * root.real))


def test_the_distance_is_that_of_scipys_matrix_root() -> None:
    x, y = rows(200, 12, 0), rows(150, 12, 1, shift=0.7)
    assert frechet_distance(gathered(x), gathered(y)) == pytest.approx(by_scipy(x, y), rel=1e-9)


def test_the_distance_is_that_of_torchmetrics() -> None:
    x, y = rows(200, 12, 2), rows(150, 12, 3, shift=0.7)
    theirs = _compute_fid(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance(gathered(x), gathered(y)) == pytest.approx(float(theirs), rel=1e-6)


def test_it_is_stable_with_fewer_clips_than_dimensions() -> None:
    x, y = rows(10, 64, 4), rows(12, 64, 5)
    value = frechet_distance(gathered(x), gathered(y))
    assert np.isfinite(value)
    assert value == pytest.approx(frechet_distance(gathered(y), gathered(x)), rel=1e-9)
    assert frechet_distance(gathered(x), gathered(x)) == pytest.approx(0, abs=1e-6 * value)


def test_constant_sets_are_apart_by_the_square_of_their_difference() -> None:
    x, y = torch.zeros(4, 3), torch.full((4, 3), 2.0)
    assert frechet_distance(gathered(x), gathered(y)) == pytest.approx(12.0)


def test_of_diagonal_gaussians_it_is_the_closed_form() -> None:
    x, y = GaussianStatistics(2), GaussianStatistics(2)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    x.add(corners * torch.tensor([1.0, 2.0]))
    y.add(corners * torch.tensor([3.0, 2.0]) + torch.tensor([0.0, 1.0]))
    # Standard deviations sqrt(4/3) (1, 2) and sqrt(4/3) (3, 2), means 1 apart.
    assert frechet_distance(x, y) == pytest.approx(1 + 4 / 3 * 4)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 40), cut=st.integers(1, 39))
def test_batches_and_processes_change_nothing(batch: int, cut: int) -> None:
    x = rows(40, 5, 6, shift=1e3)
    one, other = gathered(x[:cut], batch=batch), gathered(x[cut:])
    one.merge(other)
    whole = gathered(x)
    torch.testing.assert_close(one.mean, whole.mean)
    torch.testing.assert_close(one.covariance, whole.covariance, rtol=1e-8, atol=1e-8)


def test_a_weight_of_two_is_a_row_twice() -> None:
    x = rows(6, 3, 7)
    weighted = GaussianStatistics(3)
    weighted.add(x, torch.tensor([2.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
    twice = gathered(x[[0, 0, 1, 3, 4, 5]])
    torch.testing.assert_close(weighted.covariance, twice.covariance)


def test_one_clip_is_too_few() -> None:
    x = gathered(rows(5, 3, 8))
    with pytest.raises(UserError, match="at least 2 clips"):
        frechet_distance(x, gathered(torch.zeros(1, 3)))
    with pytest.raises(UserError, match="3 and of 4"):
        frechet_distance(x, gathered(torch.zeros(2, 4)))


def test_a_straight_line_is_extrapolated_to_its_end() -> None:
    counts = [50.0, 100.0, 200.0]
    assert extrapolate(counts, [3 + 7 / n for n in counts]).value == pytest.approx(3)
    assert np.isnan(extrapolate([10.0, 20.0], [1.0, 2.0]).value)
