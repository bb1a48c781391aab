import math

import pytest
import torch

from cinnema.data.crops import SceneCrops
from cinnema.evaluation.likelihood import (
    Embedding,
    encode_scenes,
    fit_priors,
    inversion_errors,
    likelihood_scores,
    negative_log_likelihood,
    with_noise,
)
from cinnema.models.warping.model import WarpingModel
from cinnema.training.latent_pool import LatentPool


def _pool(num: int, *, depends: bool, seed: int) -> tuple[LatentPool, torch.Tensor]:
    """Clips of 16 scenes; z follows the first feature of x0, or does not."""
    generator = torch.Generator().manual_seed(seed)
    joint = torch.randn(num, 8, 1, 1, generator=generator).expand(-1, -1, 8, 8)
    z = torch.randn(num, 16, generator=generator)
    if depends:
        z = 0.3 * z + 3 * joint[:, :1, 0, 0]
    return LatentPool(
        joint=joint.half().contiguous(), z=z, eta=torch.zeros(num, 2), known=torch.zeros(num)
    ), torch.arange(num) % 16


def _mean(model: WarpingModel, *, depends: bool, name: str) -> float:
    priors = fit_priors(*_pool(320, depends=depends, seed=0), noise=0.1)
    held_out, _ = _pool(64, depends=depends, seed=1)
    scores = likelihood_scores(model, priors, held_out, noise=0.1, num_draws=2)
    return sum(score[name] for score in scores) / len(scores)


def test_a_gaussian_prior_scores_gaussian_latents_at_their_entropy(model: WarpingModel) -> None:
    entropy = 0.5 * math.log(2 * math.pi * math.e * 1.01)
    assert _mean(model, depends=False, name="gaussian") == pytest.approx(entropy, abs=0.06)


def test_the_linear_prior_uses_x0_where_it_helps(model: WarpingModel) -> None:
    linear = _mean(model, depends=True, name="linear")
    entropy = 0.5 * math.log(2 * math.pi * math.e * (0.3**2 + 0.1**2))
    assert linear == pytest.approx(entropy, abs=0.15)


def test_differences_are_those_of_the_likelihoods(
    model: WarpingModel, train: list[SceneCrops], validation: list[SceneCrops]
) -> None:
    fitted = encode_scenes(model.stage1, train, num=6)
    priors = fit_priors(fitted.pool, fitted.groups, noise=0.1)
    held_out = encode_scenes(model.stage1, validation, num=3)
    for values in likelihood_scores(model, priors, held_out.pool, noise=0.1):
        assert values["less_linear"] == pytest.approx(values["flow"] - values["linear"])
        assert math.isfinite(values["gaussian"])


def test_the_embedding_has_unit_components() -> None:
    joint = _pool(200, depends=False, seed=0)[0].joint.float()
    c = Embedding.fit(joint, 5)(joint)
    torch.testing.assert_close(c.T @ c / len(c), torch.eye(5, dtype=torch.float64))


def test_the_embedding_has_no_more_components_than_the_features() -> None:
    joint = _pool(200, depends=False, seed=0)[0].joint.float()
    assert Embedding.fit(joint, 64)(joint).shape == (200, 8)


def test_noise_is_the_same_for_the_same_draw() -> None:
    z = torch.zeros(1000, 4)
    assert torch.equal(with_noise(z, noise=0.5, draw=1), with_noise(z, noise=0.5, draw=1))
    assert not torch.equal(with_noise(z, noise=0.5, draw=1), with_noise(z, noise=0.5, draw=2))
    assert with_noise(z, noise=0.5, draw=1).std().item() == pytest.approx(0.5, rel=0.05)


def test_round_trips_are_exact_to_rounding(
    model: WarpingModel, validation: list[SceneCrops]
) -> None:
    latents = encode_scenes(model.stage1, validation, num=4)
    assert all(error < 1e-4 for error in inversion_errors(model, latents.pool, noise=0.1))


def test_the_likelihood_is_that_of_each_draw_in_nats_per_dimension() -> None:
    normal = torch.distributions.Normal(0.0, 1.0)
    draws = [torch.full((3, 4), value) for value in (0.0, 1.0)]
    nll = negative_log_likelihood(lambda z: normal.log_prob(z).sum(dim=1), draws)
    expected = torch.tensor([[0.5 * math.log(2 * math.pi)], [0.5 * math.log(2 * math.pi) + 0.5]])
    torch.testing.assert_close(nll, expected.expand(2, 3))
