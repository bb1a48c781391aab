"""Priors on latents: their common interface, and two baselines for the flow."""

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.flow.flow import require_temperature
from cinnema.models.flow.transforms import STD_FLOOR

# Ridge penalties to choose from, relative to the number of rows.
_PENALTIES = tuple(10 ** (exponent / 4) for exponent in range(-24, 17))


@runtime_checkable
class LatentPrior(Protocol):
    """A distribution of latents given a condition; `ConditionalFlow` is one."""

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of each latent given its condition, in nats."""
        ...

    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b z"]:
        """Draw one latent for each condition."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class GaussianPrior:
    """A Gaussian with full covariance that ignores the condition.

    All arithmetic is in float64 on the CPU; results have the dtype and device of the argument.

    Example:
        >>> z = torch.randn(100, 3)
        >>> prior = GaussianPrior.fit(z, z[:, :0])
        >>> prior.log_prob(z, z[:, :0]).shape
        torch.Size([100])

    Attributes:
        mean: Mean, float64.
        cholesky: Lower factor L of the covariance L L^T, float64.
        shrinkage: Weight of the diagonal in the covariance, from 0 to 1.
    """

    mean: Float[Tensor, " z"]
    cholesky: Float[Tensor, "z z"]
    shrinkage: float

    @classmethod
    def fit(cls, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> "GaussianPrior":
        """Fit mean and covariance; see `shrunk_covariance` for fewer rows than dimensions.

        Args:
            z: At least two rows, finite.
            c: Not used.

        Raises:
            UserError: With fewer than two rows or values that are not finite.
        """
        del c
        z = _exact(z, "z")
        mean = z.mean(dim=0)
        return _gaussian(mean, z - mean)

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of each latent, in nats; c is not used."""
        del c
        deviations = (z.to(self.mean) - self.mean).T
        nu: Tensor = torch.linalg.solve_triangular(self.cholesky, deviations, upper=False)
        log_det = -self.cholesky.diagonal().log().sum()
        return (log_det - 0.5 * (nu.square() + math.log(2 * math.pi)).sum(dim=0)).to(z)

    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b z"]:
        """Draw one latent for each row of c.

        Args:
            c: Only its number of rows, dtype and device matter.
            temperature: Factor on the deviation from the mean, at least 0.
            generator: Source of the draws; torch's global one if None.

        Raises:
            UserError: If the temperature is negative or not finite.
        """
        require_temperature(temperature)
        device = "cpu" if generator is None else generator.device
        shape = (len(c), len(self.mean))
        nu = torch.randn(shape, generator=generator, device=device, dtype=self.mean.dtype)
        return (self.mean + temperature * nu.to(self.mean) @ self.cholesky.T).to(c)


@final
@dataclass(frozen=True, kw_only=True)
class LinearGaussianPrior:
    """z = mean + (c - centre) weight + noise: ridge regression and a full-covariance Gaussian.

    The penalty and the noise are estimated from leave-one-out errors (in closed form), so that a
    regression with more columns than rows does not underestimate its noise.

    Example:
        >>> c = torch.randn(100, 2)
        >>> prior = LinearGaussianPrior.fit(c @ torch.ones(2, 3) + 0.1 * torch.randn(100, 3), c)
        >>> prior.sample(c).shape
        torch.Size([100, 3])

    Attributes:
        centre: Mean of the conditions, float64.
        weight: Slope, float64.
        residual: Distribution of z - (c - centre) weight.
        penalty: The chosen ridge penalty, relative to the number of rows, for columns of c scaled
            to standard deviation 1.
    """

    centre: Float[Tensor, " c"]
    weight: Float[Tensor, "c z"]
    residual: GaussianPrior
    penalty: float

    @classmethod
    def fit(
        cls,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b c"],
        *,
        groups: Int[Tensor, " b"] | None = None,
    ) -> "LinearGaussianPrior":
        """Fit slope and noise; the penalty is the one with the smallest leave-one-out error.

        Args:
            z: At least two rows, finite.
            c: Their conditions, finite, any number of columns.
            groups: The source of each row, for instance the video that a clip is cut from; at
                least two different ones. Sources are left out as a whole, because clips of one
                video predict each other too well. Each row is its own source if None.

        Raises:
            UserError: With fewer than two rows or sources, or values that are not finite.
        """
        z, c = _exact(z, "z"), _exact(c, "c")
        labels = torch.arange(len(z)) if groups is None else groups.detach().cpu()
        if len(labels.unique()) < 2:
            raise UserError("groups: at least 2 sources are needed to leave one out, got 1")
        centre, scale, mean = c.mean(dim=0), _floored_std(c), z.mean(dim=0)
        ridge = _Ridge((c - centre) / scale, z - mean, labels)
        errors = {penalty: ridge.errors_left_out(penalty) for penalty in _PENALTIES}
        # Divided by standard deviations, so that all dimensions count alike.
        costs = {p: (e / _floored_std(z)).square().sum().item() for p, e in errors.items()}
        penalty = min(costs, key=costs.__getitem__)
        return cls(
            centre=centre,
            weight=ridge.weight(penalty) / scale[:, None],
            residual=_gaussian(mean, errors[penalty]),
            penalty=penalty,
        )

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of each latent given its condition, in nats."""
        return self.residual.log_prob(z.to(self.weight) - self._shift(c), c).to(z)

    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b z"]:
        """Draw one latent for each condition.

        Args:
            c: Conditions.
            temperature: Factor on the noise, at least 0; 0 gives the regression itself.
            generator: Source of the draws; torch's global one if None.

        Raises:
            UserError: If the temperature is negative or not finite.
        """
        exact = c.to(self.weight)
        noise = self.residual.sample(exact, temperature=temperature, generator=generator)
        return (noise + self._shift(c)).to(c)

    def _shift(self, c: Tensor) -> Tensor:
        return (c.to(self.weight) - self.centre) @ self.weight


def shrunk_covariance(
    deviations: Float[Tensor, "b z"],
) -> tuple[Float[Tensor, "z z"], float]:
    """Covariance of rows with mean 0, shrunk towards its diagonal.

    With R the correlation matrix of n rows in p dimensions,

        C = (1 - rho) R + rho I,   rho from the oracle approximating shrinkage,

    and every row and column is multiplied by its standard deviation again. Shrinking correlations
    keeps the scale of each dimension, which shrinkage towards a multiple of I would not. The
    result is positive definite for every n of at least 1; standard deviations are at least
    `STD_FLOOR`.

    Source: Chen, Wiesel, Eldar and Hero, "Shrinkage algorithms for MMSE covariance estimation",
    2010, equation 23.

    Args:
        deviations: Rows minus their mean.

    Returns:
        The covariance, and rho from 0 to 1.
    """
    num_rows, z_dim = deviations.shape
    std = deviations.square().mean(dim=0).sqrt().clamp(min=STD_FLOOR)
    scaled = deviations / std
    correlation = scaled.T @ scaled / num_rows
    trace, trace_of_square = correlation.trace(), correlation.square().sum()
    excess = trace_of_square - trace.square() / z_dim
    numerator = (1 - 2 / z_dim) * trace_of_square + trace.square()
    denominator = (num_rows + 1 - 2 / z_dim) * excess
    # excess = 0: the correlation is a multiple of I already, and full shrinkage changes nothing.
    rho = min(1.0, (numerator / denominator).item()) if denominator > 0 else 1.0
    # The diagonal is 1, or less for a dimension whose standard deviation was raised: set it to 1.
    shrunk = (1 - rho) * correlation
    shrunk.fill_diagonal_(1.0)
    return shrunk * std * std[:, None], rho


def _gaussian(mean: Tensor, deviations: Tensor) -> GaussianPrior:
    covariance, shrinkage = shrunk_covariance(deviations)
    return GaussianPrior(mean=mean, cholesky=torch.linalg.cholesky(covariance), shrinkage=shrinkage)


class _Ridge:
    """Ridge regressions of z on c for any penalty, from one singular value decomposition."""

    def __init__(self, c: Tensor, z: Tensor, groups: Tensor) -> None:
        self.left: Tensor
        self.singular: Tensor
        self.right: Tensor
        self.left, self.singular, self.right = torch.linalg.svd(c, full_matrices=False)
        self.z = z
        self.members = [(groups == group).nonzero()[:, 0] for group in groups.unique()]

    def weight(self, penalty: float) -> Tensor:
        shrink = self.singular / (self.singular.square() + penalty * len(self.z))
        return self.right.T @ (shrink[:, None] * (self.left.T @ self.z))

    def errors_left_out(self, penalty: float) -> Tensor:
        """Errors of each group under the fit to all others: (I - H_gg)^-1 (z - H z)_g."""
        hat = self.singular.square() / (self.singular.square() + penalty * len(self.z))
        errors = self.z - self.left @ (hat[:, None] * (self.left.T @ self.z))
        if len(self.members) == len(self.z):
            leverage = (self.left.square() * hat).sum(dim=1) + 1 / len(self.z)
            return errors / (1 - leverage)[:, None].clamp(min=1e-9)
        left_out = torch.empty_like(errors)
        for rows in self.members:
            # 1 / n is the share of the mean, which is fitted too.
            hat_block = (self.left[rows] * hat) @ self.left[rows].T + 1 / len(self.z)
            identity = torch.eye(len(rows), dtype=hat_block.dtype)
            left_out[rows] = torch.linalg.solve(identity - hat_block, errors[rows])
        return left_out


def _exact(values: Tensor, name: str) -> Tensor:
    if len(values) < 2:
        raise UserError(f"{name}: at least 2 rows are needed to fit a prior, got {len(values)}")
    if not torch.isfinite(values).all():
        raise UserError(f"{name}: must be finite, got NaN or infinity; check the encoder")
    return values.detach().to("cpu", torch.float64)


def _floored_std(values: Tensor) -> Tensor:
    deviations = values - values.mean(dim=0)
    return deviations.square().mean(dim=0).sqrt().clamp(min=STD_FLOOR)
