"""A rectified flow of latents: a prior of equal size to compare with the cINN.

A network learns the velocity of straight lines from noise to latents. Samples and likelihoods are
integrals of the velocity, approximated in steps, whereas a cINN computes them exactly.
"""

import math
from typing import Annotated, cast

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.couplings import ConditionedNetwork
from cinnema.models.flow.flow import require_temperature
from cinnema.models.flow.priors import GaussianPrior

# The network takes sines and cosines of pi t, 2 pi t, and so on.
_NUM_FREQUENCIES = 8

PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RectifiedConfig:
    """Sizes and options of a `RectifiedPrior`.

    Attributes:
        z_dim: Number of latent dimensions.
        condition_dim: Number of condition columns; 0 makes the prior unconditional.
        hidden_dim: Width of the velocity network.
        depth: Number of hidden layers after the first.
        dropout: Probability of dropping a hidden unit in training, from 0 to below 1.
        num_steps: Number of steps of Heun's method from noise to latent or back; each evaluates
            the network twice.
        seed: Seed of the initial weights.

    Raises:
        ValueError: A field is unknown or out of range.
    """

    z_dim: PositiveCount
    condition_dim: int = Field(default=0, ge=0)
    hidden_dim: PositiveCount = 512
    depth: int = Field(default=4, ge=0)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    num_steps: PositiveCount = 16
    seed: int = Field(default=0, ge=0)


