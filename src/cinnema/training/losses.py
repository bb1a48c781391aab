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


def motion_loss(
    predicted: Float[Tensor, "b 2 t g g"], true: Float[Tensor, "b 2 t g g"]
) -> Float[Tensor, ""]:
    """Return the mean absolute error of the flow, each clip divided by its mean motion + 0.01.

    The constant, in image widths, limits the weight of clips that hardly move.

    Args:
        predicted: Backward flow of frames 1..T to x0, in image widths and heights.
        true: The flow to compare with.
    """
    error = (predicted - true).abs().mean(dim=(1, 2, 3, 4))
    return (error / (true.abs().mean(dim=(1, 2, 3, 4)) + 0.01)).mean()


def relative_flow_error(
    predicted: Float[Tensor, "b 2 t g g"], true: Float[Tensor, "b 2 t g g"]
) -> float:
    """Return the summed absolute error over the summed absolute motion; zero flow scores 1."""
    return float((predicted - true).abs().sum() / true.abs().sum().clamp_min(1e-12))


def mask_loss(
    logits: Float[Tensor, "b 1 h w"],
    moving: Float[Tensor, "b m m"],
    known: Float[Tensor, "b m m"],
    *,
    total: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Return the weighted binary cross-entropy of the motion mask, at the resolution of `moving`.

    Args:
        logits: Predicted, at any resolution.
        moving: Target, in [0, 1]: 1 where something moves during the clip.
        known: Weight of each point, in [0, 1]: 0 where optical flow gives no target.
        total: Divisor of the loss; by default the sum of `known`. Ranks that share a batch pass
            the mean of their sums, so that the mean of their losses is that of the whole batch.
    """
    small = functional.adaptive_avg_pool2d(logits, (moving.shape[-2], moving.shape[-1]))[:, 0]
    loss = functional.binary_cross_entropy_with_logits(small, moving, reduction="none")
    total = known.sum() if total is None else total
    return (loss * known).sum() / total.clamp_min(1.0)


def roughness(coefficients: Float[Tensor, "b k 2 g g"]) -> Float[Tensor, ""]:
    """Return the mean absolute second difference of the flow's coefficients over the image."""
    rows = coefficients[..., 2:, :] - 2 * coefficients[..., 1:-1, :] + coefficients[..., :-2, :]
    columns = coefficients[..., 2:] - 2 * coefficients[..., 1:-1] + coefficients[..., :-2]
    return rows.abs().mean() + columns.abs().mean()


def random_windows(
    a: Float[Tensor, "b 3 h w"],
    b: Float[Tensor, "b 3 h w"],
    *,
    size: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b 3 k l"], Float[Tensor, "b 3 k l"]]:
    """Cut the same random window out of all images, to compute a perceptual loss on a part.

    Args:
        a: Images.
        b: Images to compare with, of the same shape.
        size: Side of the window in pixels; images that are no larger are returned whole.
        generator: Draws the position.
    """
    height, width = a.shape[-2:]
    if size >= min(height, width):
        return a, b
    top = int(torch.randint(0, height - size + 1, (), generator=generator))
    left = int(torch.randint(0, width - size + 1, (), generator=generator))
    window = (..., slice(top, top + size), slice(left, left + size))
    return a[window], b[window]


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
