"""The baselines: against scipy, with few rows, and honest about what they have not seen."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.flow.priors import (
    GaussianPrior,
    LatentPrior,
    LinearGaussianPrior,
    shrunk_covariance,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def correlated(rows: int, z_dim: int, *, seed: int = 0) -> Tensor:
    return 2 + normal(rows, z_dim, seed=seed) @ normal(z_dim, z_dim, seed=99)


PRIORS = [GaussianPrior, LinearGaussianPrior]


def no_condition(z: Tensor) -> Tensor:
    return z[:, :0]


def test_the_gaussian_agrees_with_scipy() -> None:
    z = correlated(200, 4)
    prior = GaussianPrior.fit(z, no_condition(z))
    covariance = (prior.cholesky @ prior.cholesky.T).numpy()
    expected = multivariate_normal(prior.mean.numpy(), covariance).logpdf(z.numpy())
    np.testing.assert_allclose(prior.log_prob(z, no_condition(z)).numpy(), expected)


def test_with_many_rows_the_gaussian_has_their_mean_and_covariance() -> None:
    z = correlated(20000, 4)
    prior = GaussianPrior.fit(z, no_condition(z))
    np.testing.assert_allclose(prior.mean.numpy(), z.mean(dim=0).numpy())
    covariance = (prior.cholesky @ prior.cholesky.T).numpy()
    np.testing.assert_allclose(covariance, np.cov(z.T.numpy(), bias=True), rtol=0.01, atol=0.01)
    assert prior.shrinkage < 0.01


def test_shrinkage_is_the_published_formula_on_correlations() -> None:
    deviations = correlated(9, 5) - correlated(9, 5).mean(dim=0)
    covariance, rho = shrunk_covariance(deviations)
    s = np.cov(deviations.T.numpy(), bias=True)
    std = np.sqrt(np.diag(s))
    r, n, p = s / np.outer(std, std), 9, 5
    square, trace = np.trace(r @ r), np.trace(r) ** 2
    expected = ((1 - 2 / p) * square + trace) / ((n + 1 - 2 / p) * (square - trace / p))
    assert rho == pytest.approx(min(expected, 1))
    np.testing.assert_allclose(
        covariance.numpy(), np.outer(std, std) * ((1 - rho) * r + rho * np.eye(p))
    )


def test_shrinkage_predicts_new_rows_better_than_the_sample_covariance() -> None:
    train, new = correlated(25, 20), correlated(500, 20, seed=1)
    prior = GaussianPrior.fit(train, no_condition(train))
    sample = np.cov(train.T.numpy(), bias=True)
    naive = multivariate_normal(train.mean(dim=0).numpy(), sample).logpdf(new.numpy())
    assert prior.log_prob(new, no_condition(new)).mean() > naive.mean()


def test_the_linear_gaussian_finds_the_line_and_the_noise() -> None:
    c = 3 + normal(5000, 3)
    slope = normal(3, 2, seed=5)
    z = 1 + c @ slope + 0.5 * normal(5000, 2, seed=6)
    prior = LinearGaussianPrior.fit(z, c)
    torch.testing.assert_close(prior.weight, slope, atol=0.03, rtol=0)
    covariance = prior.residual.cholesky @ prior.residual.cholesky.T
    torch.testing.assert_close(covariance, 0.25 * torch.eye(2).double(), atol=0.02, rtol=0)


def test_the_linear_gaussian_agrees_with_scipy() -> None:
    c = normal(100, 3)
    z = correlated(100, 4) + c @ normal(3, 4, seed=7)
    prior = LinearGaussianPrior.fit(z, c)
    means = prior.sample(c, temperature=0.0).numpy()
    covariance = (prior.residual.cholesky @ prior.residual.cholesky.T).numpy()
    errors = z.numpy() - means
    expected = multivariate_normal(np.zeros(4), covariance).logpdf(errors)
    np.testing.assert_allclose(prior.log_prob(z, c).numpy(), expected)


@pytest.mark.parametrize("groups", [None, torch.arange(30) // 3])
def test_the_noise_is_that_of_fits_without_the_rows_they_predict(groups: Tensor | None) -> None:
    c, z = normal(30, 4), normal(30, 2, seed=1)
    prior = LinearGaussianPrior.fit(z, c, groups=groups)
    labels = torch.arange(30) if groups is None else groups
    scaled = (c - c.mean(dim=0)) / c.std(dim=0, correction=0)
    # The penalty of the closed form stays that of all rows; the mean is fitted and not shrunk.
    design = torch.cat([torch.ones(30, 1, dtype=torch.float64), scaled], dim=1)
    penalty = prior.penalty * 30 * torch.diag(torch.tensor([0.0, 1, 1, 1, 1]).double())
    errors = torch.empty_like(z)
    for group in labels.unique():
        out = labels == group
        rest = design[~out]
        weight = torch.linalg.solve(rest.T @ rest + penalty, rest.T @ z[~out])
        errors[out] = z[out] - design[out] @ weight
    expected, _ = shrunk_covariance(errors)
    covariance = prior.residual.cholesky @ prior.residual.cholesky.T
    torch.testing.assert_close(covariance, expected)


def test_a_condition_that_says_nothing_costs_the_linear_gaussian_little() -> None:
    z, c = correlated(60, 4), normal(60, 50, seed=8)
    new, new_c = correlated(1000, 4, seed=9), normal(1000, 50, seed=10)
    plain = GaussianPrior.fit(z, c).log_prob(new, new_c).mean()
    linear = LinearGaussianPrior.fit(z, c).log_prob(new, new_c).mean()
    assert linear > plain - 0.5


def test_a_condition_that_says_much_helps_the_linear_gaussian() -> None:
    slope = normal(50, 4, seed=11)
    c, new_c = normal(60, 50), normal(1000, 50, seed=12)
    z, new = c @ slope + normal(60, 4, seed=13), new_c @ slope + normal(1000, 4, seed=14)
    plain = GaussianPrior.fit(z, c).log_prob(new, new_c).mean()
    assert LinearGaussianPrior.fit(z, c).log_prob(new, new_c).mean() > plain + 1


def test_leaving_out_whole_sources_is_not_fooled_by_clips_of_one_video() -> None:
    video_c, video_z = normal(20, 15), normal(20, 3, seed=15)
    groups = torch.arange(20).repeat_interleave(10)
    c, z = video_c[groups] + 0.01 * normal(200, 15, seed=16), video_z[groups]
    z = z + 0.01 * normal(200, 3, seed=17)
    new_c, new = normal(500, 15, seed=18), normal(500, 3, seed=19)
    naive = LinearGaussianPrior.fit(z, c).log_prob(new, new_c).mean()
    careful = LinearGaussianPrior.fit(z, c, groups=groups).log_prob(new, new_c).mean()
    assert careful > naive + 1


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("rows", [2, 3, 8])
@pytest.mark.parametrize("c_dim", [0, 1, 20])
def test_fewer_rows_than_dimensions_still_give_a_density(
    kind: type[LatentPrior], rows: int, c_dim: int
) -> None:
    z, c = correlated(rows, 12), normal(rows, c_dim, seed=3)
    prior = kind.fit(z, c)
    new, new_c = correlated(50, 12, seed=4), normal(50, c_dim, seed=5)
    assert torch.isfinite(prior.log_prob(new, new_c)).all()
    assert torch.isfinite(prior.sample(new_c)).all()


@pytest.mark.parametrize("kind", PRIORS)
def test_constant_dimensions_and_conditions_still_give_a_density(kind: type[LatentPrior]) -> None:
    z, c = correlated(30, 3), normal(30, 2)
    z[:, 1], c[:, 0] = 4.0, 1.0
    prior = kind.fit(z, c)
    assert torch.isfinite(prior.log_prob(z, c)).all()


@pytest.mark.parametrize("kind", PRIORS)
def test_samples_have_the_moments_of_the_fit(kind: type[LatentPrior]) -> None:
    c = normal(500, 2)
    z = correlated(500, 3) + c @ normal(2, 3, seed=4)
    sample = kind.fit(z, c).sample(c.repeat(100, 1), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample.mean(dim=0), z.mean(dim=0), atol=0.05, rtol=0)
    torch.testing.assert_close(sample.T.cov(), z.T.cov(), atol=0.05, rtol=0.1)


@pytest.mark.parametrize("kind", PRIORS)
def test_the_same_generator_gives_the_same_prior_sample(kind: type[LatentPrior]) -> None:
    prior = kind.fit(correlated(50, 3), normal(50, 2))
    first, second = (
        prior.sample(normal(5, 2), generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", PRIORS)
def test_results_have_the_dtype_of_the_argument(kind: type[LatentPrior]) -> None:
    z, c = correlated(50, 3).float(), normal(50, 2).float()
    prior = kind.fit(z, c)
    assert prior.log_prob(z, c).dtype == torch.float32
    assert prior.sample(c).dtype == torch.float32


@pytest.mark.parametrize("kind", PRIORS)
def test_a_fit_refuses_what_has_no_deviation(kind: type[LatentPrior]) -> None:
    with pytest.raises(UserError, match="2 rows"):
        kind.fit(normal(1, 3), normal(1, 2))
    with pytest.raises(UserError, match="finite"):
        kind.fit(torch.full((4, 3), torch.nan), normal(4, 2))
    with pytest.raises(UserError, match="temperature"):
        kind.fit(normal(9, 3), normal(9, 2)).sample(normal(1, 2), temperature=-1.0)


def test_leaving_out_sources_needs_two_of_them() -> None:
    with pytest.raises(UserError, match="2 sources"):
        LinearGaussianPrior.fit(normal(9, 3), normal(9, 2), groups=torch.zeros(9).long())


def test_flow_and_baselines_are_interchangeable() -> None:
    z, c = correlated(50, 3).float(), normal(50, 2).float()
    flow = ConditionalFlow(FlowConfig(z_dim=3, condition_dim=2, num_blocks=1, hidden_dim=4))
    priors: list[LatentPrior] = [flow, *(kind.fit(z, c) for kind in PRIORS)]
    for prior in priors:
        assert prior.log_prob(z, c).shape == (50,)
        assert prior.sample(c, temperature=0.5).shape == (50, 3)
