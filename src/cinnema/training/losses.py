"""Loss terms of stage 1 and of its discriminators, each a pure function."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.core.distributed import Ranks

# Bounds of the adaptive weight, and the term that keeps its quotient finite.
_LARGEST_WEIGHT, _SMALLEST_NORM = 1e4, 1e-4


@runtime_checkable
class PerceptualDistance(Protocol):
    """LPIPS, or another distance between pairs of images."""

    def __call__(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return one distance per pair of images in [-1, 1]."""


def hinge_discriminator(real: Float[Tensor, "*r"], fake: Float[Tensor, "*f"]) -> Float[Tensor, ""]:
    """Return the hinge loss of a discriminator.

        (E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))]) / 2

    Source: Lim and Ye, "Geometric GAN", 2017; halved in the released code of the paper.

    Args:
        real: Scores of real data, of any shape.
        fake: Scores of generated data.
    """
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())


def hinge_generator(fake: Float[Tensor, "*f"]) -> Float[Tensor, ""]:
    """Return the generator's loss of the hinge objective: -E[D(fake)].

    Args:
        fake: Scores of generated data, of any shape.
    """
    return -fake.mean()


def relativistic_discriminator(
    real: Float[Tensor, "*s"], fake: Float[Tensor, "*s"]
) -> Float[Tensor, ""]:
    """Return the paired loss of a discriminator: E[log(1 + exp(D(fake) - D(real)))].

    Each patch of a generated clip is compared with the same patch of its real clip, so that the
    generator cannot lower the loss by resembling another clip.

    Source: Jolicoeur-Martineau, "The relativistic discriminator", 2018; Huang et al., "The GAN is
    dead; long live the GAN! A Modern GAN Baseline" (R3GAN), 2024, equation 2.

    Args:
        real: Scores of real data.
        fake: Scores of the generated data, paired with `real`.
    """
    return functional.softplus(fake - real).mean()


def relativistic_generator(
    real: Float[Tensor, "*s"], fake: Float[Tensor, "*s"]
) -> Float[Tensor, ""]:
    """Return the paired loss of a generator: E[log(1 + exp(D(real) - D(fake)))].

    Source: As `relativistic_discriminator`.

    Args:
        real: Scores of real data.
        fake: Scores of the generated data, paired with `real`.
    """
    return functional.softplus(real - fake).mean()


def slope_penalty(logits: Float[Tensor, "b *s"], x: Float[Tensor, "b *d"]) -> Float[Tensor, ""]:
    """Return a discriminator's gradient penalty: E_b ||d sum_p D_p(x_b) / d x_b||^2 / P.

    At real data this is R1, at generated data R2; both are weighted by gamma / 2. The division by
    the number of patches P makes gamma independent of it, as far as patches do not overlap. The
    penalty can be differentiated again with respect to the weights that made `logits`.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018,
    equation 9, which has one logit. The released code of the paper differentiates the mean over
    the batch, which is smaller by b^2: its weight of 10 on 10 clips is a gamma of 0.2 here.

    Args:
        logits: Computed from `x` by a network that does not mix the clips of a batch.
        x: The clips; they must require gradients.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().sum() / logits.numel()


def feature_matching(
    real: Sequence[Float[Tensor, "_ ..."]], fake: Sequence[Float[Tensor, "_ ..."]]
) -> Float[Tensor, ""]:
    """Return the mean over maps of the mean absolute difference of a discriminator's features.

    Source: Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with
    Conditional GANs", 2018, equation 4.

    Args:
        real: Feature maps of real clips, at least one.
        fake: Feature maps of the generated clips, of the same shapes.
    """
    terms = [(a - b).abs().mean() for a, b in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""],
    adversarial: Float[Tensor, ""],
    last_layer: Tensor,
    *,
    ranks: Ranks | None = None,
) -> Float[Tensor, ""]:
    """Return the weight that gives two losses gradients of equal norm at the last layer.

        ||d reconstruction / d w|| / (||d adversarial / d w|| + 1e-4), at most 10^4

    Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021,
    equation 7.

    Args:
        reconstruction: The loss that sets the norm.
        adversarial: The loss that is weighted.
        last_layer: w, the weight of the generator's last layer, in any floating-point format.
        ranks: The processes that share the batch: gradients are those of the whole batch.

    Returns:
        The weight in float32 (float64 for a float64 layer), detached from the graph.
    """
    gradients = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        gradients.append(gradient if gradient.dtype == torch.float64 else gradient.float())
    (ranks or Ranks()).average(gradients)
    a, b = gradients
    weight: Tensor = a.norm() / (b.norm() + _SMALLEST_NORM)
    return weight.clamp(0, _LARGEST_WEIGHT).detach()
