"""The rectified-flow prior: its likelihood, its way there and back, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from rectified_flow import RectifiedConfig, RectifiedPrior
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.priors import GaussianPrior, LatentPrior


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make(*, noise: float = 0.0, **options: Any) -> RectifiedPrior:
    sizes = {"z_dim": 3, "condition_dim": 2, "hidden_dim": 16, "depth": 2, **options}
    prior = RectifiedPrior(RectifiedConfig(**sizes)).double()
    with torch.no_grad():
        for seed, parameter in enumerate(prior.parameters()):
            parameter.add_(noise * normal(*parameter.shape, seed=seed))
    return prior.eval()


class _Line(nn.Module):
    """The velocity that is right for z ~ N(mean, std^2), as the formula for Gaussians gives it."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        t = torch.arccos(told[:, 2 + 8 : 2 + 9].clamp(-1, 1)) / math.pi  # from cos(pi t)
        variance = (1 - t) ** 2 + (t * self.std) ** 2
        whole = self.mean + (t * self.std**2 - (1 - t)) / variance * (x - t * self.mean)
        return whole - (2 * t - 1) / ((1 - t) ** 2 + t**2) * x  # which the prior adds


def gaussian() -> tuple[RectifiedPrior, torch.distributions.Normal]:
    prior = make(num_steps=64)
    mean, std = torch.tensor([1.0, -2.0, 0.0]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    prior.velocity = _Line(mean, std)
    return prior, torch.distributions.Normal(mean, std)


def test_the_likelihood_of_a_gaussian_is_that_of_the_formula() -> None:
    prior, target = gaussian()
    z, c = target.sample((20,)), normal(20, 2)
    expected = target.log_prob(z).sum(dim=1)
    torch.testing.assert_close(prior.log_prob(z, c), expected, atol=5e-3, rtol=0)
    rough = (prior.log_prob(z, c, num_steps=4) - expected).abs().max()
    fine = (prior.log_prob(z, c, num_steps=32) - expected).abs().max()
    assert fine < 0.1 * rough


def test_residuals_of_a_gaussian_are_its_standard_scores() -> None:
    prior, target = gaussian()
    nu, c = normal(20, 3), normal(20, 2)
    z = prior.to_latent(nu, c)
    torch.testing.assert_close(z, target.mean + target.stddev * nu, atol=5e-3, rtol=0)


def test_untrained_it_is_the_gaussian_of_the_latents() -> None:
    prior, c = make(num_steps=64), normal(400, 2, seed=1)
    z = 5 + normal(400, 3) @ torch.tensor([[3.0, 0, 0], [1, 0.1, 0], [0, 0, 1]]).double()
    prior.initialise(z, c)
    gaussian = GaussianPrior.fit(z, c)
    torch.testing.assert_close(prior.log_prob(z, c), gaussian.log_prob(z, c), atol=5e-3, rtol=0)
    drawn = prior.sample(c, generator=torch.Generator().manual_seed(3))
    nu = torch.randn(400, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = gaussian.mean + nu @ gaussian.cholesky.T
    torch.testing.assert_close(drawn, expected, atol=5e-3, rtol=0)


def test_there_and_back_ends_where_it_began_but_for_the_steps() -> None:
    prior, z, c = make(noise=0.3), normal(20, 3), normal(20, 2, seed=1)
    with torch.no_grad():
        apart = [
            float((prior.to_latent(prior.to_residual(z, c, num_steps=n), c, num_steps=n) - z)
                  .abs().max())
            for n in (4, 16, 64)
        ]  # fmt: skip
        assert (prior.to_residual(z, c) - z).abs().max() > 0.1  # a map that does something
    assert apart[2] < 1e-3
    assert apart[1] < 0.3 * apart[0]


def test_the_divergence_is_the_trace_of_the_jacobian() -> None:
    prior, z, c = make(noise=0.3), normal(4, 3), normal(4, 2, seed=1)
    velocity, trace = prior.velocity_and_divergence(z, 0.3, c)
    torch.testing.assert_close(velocity, prior.velocity_at(z, 0.3, c))
    for row in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, row=row: prior.velocity_at(x[None], 0.3, c[row : row + 1])[0], z[row]
        )
        torch.testing.assert_close(trace[row], jacobian.trace())


def test_training_finds_what_the_condition_says() -> None:
    prior, c = make(z_dim=2, condition_dim=1).train(), normal(1024, 1)
    z = torch.cat([2 * c, -c], dim=1) + 0.5 * normal(1024, 2, seed=1)
    prior.initialise(z, c)
    optimiser = torch.optim.Adam(prior.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        optimiser.zero_grad()
        prior.loss(z, c, generator=generator).backward()
        optimiser.step()
    prior.eval()
    told, lost = prior.log_prob(z, c).mean(), prior.log_prob(z, c.flip(0)).mean()
    entropy = 2 * (math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e))
    assert -told == pytest.approx(entropy, abs=0.15)
    assert told > lost + 1
    drawn = prior.sample(c, generator=generator)
    torch.testing.assert_close(
        (drawn - torch.cat([2 * c, -c], dim=1)).std(dim=0), torch.full((2,), 0.5).double(),
        atol=0.08, rtol=0,
    )  # fmt: skip


def test_the_same_generator_gives_the_same_loss_and_the_same_sample() -> None:
    prior, z, c = make(noise=0.3), normal(6, 3), normal(6, 2)
    seeds = (3, 3, 4)
    draws = [prior.sample(c, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    losses = [prior.loss(z, c, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    for first, same, other in (draws, losses):
        assert torch.equal(first, same)
        assert not torch.equal(first, other)


def test_it_is_a_prior_in_single_precision_too() -> None:
    prior = make(noise=0.1, num_steps=4).float()
    assert isinstance(prior, LatentPrior)
    z, c = normal(5, 3).float(), normal(5, 2).float()
    assert prior.log_prob(z, c).dtype == prior.sample(c).dtype == torch.float32
    assert prior.sample(c[:0]).shape == (0, 3)


def test_what_does_not_fit_is_named() -> None:
    prior, z, c = make(), normal(4, 3), normal(4, 2)
    with pytest.raises(UserError, match="latents of 3 numbers"):
        prior.log_prob(z[:, :2], c)
    with pytest.raises(UserError, match="num_steps must be at least 1, got 0"):
        prior.sample(c, num_steps=0)
    with pytest.raises(UserError, match="at least 2 rows"):
        prior.initialise(z[:1], c[:1])
    with pytest.raises(UserError, match="temperature"):
        prior.sample(c, temperature=-1.0)


@pytest.mark.parametrize("wrong", [{"z_dim": 0}, {"num_steps": 0}, {"dropout": 1.0}, {"step": 3}])
def test_a_config_refuses_what_is_unknown_or_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RectifiedConfig(**{"z_dim": 4, **wrong})
