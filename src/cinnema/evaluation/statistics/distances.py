"""Distances between two sets of features: Frechet, and nearest-neighbour coverage."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cinnema.core.errors import UserError


class GaussianStatistics:
    """Count, mean and scatter matrix of features, in float64, accumulated batch by batch.

    Merging two of them equals accumulating all rows in one (Chan et al., 1979), so processes can
    accumulate separately. Memory: 8 d (d + 1) bytes.

    Args:
        dim: Length d of a feature.

    Attributes:
        count: Number of rows, or the sum of their weights.
        mean: Their mean.

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
        """The unbiased covariance; NaN with fewer than two rows."""
        return self._scatter / (self.count - 1 if self.count > 1 else float("nan"))

    def root(self) -> Float64[Tensor, "d d"]:
        """Return the symmetric square root of the covariance, cached until rows are added.

        By eigenvalues and not by `scipy.linalg.sqrtm`, which is inaccurate for the rank-deficient
        covariance of fewer rows than dimensions.
        """
        if self._root is None:
            values, vectors = torch.linalg.eigh((self.covariance + self.covariance.mT) / 2)
            self._root = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
        return self._root

    def add(
        self, features: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None
    ) -> None:
        """Add rows.

        Args:
            features: Rows on any device, in any precision.
            weights: How often each row counts, at least 0; defaults to once.
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
        """Add the rows that another object has accumulated."""
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
    """Return the squared Frechet distance between the Gaussians of two sets of features.

        d^2 = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1^(1/2) S_2 S_1^(1/2))^(1/2))

    Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions"
    (1982); of Inception's features it is FID (Heusel et al., 2017), of I3D's FVD (Unterthiner et
    al., 2018).

    Args:
        first: One set, at least two rows.
        second: The other set, features of the same length.

    Raises:
        UserError: A set has fewer than two rows, or the lengths differ.
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
    root = first.root()  # of the real clips: computed once for all rows of the table
    middle = root @ second.covariance @ root
    cross = torch.linalg.eigvalsh((middle + middle.mT) / 2).clamp_min(0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return float((first.mean - second.mean).square().sum() + traces - 2 * cross)


@dataclass(frozen=True)
class Extrapolation:
    """A Frechet distance extrapolated to infinitely many clips.

    Attributes:
        value: Intercept of the fitted line at 1/n = 0; NaN with fewer than three points.
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
        distances: d^2 of each point.
    """
    value = float("nan")
    if len(set(counts)) >= 3:
        n = torch.tensor(counts, dtype=torch.float64)
        lines = torch.stack([torch.ones_like(n), 1 / n], dim=1)
        y = torch.tensor(distances, dtype=torch.float64)[:, None]
        value = float(torch.linalg.lstsq(lines, y).solution[0])
    return Extrapolation(value, tuple(counts), tuple(distances))


@dataclass(frozen=True)
class Coverage:
    """Fidelity and coverage of a set of samples, by nearest neighbours; 1 is best.

    The neighbourhood of a clip reaches to its k-th nearest neighbour in its own set.

    Attributes:
        precision: Share of samples inside the neighbourhood of a real clip, in [0, 1].
        recall: Share of real clips inside the neighbourhood of a sample, in [0, 1].
        density: Mean number of real neighbourhoods that contain a sample, over k; may exceed 1.
        coverage: Share of real clips whose neighbourhood contains a sample, in [0, 1].
        num_neighbours: k.
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

    Source: precision and recall, Kynkaanniemi et al. (NeurIPS 2019); density and coverage, Naeem
    et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (ICML 2020).

    Args:
        real: Features of real clips, more than k rows.
        samples: Features of generated clips, more than k rows.
        num_neighbours: k, at least 1; 5 in the source.

    Raises:
        UserError: A set has no more than k rows.
    """
    fewest = min(len(real), len(samples))
    if fewest <= num_neighbours:
        raise UserError(
            f"coverage by {num_neighbours} neighbours needs more than {num_neighbours} clips on "
            f"each side, got {fewest}: give more"
        )
    real, samples = real.double(), samples.double()
    radius, sample_radius = (_radius(x, num_neighbours) for x in (real, samples))
    apart = torch.cdist(real, samples)
    is_inside = apart < radius[:, None]
    return Coverage(
        precision=float(is_inside.any(dim=0).double().mean()),
        recall=float((apart < sample_radius).any(dim=1).double().mean()),
        density=float(is_inside.double().sum(dim=0).mean() / num_neighbours),
        coverage=float(is_inside.any(dim=1).double().mean()),
        num_neighbours=num_neighbours,
    )


def _radius(x: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Distance of each row to its k-th nearest other row."""
    return torch.cdist(x, x).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values
