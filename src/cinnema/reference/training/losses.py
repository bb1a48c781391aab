"""The terms of the paper's losses, each a pure function.

Source, where none is named: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using cINNs",
2021, and its released code.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.core.ranks import Ranks

# The bounds of the adaptive weight, and what keeps its quotient finite.
_LARGEST_WEIGHT, _SMALLEST_NORM = 1e4, 1e-4


def hinge_discriminator(real: Float[Tensor, "*r"], fake: Float[Tensor, "*f"]) -> Float[Tensor, ""]:
    """Return what a discriminator minimises: (E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))]) / 2.

    Source: Lim and Ye, "Geometric GAN", 2017; halved in the released code.

    Args:
        real: Scores of real data, of any shape.
        fake: Scores of generated data.
    """
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())


def hinge_generator(fake: Float[Tensor, "*f"]) -> Float[Tensor, ""]:
    """Return what a generator minimises against the hinge: -E[D(fake)].

    Args:
        fake: Scores of generated data, of any shape.
    """
    return -fake.mean()


def gradient_penalty(
    score: Float[Tensor, "b *s"], x: Float[Tensor, "b *d"], *, num_ranks: int = 1
) -> Float[Tensor, ""]:
    """Return the penalty on a discriminator's slope at real data: E_b ||d mean(score) / d x_b||^2.

    With S the mean score of the batch, as the released code has it: where clips do not influence
    each other, the gradient of each is that of its own score over b, so that the penalty is R1
    over b^2. Its weight therefore belongs to the batch size.

    The result can be differentiated again, with respect to what made `score`.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018,
    equation 9, without its factor of 1/2.

    Args:
        score: Scores of real data, made from `x`.
        x: The real data; it needs to require gradients.
        num_ranks: R, processes that share the batch evenly: S is the mean over all of it, so that
            the mean of the ranks' penalties is that of one process.
    """
    (gradient,) = torch.autograd.grad(score.mean() / num_ranks, x, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def feature_matching(
    real: Sequence[Float[Tensor, "_ ..."]], fake: Sequence[Float[Tensor, "_ ..."]]
) -> Float[Tensor, ""]:
    """Return the mean over maps of the mean absolute difference of a discriminator's features.

    Source: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with
    Conditional GANs", 2018, equation 4.

    Args:
        real: Feature maps of real clips, at least one.
        fake: Those of the generated clips, of the same shapes.
    """
    terms = [(a - b).abs().mean() for a, b in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def kl_to_standard_normal(
    mu: Float[Tensor, "b z"], log_var: Float[Tensor, "b z"]
) -> Float[Tensor, ""]:
    """Return E_b KL(N(mu, exp(log_var)) || N(0, I)) = E_b sum_z (mu^2 + var - 1 - log_var) / 2.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, appendix B.

    Args:
        mu: Means.
        log_var: Logarithms of the variances.

    Returns:
        Nats a clip.
    """
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(dim=1).mean()


def draw_latent(
    mu: Float[Tensor, "b z"],
    log_var: Float[Tensor, "b z"],
    *,
    generator: torch.Generator,
    ranks: Ranks | None = None,
) -> Float[Tensor, "b z"]:
    """Return one draw from each Gaussian, z = mu + exp(log_var / 2) * noise.

    Args:
        mu: Means.
        log_var: Logarithms of the variances.
        generator: On the CPU: the noise is drawn there, so that it is the same on every device.
        ranks: The processes that share the batch evenly.
    """
    ranks = ranks or Ranks()
    num, z_dim = mu.shape
    noise = ranks.own(torch.randn(ranks.size * num, z_dim, generator=generator)).to(mu)
    return mu + (0.5 * log_var).exp() * noise


def adaptive_weight(
    reconstruction: Float[Tensor, ""],
    adversarial: Float[Tensor, ""],
    last_layer: Tensor,
    *,
    ranks: Ranks | None = None,
) -> Float[Tensor, ""]:
    """Return the weight that makes two losses pull equally hard at the last layer.

        ||d reconstruction / d w|| / (||d adversarial / d w|| + 1e-4), at most 10^4

    Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021,
    equation 7.

    Args:
        reconstruction: The loss that sets the measure.
        adversarial: The loss to be weighted.
        last_layer: w, the weight of the generator's last layer.
        ranks: The processes that share the batch: gradients count over all of it.

    Returns:
        The weight, a constant to later differentiation.
    """
    (a,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (b,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    (ranks or Ranks()).average([a, b])
    weight: Tensor = a.norm() / (b.norm() + _SMALLEST_NORM)
    return weight.clamp(0, _LARGEST_WEIGHT).detach()


def flow_nll(nu: Float[Tensor, "b z"], log_det: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return E_b[||nu||^2 / 2 - log_det], the negative log-likelihood but for z log(2 pi) / 2.

    Args:
        nu: Residuals, T^-1(z; c).
        log_det: log abs det d nu / d z of each, in nats.

    Returns:
        Nats a clip.
    """
    return (0.5 * nu.square().sum(dim=1) - log_det).mean()
