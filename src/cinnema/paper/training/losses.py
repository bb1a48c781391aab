"""Loss terms of the paper, each a pure function.

Terms that the own models of cinnema use as well are in `cinnema.training.losses`.

Source, unless another is given: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using
cINNs", 2021, and its released code.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from cinnema.core.distributed import Ranks
from cinnema.training.losses import PerceptualDistance

_PICTURES = 32  # at once, in `perceptual_loss`: more take memory, and less time on GPUs alone


def gradient_penalty(
    score: Float[Tensor, "b *s"], x: Float[Tensor, "b *d"], *, num_ranks: int = 1
) -> Float[Tensor, ""]:
    """Return a discriminator's gradient penalty at real data: E_b ||d S / d x_b||^2.

    S is the mean score of the batch, as in the released code. For networks that do not mix the
    clips of a batch, the penalty is therefore R1 divided by b^2, and its weight depends on the
    batch size. It can be differentiated again with respect to the weights that made `score`.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018,
    equation 9, without its factor of 1/2.

    Args:
        score: Scores of real data, computed from `x`.
        x: The real data; it must require gradients.
        num_ranks: R, the number of processes that share the batch evenly: S is the mean over the
            whole batch, so that the mean of the ranks' penalties is that of one process.
    """
    (gradient,) = torch.autograd.grad(score.mean() / num_ranks, x, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def kl_to_standard_normal(
    mu: Float[Tensor, "b z"], log_var: Float[Tensor, "b z"]
) -> Float[Tensor, ""]:
    """Return E_b KL(N(mu, exp(log_var)) || N(0, I)) = E_b sum_z (mu^2 + var - 1 - log_var) / 2.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, appendix B.

    Args:
        mu: Means.
        log_var: Logarithms of the variances.

    Returns:
        Nats per clip.
    """
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(dim=1).mean()


def draw_latent(
    mu: Float[Tensor, "b z"],
    log_var: Float[Tensor, "b z"],
    *,
    generator: torch.Generator,
    ranks: Ranks | None = None,
) -> Float[Tensor, "b z"]:
    """Draw once from each Gaussian: z = mu + exp(log_var / 2) * noise.

    Args:
        mu: Means.
        log_var: Logarithms of the variances.
        generator: A generator of the CPU, so that the noise is the same on every device.
        ranks: The processes that share the batch evenly; one by default.
    """
    ranks = ranks or Ranks()
    num, z_dim = mu.shape
    noise = ranks.own(torch.randn(ranks.size * num, z_dim, generator=generator)).to(mu)
    return mu + (0.5 * log_var).exp() * noise


def perceptual_loss(
    fake: Float[Tensor, "b 3 h w"],
    real: Float[Tensor, "b 3 h w"],
    *,
    perceptual: PerceptualDistance,
    weight: float,
) -> Float[Tensor, ""]:
    """Return the weighted mean distance of generated pictures to real ones, in little memory.

    The gradient of the pictures is computed together with the distances, of some pictures at a
    time, so that no activations are kept. It cannot be differentiated again, and only with respect
    to `fake`.

    Args:
        fake: Generated pictures in [-1, 1].
        real: As many real pictures.
        perceptual: A distance of pairs, which does not depend on the other pairs.
        weight: Factor on the mean.
    """
    loss: Tensor = _PerceptualLoss.apply(fake, real, perceptual, weight)  # type: ignore[no-untyped-call]
    return loss


class _PerceptualLoss(torch.autograd.Function):
    """See `perceptual_loss`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        fake: Tensor,
        real: Tensor,
        perceptual: PerceptualDistance,
        weight: float,
    ) -> Tensor:
        distances, gradients = [], []
        for a, b in zip(fake.split(_PICTURES), real.split(_PICTURES), strict=True):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                pictures = a.detach().requires_grad_(ctx.needs_input_grad[0])
                distance = perceptual(pictures, b.detach())
                if ctx.needs_input_grad[0]:
                    of_each = torch.full_like(distance, weight) / len(fake)
                    gradients += torch.autograd.grad(distance, pictures, of_each)
            distances.append(distance.detach())
        ctx.save_for_backward(*gradients)
        return weight * torch.cat(distances).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        return gradient * torch.cat(ctx.saved_tensors), None, None, None


def flow_nll(nu: Float[Tensor, "b z"], log_det: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Return E_b[||nu||^2 / 2 - log_det], the negative log-likelihood without z log(2 pi) / 2.

    Args:
        nu: Residuals, T^-1(z; c).
        log_det: log abs det d nu / d z of each clip, in nats.

    Returns:
        Nats per clip.
    """
    return (0.5 * nu.square().sum(dim=1) - log_det).mean()
