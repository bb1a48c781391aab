"""Held-out negative log-likelihood of latents, in nats per dimension."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def negative_log_likelihood(
    log_prob: Callable[[Float[Tensor, "n z"]], Float[Tensor, " n"]],
    draws: Sequence[Float[Tensor, "n z"]],
    *,
    dim: int | Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "d n"]:
    """Return -log p(z) / dim(z) in nats per dimension, a row for each draw of the latents.

    A density: it may be negative. Lower is better. Every held-out likelihood is computed here.

    Args:
        log_prob: Log-density of latents, in nats.
        draws: Samples of q(z | X) of the same clips, at least one.
        dim: Number of entries of z that the density is of, maybe for each clip; by default all.
    """
    return torch.stack([-log_prob(z) for z in draws]) / (draws[0].shape[1] if dim is None else dim)