class RectifiedPrior(nn.Module):
    """p(z | c) defined by a velocity v: dx / dt = v(x, t, c) maps x_0 = nu ~ N(0, I) to x_1 = z.

    The velocity at x_t = (1 - t) nu + t z is trained to be the mean of z - nu over all pairs whose
    line passes through x_t: the loss is E ||v(x_t, t, c) - (z - nu)||^2 with random nu and t. Like
    a cINN it is a bijection for every c; its density follows from the divergence along the path:

        log p(z | c) = log N(nu; 0, I) - int_0^1 tr d v(x_t, t, c) / d x_t dt.

    The divergence is exact and needs z_dim backward passes, so a likelihood costs about z_dim times
    as much as a sample.

    The flow acts on whitened latents, L^-1 (z - shift), with `shift` and the Cholesky factor
    `spread` L set by `initialise`. The network is added to the velocity of a standard normal,

        v(x, t, c) = (2 t - 1) / ((1 - t)^2 + t^2) x + network(x, t, c),

    so an untrained prior is a Gaussian fit to the latents.

    Source: Liu et al., "Flow Straight and Fast" (rectified flow), 2023, equations 1 and 2; Chen et
    al., "Neural Ordinary Differential Equations", 2018, equation 8, for the density; Karras et al.,
    "Elucidating the Design Space", 2022, algorithm 1, for Heun's method, and section 5 for the
    analytical part of the velocity.

    Example:
        >>> prior = RectifiedPrior(RectifiedConfig(z_dim=4, condition_dim=2, hidden_dim=8)).eval()
        >>> z, c = torch.randn(8, 4), torch.randn(8, 2)
        >>> prior.initialise(z, c)
        >>> prior.sample(c).shape, prior.log_prob(z, c).shape
        (torch.Size([8, 4]), torch.Size([8]))

    Args:
        config: Sizes and options.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, config: RectifiedConfig) -> None:
        super().__init__()
        self.config = config
        self.velocity = ConditionedNetwork(
            config.z_dim,
            config.z_dim,
            condition_dim=config.condition_dim + 2 * _NUM_FREQUENCIES,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            dropout=config.dropout,
            generator=torch.Generator().manual_seed(config.seed),
        )
        self.register_buffer("shift", torch.zeros(config.z_dim))
        self.register_buffer("spread", torch.eye(config.z_dim))

    @torch.no_grad()
    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Set mean and covariance for whitening from one batch (see `GaussianPrior`).

        Args:
            z: Training latents, at least two rows, finite.
            c: Their conditions.

        Raises:
            UserError: There are fewer than two rows, values that are not finite, or a wrong shape.
        """
        self._require_shapes(z, c)
        gaussian = GaussianPrior.fit(z, c)
        self.shift.copy_(gaussian.mean)
        self.spread.copy_(gaussian.cholesky)

    def loss(
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b c"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the velocity per dimension, at a random time per row.

        Args:
            z: Latents.
            c: Conditions.
            generator: Source of nu and t. Defaults to torch's global generator.

        Raises:
            UserError: A shape does not match the config.
        """
        self._require_shapes(z, c)
        device = z.device if generator is None else generator.device
        nu = torch.randn(z.shape, generator=generator, device=device, dtype=z.dtype).to(z)
        # One time in each of b equal intervals (stratified), which reduces the variance.
        place = torch.rand(len(z), generator=generator, device=device, dtype=z.dtype).to(z)
        t = (torch.arange(len(z)).to(z) + place) / len(z)
        target = self._whitened(z) - nu
        error = self._velocity(nu + t[:, None] * target, t, c) - target
        return error.square().mean()

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"], *, num_steps: int | None = None
    ) -> Float[Tensor, "b z"]:
        """Integrate the velocity from residuals to latents.

        Args:
            nu: Residuals.
            c: Conditions.
            num_steps: Number of steps of Heun's method. Defaults to the config's.

        Raises:
            UserError: A shape does not match the config, or `num_steps` is less than 1.
        """
        self._require_shapes(nu, c)
        x = nu
        for start, end in self._steps(num_steps):
            x = x + (end - start) * self._slope(x, start, end, c)
        return x @ self.spread.T + self.shift

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"], *, num_steps: int | None = None
    ) -> Float[Tensor, "b z"]:
        """Integrate the velocity back from latents to residuals; approximately inverts `to_latent`.

        Args:
            z: Latents.
            c: Conditions.
            num_steps: Number of steps of Heun's method. Defaults to the config's.

        Raises:
            UserError: A shape does not match the config, or `num_steps` is less than 1.
        """
        self._require_shapes(z, c)
        x = self._whitened(z)
        for start, end in reversed(self._steps(num_steps)):
            x = x + (start - end) * self._slope(x, end, start, c)
        return x

    @torch.no_grad()
    def log_prob(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"], *, num_steps: int | None = None
    ) -> Float[Tensor, " b"]:
        """Return the log-density of each latent given its condition, in nats; not differentiable.

        Args:
            z: Latents.
            c: Conditions.
            num_steps: Number of steps of Heun's method. Defaults to the config's.

        Raises:
            UserError: A shape does not match the config, or `num_steps` is less than 1.
        """
        self._require_shapes(z, c)
        x = self._whitened(z)
        divergence = z.new_zeros(len(z))
        for start, end in reversed(self._steps(num_steps)):
            step = end - start
            late, late_trace = self.velocity_and_divergence(x, end, c)
            early, early_trace = self.velocity_and_divergence(x - step * late, start, c)
            x = x - step * 0.5 * (late + early)
            divergence = divergence + step * 0.5 * (late_trace + early_trace)
        base = -0.5 * (x.square() + math.log(2 * math.pi)).sum(dim=1)
        return base - divergence - self.spread.diagonal().log().sum()

    @torch.no_grad()
    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        num_steps: int | None = None,
    ) -> Float[Tensor, "b z"]:
        """Draw one latent for each condition: z = to_latent(temperature * nu, c).

        Args:
            c: Conditions.
            temperature: Factor on nu; 1 samples the model.
            generator: Source of nu. Defaults to torch's global generator.
            num_steps: Number of steps of Heun's method. Defaults to the config's.

        Raises:
            UserError: The temperature is negative or not finite, the shape does not match the
                config, or `num_steps` is less than 1.
        """
        require_temperature(temperature)
        device = c.device if generator is None else generator.device
        shape = (len(c), self.config.z_dim)
        nu = torch.randn(shape, generator=generator, device=device, dtype=c.dtype)
        return self.to_latent(temperature * nu.to(c.device), c, num_steps=num_steps)

    def _steps(self, num_steps: int | None) -> list[tuple[float, float]]:
        num = self.config.num_steps if num_steps is None else num_steps
        if num < 1:
            raise UserError(
                f"num_steps must be at least 1, got {num}: {self.config.num_steps} fits"
            )
        return [(i / num, (i + 1) / num) for i in range(num)]

    def _slope(self, x: Tensor, here: float, there: float, c: Tensor) -> Tensor:
        """Return the mean of the velocities at both ends of a step (Heun's method)."""
        first = self.velocity_at(x, here, c)
        second = self.velocity_at(x + (there - here) * first, there, c)
        return 0.5 * (first + second)

    def velocity_and_divergence(
        self, x: Float[Tensor, "b z"], t: float, c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Return the velocity at time t, and the trace of its Jacobian; not differentiable."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            out, trace = self.velocity_at(x, t, c), x.new_zeros(len(x))
            # Rows are independent: the gradient of a column's sum is a row of all Jacobians.
            for i, total in enumerate(out.sum(dim=0)):
                (gradient,) = torch.autograd.grad(total, x, retain_graph=True)
                trace = trace + gradient[:, i]
        return out.detach(), trace.detach()

    def velocity_at(
        self, x: Float[Tensor, "b z"], t: float, c: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b z"]:
        """Return the velocity of each row at time t."""
        return self._velocity(x, x.new_full((len(x),), t), c)

    def _velocity(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        waves = math.pi * torch.arange(1, _NUM_FREQUENCIES + 1).to(t) * t[:, None]
        inputs = torch.cat([c, waves.sin(), waves.cos()], dim=1)
        of_normal = (2 * t - 1) / ((1 - t).square() + t.square())
        return of_normal[:, None] * x + cast(Tensor, self.velocity(x, inputs)).to(x.dtype)

    def _whitened(self, z: Tensor) -> Tensor:
        columns = (z - self.shift).T
        return cast(Tensor, torch.linalg.solve_triangular(self.spread, columns, upper=False)).T

    def _require_shapes(self, z: Tensor, c: Tensor) -> None:
        config = self.config
        if z.shape[1] != config.z_dim or c.shape != (len(z), config.condition_dim):
            raise UserError(
                f"this prior takes latents of {config.z_dim} numbers and as many conditions of "
                f"{config.condition_dim}, got shapes {tuple(z.shape)} and {tuple(c.shape)}; "
                "latents, conditions and prior must come from the same training"
            )
