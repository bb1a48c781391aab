"""The held-out likelihood of latents."""

import math

import torch

from cinnema.evaluation.likelihood import negative_log_likelihood


def test_the_likelihood_is_that_of_each_draw_in_nats_per_dimension() -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    draws = [torch.full((3, 4), value) for value in (0.0, 1.0)]
    nll = negative_log_likelihood(lambda z: normal.log_prob(z).sum(dim=1), draws)
    expected = torch.tensor([[0.5 * math.log(2 * math.pi)], [0.5 * math.log(2 * math.pi) + 0.5]])
    torch.testing.assert_close(nll, expected.expand(2, 3))
