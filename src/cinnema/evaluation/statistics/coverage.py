"""Fidelity and coverage apart: whose neighbourhood is a sample in, and what is reached.

Source: precision and recall, Kynkaanniemi et al. (NeurIPS 2019); density and coverage, Naeem et
al., "Reliable Fidelity and Diversity Metrics for Generative Models" (ICML 2020).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.errors import UserError


@dataclass(frozen=True)
class Coverage:
    """Shares, of which 1 is best; `density` may be above 1.

    Attributes:
        precision: Of the samples that lie within the reach of a real clip.
        recall: Of the real clips that lie within the reach of a sample.
        density: How many real clips reach a sample, on average, over k.
        coverage: Of the real clips that have a sample within their reach.
        num_neighbours: k: the reach of a clip is the distance to its k-th nearest of its own set.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    num_neighbours: int


def measure_coverage(
    real: Float[Tensor, "n d"], samples: Float[Tensor, "m d"], *, num_neighbours: int = 5
) -> Coverage:
    """Compare two sets by the neighbourhoods of their members.

    Args:
        real: Features of real clips, more than k.
        samples: Of generated ones, more than k.
        num_neighbours: k, at least 1; 5 in the source.

    Raises:
        UserError: A set has no more than k members.
    """
    fewest = min(len(real), len(samples))
    if fewest <= num_neighbours:
        raise UserError(
            f"coverage by {num_neighbours} neighbours needs more than {num_neighbours} clips on "
            f"each side, got {fewest}: give more"
        )
    real, samples = real.double(), samples.double()
    reach, sample_reach = (_reach(x, num_neighbours) for x in (real, samples))
    apart = torch.cdist(real, samples)
    is_reached = apart < reach[:, None]
    return Coverage(
        precision=float(is_reached.any(dim=0).double().mean()),
        recall=float((apart < sample_reach).any(dim=1).double().mean()),
        density=float(is_reached.double().sum(dim=0).mean() / num_neighbours),
        coverage=float(is_reached.any(dim=1).double().mean()),
        num_neighbours=num_neighbours,
    )


def _reach(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Distance of each row to its k-th nearest other row."""
    return torch.cdist(x, x).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values
