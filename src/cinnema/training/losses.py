"""What stage 1 is trained to do: move right, know what moves, look right."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@runtime_checkable
class PerceptualDistance(Protocol):
    """LPIPS, or anything that says how different two pictures look."""

    def __call__(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return one distance for each pair, pictures in [-1, 1]."""


def motion_loss(
    predicted: Float[Tensor, "b 2 t g g"], true: Float[Tensor, "b 2 t g g"]
) -> Float[Tensor, ""]:
    """Mean absolute error of the flow, each clip divided by its mean motion.

    The floor of 0.01 picture widths keeps clips that hardly move from drowning the others.
    """
    error = (predicted - true).abs().mean(dim=(1, 2, 3, 4))
    return (error / (true.abs().mean(dim=(1, 2, 3, 4)) + 0.01)).mean()


def relative_flow_error(
    predicted: Float[Tensor, "b 2 t g g"], true: Float[Tensor, "b 2 t g g"]
) -> float:
    """Summed absolute error over summed absolute motion: 1 is what predicting no motion gives."""
    return float((predicted - true).abs().sum() / true.abs().sum().clamp_min(1e-12))


def mask_loss(
    logits: Float[Tensor, "b 1 h w"],
    moving: Float[Tensor, "b m m"],
    known: Float[Tensor, "b m m"],
    *,
    total: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of "this moves" where the flow tells, at the resolution of `moving`.

    Args:
        logits: Predicted, at any resolution.
        moving: The truth, in [0, 1].
        known: Weight of each point, in [0, 1].
        total: What the loss is divided by, the sum of `known` if None. Ranks that share a batch
            give the mean of their sums, so that the mean of their losses is that of the batch.
    """
    small = functional.adaptive_avg_pool2d(logits, (moving.shape[-2], moving.shape[-1]))[:, 0]
    loss = functional.binary_cross_entropy_with_logits(small, moving, reduction="none")
    total = known.sum() if total is None else total
    return (loss * known).sum() / total.clamp_min(1.0)


def roughness(coefficients: Float[Tensor, "b k 2 g g"]) -> Float[Tensor, ""]:
    """Mean absolute second difference of the flow's coefficients over the picture."""
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
    """Cut one random window out of all pictures: a perceptual loss at a part of the cost.

    Args:
        a: Pictures.
        b: As many of the same size.
        size: Of the window, in pixels; pictures that are no larger come back whole.
        generator: Of the place.
    """
    height, width = a.shape[-2:]
    if size >= min(height, width):
        return a, b
    top = int(torch.randint(0, height - size + 1, (), generator=generator))
    left = int(torch.randint(0, width - size + 1, (), generator=generator))
    window = (..., slice(top, top + size), slice(left, left + size))
    return a[window], b[window]
