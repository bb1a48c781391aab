"""The kernel distance: an unbiased squared maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x . y / d + 1)^3

Unlike a Frechet distance it is not larger for fewer clips; it may be a little below 0.
Source: Binkowski et al., "Demystifying MMD GANs" (ICLR 2018).
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.scores import Estimate

_NUM_RESAMPLES = 500


def kernel_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Return the unbiased estimate of the squared discrepancy.

    Args:
        x: Features of one set, at least 2 rows.
        y: Of the other, at least 2 rows.

    Raises:
        UserError: There are fewer rows.
    """
    _require(x, y)
    each_x, each_y = torch.arange(len(x)), torch.arange(len(x), len(x) + len(y))
    kernels = _Kernels(x, y, each_x, each_y)
    return float(kernels.discrepancy(torch.ones(len(x)).double(), torch.ones(len(y)).double()))


def kernel_estimate(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    x_clusters: Int[Tensor, " n"],
    y_clusters: Int[Tensor, " m"],
    *,
    seed: int = 0,
) -> Estimate:
    """Return the distance with a 95 % interval over other source videos like these.

    Pairs of clips of one source video are left out, within a set and between the sets: they are
    no independent draws, and sets that go on from the same first frames would seem nearer than
    they are. Whole source videos are drawn with replacement, and the deviations of the resamples
    from their median are put around the estimate.

    Args:
        x: Features of one set.
        y: Of the other.
        x_clusters: Number of the source video of each row; the same in both sets.
        y_clusters: Likewise.
        seed: Of the resampling.

    Raises:
        UserError: There are fewer than 2 rows, or 2 source videos, on a side.
    """
    _require(x, y)
    fewest = min(len(x_clusters.unique()), len(y_clusters.unique()))
    if fewest < 2:
        raise UserError(
            f"a kernel distance needs at least 2 source videos on each side, got {fewest}: give "
            "more"
        )
    kernels = _Kernels(x, y, x_clusters, y_clusters)
    value = float(kernels.discrepancy(torch.ones(len(x)).double(), torch.ones(len(y)).double()))
    labels, index = torch.cat([x_clusters, y_clusters]).unique(return_inverse=True)
    low = high = None
    if len(labels) > 2:
        generator = torch.Generator().manual_seed(seed)
        draws = []
        for _ in range(_NUM_RESAMPLES):
            drawn = torch.randint(len(labels), (len(labels),), generator=generator)
            weights = torch.bincount(drawn, minlength=len(labels)).double()[index]
            draws.append(kernels.discrepancy(weights[: len(x)], weights[len(x) :]))
        spread = torch.stack(draws)
        spread = spread[spread.isfinite()]
        ends = torch.quantile(spread, torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64))
        low, high = float(value + ends[0] - ends[1]), float(value + ends[2] - ends[1])
    return Estimate(value, low, high, num_clips=min(len(x), len(y)), num_scenes=fewest)


class _Kernels:
    """The three kernel matrices, with 0 for pairs of one cluster, and which pairs count."""

    def __init__(self, x: Tensor, y: Tensor, x_clusters: Tensor, y_clusters: Tensor) -> None:
        x, y = x.double(), y.double()
        self._pairs = [
            (_cubic(a, b), (m[:, None] != n).double())
            for (a, m), (b, n) in (
                ((x, x_clusters), (x, x_clusters)),
                ((y, y_clusters), (y, y_clusters)),
                ((x, x_clusters), (y, y_clusters)),
            )
        ]

    def discrepancy(self, w: Float64[Tensor, " n"], v: Float64[Tensor, " m"]) -> Tensor:
        """Return the estimate with row weights w and v."""
        weights = ((w, w), (v, v), (w, v))
        means = [
            (a @ (kernel * counts) @ b) / (a @ counts @ b)
            for (kernel, counts), (a, b) in zip(self._pairs, weights, strict=True)
        ]
        return means[0] + means[1] - 2 * means[2]


def _cubic(x: Tensor, y: Tensor) -> Float64[Tensor, "n m"]:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _require(x: Tensor, y: Tensor) -> None:
    fewest = min(len(x), len(y))
    if fewest < 2:
        raise UserError(
            f"a kernel distance needs at least 2 clips on each side, got {fewest}: give more"
        )
