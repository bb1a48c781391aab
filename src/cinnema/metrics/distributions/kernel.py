"""The kernel distance: an unbiased squared maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x . y / d + 1)^3

Unlike a Frechet distance it is not larger for fewer clips; it may be a little below 0.
Source: Binkowski et al., "Demystifying MMD GANs" (ICLR 2018).
"""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.metrics.scores import Estimate

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
    ones_x = torch.ones(len(x), dtype=torch.float64)
    ones_y = torch.ones(len(y), dtype=torch.float64)
    return float(_discrepancy(_Kernels(x, y), ones_x, ones_y))


def kernel_estimate(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    x_clusters: Int[Tensor, " n"],
    y_clusters: Int[Tensor, " m"],
    *,
    seed: int = 0,
) -> Estimate:
    """Return the distance with a 95 % interval over other source videos like these.

    Whole source videos are drawn with replacement; a clip's kernel with its own copies is left
    out, else copies would count as agreement. The deviations of the resamples from their median
    are put around the estimate.

    Args:
        x: Features of one set.
        y: Of the other.
        x_clusters: Number of the source video of each row; the same in both sets.
        y_clusters: Likewise.
        seed: Of the resampling.

    Raises:
        UserError: There are fewer than 2 rows on a side.
    """
    _require(x, y)
    kernels = _Kernels(x, y)
    value = float(_discrepancy(kernels, torch.ones(len(x)).double(), torch.ones(len(y)).double()))
    labels, index = torch.cat([x_clusters, y_clusters]).unique(return_inverse=True)
    low = high = None
    if len(labels) > 2:
        generator = torch.Generator().manual_seed(seed)
        draws = []
        for _ in range(_NUM_RESAMPLES):
            drawn = torch.randint(len(labels), (len(labels),), generator=generator)
            weights = torch.bincount(drawn, minlength=len(labels)).double()[index]
            draws.append(_discrepancy(kernels, weights[: len(x)], weights[len(x) :]))
        spread = torch.stack(draws)
        spread = spread[spread.isfinite()]
        ends = torch.quantile(spread, torch.tensor([0.025, 0.5, 0.975], dtype=torch.float64))
        low, high = float(value + ends[0] - ends[1]), float(value + ends[2] - ends[1])
    return Estimate(value, low, high, num_clips=len(x), num_scenes=len(labels))


class _Kernels:
    """The three kernel matrices; those of a set with itself have zeros on the diagonal."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.xx = _cubic(x, x).fill_diagonal_(0)
        self.yy = _cubic(y, y).fill_diagonal_(0)
        self.xy = _cubic(x, y)


def _cubic(x: Tensor, y: Tensor) -> Float64[Tensor, "n m"]:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _discrepancy(kernels: _Kernels, w: Tensor, v: Tensor) -> Tensor:
    """The estimate with row weights w and v; pairs of one row with itself are left out."""
    within_x = (w @ kernels.xx @ w) / (w.sum() ** 2 - w.square().sum())
    within_y = (v @ kernels.yy @ v) / (v.sum() ** 2 - v.square().sum())
    return within_x + within_y - 2 * (w @ kernels.xy @ v) / (w.sum() * v.sum())


def _require(x: Tensor, y: Tensor) -> None:
    fewest = min(len(x), len(y))
    if fewest < 2:
        raise UserError(
            f"a kernel distance needs at least 2 clips on each side, got {fewest}: give more"
        )
