"""What discriminators and generators minimise against each other, each a pure function.

A discriminator gives a clip P logits, one for each patch of its frames: high where it looks real.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.core.distributed import Ranks

# The bounds of the adaptive weight, and what keeps its quotient finite.
_LARGEST_WEIGHT, _SMALLEST_NORM = 1e4, 1e-4


def hinge_discriminator(real: Float[Tensor, "*r"], fake: Float[Tensor, "*f"]) -> Float[Tensor, ""]:
    """Return what a discriminator minimises: (E[max(0, 1 - D(real))] + E[max(0, 1 + D(fake))]) / 2.

    Source: Lim and Ye, "Geometric GAN", 2017; halved in the released code of the paper.

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


def relativistic_discriminator(
    real: Float[Tensor, "*s"], fake: Float[Tensor, "*s"]
) -> Float[Tensor, ""]:
    """Return what a discriminator of pairs minimises: E[log(1 + exp(D(fake) - D(real)))].

    Every patch of a generated clip is held against the same patch of the clip that it should be, so
    a decoder cannot win by what some other clip looks like, and no mode of the data is forgotten.

    Source: Jolicoeur-Martineau, "The relativistic discriminator", 2018; Huang et al., "The GAN is
    dead; long live the GAN! A Modern GAN Baseline" (R3GAN), 2024, equation 2.

    Args:
        real: Scores of real data.
        fake: Scores of generated data, each beside its real counterpart.
    """
    return functional.softplus(fake - real).mean()


def relativistic_generator(
    real: Float[Tensor, "*s"], fake: Float[Tensor, "*s"]
) -> Float[Tensor, ""]:
    """Return what a generator of pairs minimises: E[log(1 + exp(D(real) - D(fake)))].

    Source: As `relativistic_discriminator`.

    Args:
        real: Scores of real data.
        fake: Scores of generated data, each beside its real counterpart.
    """
    return functional.softplus(real - fake).mean()


def slope_penalty(logits: Float[Tensor, "b *s"], x: Float[Tensor, "b *d"]) -> Float[Tensor, ""]:
    """Return the penalty on a discriminator's slope: E_b ||d sum_p D_p(x_b) / d x_b||^2 / P.

    At real data it is R1, at generated data R2; both take gamma / 2 as their weight. Divided by P,
    it is for patches that do not overlap the mean of their own penalties, so that gamma does not
    depend on how many there are. It can be differentiated again, by what made `logits`.

    Source: Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018,
    equation 9, which has one logit. The released code of the paper differentiates the mean over
    the batch, which is smaller by b^2: its weight of 10 on 10 clips is a gamma of 0.2 here.

    Args:
        logits: Of clips that do not influence each other, made from `x`.
        x: The clips; they need to require gradients.
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
        fake: Those of the generated clips, of the same shapes.
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
    """Return the weight that makes two losses pull equally hard at the last layer.

        ||d reconstruction / d w|| / (||d adversarial / d w|| + 1e-4), at most 10^4

    Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021,
    equation 7.

    Args:
        reconstruction: The loss that sets the measure.
        adversarial: The loss to be weighted.
        last_layer: w, the weight of the generator's last layer, in any number format.
        ranks: The processes that share the batch: gradients count over all of it.

    Returns:
        The weight, a constant to later differentiation, in float32 at least.
    """
    gradients = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        gradients.append(gradient if gradient.dtype == torch.float64 else gradient.float())
    (ranks or Ranks()).average(gradients)
    a, b = gradients
    weight: Tensor = a.norm() / (b.norm() + _SMALLEST_NORM)
    return weight.clamp(0, _LARGEST_WEIGHT).detach()
