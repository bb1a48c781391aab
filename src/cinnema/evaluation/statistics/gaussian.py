"""Means and covariances gathered batch by batch, and the Frechet distance between two of them.

    d^2 = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1^(1/2) S_2 S_1^(1/2))^(1/2))

Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions" (1982);
of Inception's features it is FID (Heusel et al., 2017), of I3D's FVD (Unterthiner et al., 2018).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cinnema.core.errors import UserError


class GaussianStatistics:
    """Count, mean and scatter of features in float64, however many there are.

    Two of them merge exactly as if one had seen all rows (Chan et al., 1979), so processes gather
    apart. Memory: 8 d (d + 1) bytes.

    Args:
        dim: d, length of a feature.

    Example:
        >>> statistics = GaussianStatistics(2)
        >>> statistics.add(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        >>> statistics.covariance.tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, dim: int) -> None:
        self.count = 0.0
        self.mean: Float64[Tensor, " d"] = torch.zeros(dim, dtype=torch.float64)
        self._scatter: Float64[Tensor, "d d"] = torch.zeros(dim, dim, dtype=torch.float64)
        self._root: Float64[Tensor, "d d"] | None = None

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return len(self.mean)

    @property
    def covariance(self) -> Float64[Tensor, "d d"]:
        """The unbiased covariance; NaN below two rows."""
        return self._scatter / (self.count - 1 if self.count > 1 else float("nan"))

    def root(self) -> Float64[Tensor, "d d"]:
        """Return the symmetric root of the covariance; kept until something is added."""
        if self._root is None:
            values, vectors = torch.linalg.eigh((self.covariance + self.covariance.mT) / 2)
            self._root = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
        return self._root

    def add(
        self, features: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None
    ) -> None:
        """Take rows in.

        Args:
            features: On any device, of any precision.
            weights: How often each row counts, at least 0; once if None.
        """
        rows = features.detach().to("cpu", torch.float64)
        w = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
        count = float(w.sum())
        if count == 0:
            return
        mean = (w @ rows) / count
        centred = rows - mean
        self._join(count, mean, (centred * w[:, None]).mT @ centred)

    def merge(self, other: "GaussianStatistics") -> None:
        """Take in all that another one has seen."""
        if other.count:
            self._join(other.count, other.mean, other._scatter)

    def _join(self, count: float, mean: Tensor, scatter: Tensor) -> None:
        self._root = None
        total = self.count + count
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self._scatter = (
            self._scatter + scatter + torch.outer(step, step) * (self.count * count / total)
        )
        self.count = total


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """Return d^2 between the Gaussians of two sets of features.

    By eigenvalues of symmetric matrices, so that it neither fails nor turns complex where there
    are fewer rows than dimensions.

    Args:
        first: One set, of two rows at least.
        second: The other, of features of the same length.

    Raises:
        UserError: A set has fewer than two rows, or their lengths differ.
    """
    if first.dim != second.dim:
        raise UserError(
            f"features of {first.dim} and of {second.dim} numbers cannot be compared: "
            "take both from one backbone"
        )
    fewest = min(first.count, second.count)
    if fewest < 2:
        raise UserError(
            f"a Frechet distance needs at least 2 clips on each side, got {fewest:g}: give more"
        )
    root = first.root()  # of the real clips, with which every contestant is compared
    middle = root @ second.covariance @ root
    cross = torch.linalg.eigvalsh((middle + middle.mT) / 2).clamp_min(0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return float((first.mean - second.mean).square().sum() + traces - 2 * cross)


@dataclass(frozen=True)
class Extrapolation:
    """A Frechet distance as the number of clips grows without end.

    Attributes:
        value: The line's height at 1/n = 0; NaN with fewer than three points.
        counts: n of each point.
        distances: d^2 of each point.
    """

    value: float
    counts: tuple[float, ...]
    distances: tuple[float, ...]


def extrapolate(counts: list[float], distances: list[float]) -> Extrapolation:
    """Fit d^2 = a + b / n by least squares and return a.

    Source: Chong and Forsyth, "Effectively Unbiased FID and Inception Score" (CVPR 2020).

    Args:
        counts: n of each point, above 0.
        distances: d^2 there.
    """
    value = float("nan")
    if len(set(counts)) >= 3:
        n = torch.tensor(counts, dtype=torch.float64)
        lines = torch.stack([torch.ones_like(n), 1 / n], dim=1)
        y = torch.tensor(distances, dtype=torch.float64)[:, None]
        value = float(torch.linalg.lstsq(lines, y).solution[0])
    return Extrapolation(value, tuple(counts), tuple(distances))
