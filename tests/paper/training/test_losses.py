"""Each loss against numbers worked out by hand, and against autograd."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from cinnema.paper.training.losses import (
    draw_latent,
    flow_nll,
    gradient_penalty,
    kl_to_standard_normal,
)


def test_the_gradient_penalty_of_a_linear_discriminator_is_known() -> None:
    w = torch.tensor([[1.0], [-2.0], [3.0]])
    x = torch.randn(4, 3, requires_grad=True)
    # The mean over 4 clips has the gradient w / 4 at each of them.
    assert gradient_penalty(x @ w, x).item() == pytest.approx(14 / 16)


def test_the_gradient_penalty_is_r1_over_the_square_of_the_batch_size() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    r1 = torch.autograd.grad(network(x).sum(), x)[0].square().sum(dim=1).mean()
    assert gradient_penalty(network(x), x).item() == pytest.approx(r1.item() / 25)


def test_the_gradient_of_the_penalty_reaches_the_discriminator() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    gradient_penalty(network(x), x).backward()
    weight, step = network[0].weight, 1e-6
    found = weight.grad[1, 2].item()

    def moved(by: float) -> float:
        with torch.no_grad():
            weight[1, 2] += by
        value = gradient_penalty(network(x), x).item()
        with torch.no_grad():
            weight[1, 2] -= by
        return value

    assert found == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-5)
    assert abs(found) > 1e-6


def test_the_kl_is_that_of_two_gaussians_summed_over_dimensions() -> None:
    torch.manual_seed(0)
    mu, log_var = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    expected = kl_divergence(
        Normal(mu, (0.5 * log_var).exp()), Normal(torch.zeros_like(mu), torch.ones_like(mu))
    )
    assert kl_to_standard_normal(mu, log_var).item() == pytest.approx(
        expected.sum(dim=1).mean().item()
    )
    assert kl_to_standard_normal(torch.zeros(2, 4), torch.zeros(2, 4)).item() == 0


def test_a_latent_has_the_mean_and_the_variance_that_it_is_drawn_with() -> None:
    mu, log_var = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), math.log(9))
    z = draw_latent(mu, log_var, generator=torch.Generator().manual_seed(0))
    assert z.mean().item() == pytest.approx(2, abs=0.1)
    assert z.std().item() == pytest.approx(3, abs=0.1)
    again = draw_latent(mu, log_var, generator=torch.Generator().manual_seed(0))
    assert torch.equal(z, again)


def test_the_flows_loss_is_the_negative_log_likelihood_but_for_a_constant() -> None:
    torch.manual_seed(0)
    nu, log_det = torch.randn(4, 6), torch.randn(4)
    log_prob = Normal(0.0, 1.0).log_prob(nu).sum(dim=1) + log_det
    constant = 3 * math.log(2 * math.pi)
    assert flow_nll(nu, log_det).item() == pytest.approx(-log_prob.mean().item() - constant)
