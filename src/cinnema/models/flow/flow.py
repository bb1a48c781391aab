"""The conditional invertible network (cINN) between latents z and residuals nu."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.couplings import AffineCoupling, ConditionedNetwork, Half, half_sizes
from cinnema.models.flow.transforms import (
    ActNorm,
    Compose,
    InvertibleLinear,
    LeakyReLU,
    Permutation,
    Transform,
)

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FlowConfig:
    """Sizes and options of a `ConditionalFlow`.

    Attributes:
        z_dim: Number of latent dimensions, at least 1, odd or even.
        condition_dim: Number of condition columns; 0 makes the flow unconditional.
        num_blocks: Number of blocks; 20 in the paper, 0 is the identity.
        coupling: The network that gives scale and shift: a multi-layer perceptron, as in the
            paper.
        hidden_dim: Width of the coupling networks; 8 * z_dim in the paper.
        depth: Number of hidden layers in each after the first; 2 in the paper.
        log_scale_bound: Largest log-scale of a coupling, in nats a dimension; above 0, at most 10.
        dropout: Probability of dropping a hidden unit in training, from 0 to below 1.
        leaky_relu: Whether each block has a leaky ReLU of slope 0.9, as in the paper.
        mixing: How dimensions are mixed after each block: by a fixed permutation (the paper) or
            by a learned invertible matrix that starts as a permutation.
        seed: Seed of the permutations and of the first weights.

    Raises:
        ValueError: On a field that is unknown or out of range.
    """

    z_dim: PositiveCount
    condition_dim: Count = 0
    num_blocks: Count = 20
    coupling: Literal["mlp"] = "mlp"
    hidden_dim: PositiveCount = 512
    depth: Count = 2
    log_scale_bound: Annotated[float, Field(gt=0, le=10)] = 1.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    leaky_relu: bool = True
    mixing: Literal["permutation", "linear"] = "permutation"
    seed: Count = 0


class NormalizingFlow(Transform):
    """A bijection between z and nu for every condition c, with nu standard normal.

    The density of a latent is

        log p(z | c) = log N(nu; 0, I) + log abs det d nu / d z,   nu = to_residual(z, c).

    Before training call `initialise` once; nothing else changes the model's state.

    Args:
        transform: The bijection.
        z_dim: Number of latent dimensions.
        condition_dim: Number of condition columns; 0 makes the flow unconditional.
    """

    def __init__(self, transform: Transform, *, z_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.z_dim, self.condition_dim = z_dim, condition_dim
        self.transform = transform

    @property
    def is_initialised(self) -> bool:
        """Whether every ActNorm has seen data, here or before the weights were saved."""
        return self.transform.is_initialised

    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Set every ActNorm from one batch, replacing its parameters.

        Args:
            z: Latents as they will be trained on; a few hundred rows or more are best.
            c: Their conditions.

        Raises:
            UserError: With fewer than two rows, values that are not finite, or a wrong shape.
        """
        self._require_shapes(z, c)
        self.transform.initialise(z, c)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals, which are independent of the condition.

        Args:
            z: Latents.
            c: Conditions.

        Returns:
            nu, and log abs det d nu / d z in nats.

        Raises:
            UserError: If a shape does not match the flow.
        """
        self._require_shapes(z, c)
        return self.transform.to_residual(z, c)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents that fit the condition.

        Args:
            nu: Residuals.
            c: Conditions.

        Returns:
            z, and log abs det d z / d nu in nats.

        Raises:
            UserError: If a shape does not match the flow.
        """
        self._require_shapes(nu, c)
        return self.transform.to_latent(nu, c)

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Return the log-density of each latent given its condition, in nats.

        Args:
            z: Latents.
            c: Conditions.

        Raises:
            UserError: If a shape does not match the flow.
        """
        nu, log_det = self.to_residual(z, c)
        return log_det - 0.5 * (nu.square() + math.log(2 * math.pi)).sum(dim=1)

    def sample(
        self,
        c: Float[Tensor, "b c"],
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b z"]:
        """Draw one latent for each condition: z = to_latent(temperature * nu, c).

        Args:
            c: Conditions.
            temperature: Factor on nu, at least 0; 0 gives the latent of nu = 0, 1 a sample of the
                model.
            generator: Draws nu on its own device; torch's global one if None.

        Raises:
            UserError: If the temperature is negative or not finite, or the shape does not match.
        """
        require_temperature(temperature)
        device = c.device if generator is None else generator.device
        shape = (len(c), self.z_dim)
        nu = torch.randn(shape, generator=generator, device=device, dtype=c.dtype)
        return self.to_latent(temperature * nu.to(c.device), c)[0]

    def _require_shapes(self, z: Tensor, c: Tensor) -> None:
        if z.shape[1] != self.z_dim:
            raise UserError(
                f"z: this flow has {self.z_dim} dimensions, got {z.shape[1]}; "
                "latents and flow must come from the same training"
            )
        if c.shape[1] != self.condition_dim:
            raise UserError(
                f"c: this flow has {self.condition_dim} condition columns, got "
                f"{c.shape[1]}; without conditions pass a tensor of shape (b, 0)"
            )
        if len(z) != len(c):
            raise UserError(
                f"c: needs one row for each latent, got {len(c)} rows for {len(z)} latents; "
                "repeat the condition"
            )


class ConditionalFlow(NormalizingFlow):
    """The cINN of cinnema.

    A block of `to_residual` is ActNorm, leaky ReLU, a coupling of the second half, a coupling of
    the first half, mixing. Couplings start at the identity.

    Building it draws nothing from torch's global generator: the config alone decides the first
    weights. Dropout acts in training mode only and makes round trips inexact there. Under autocast
    the coupling networks alone run in low precision; do not use autocast for round trips.

    Source: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using cINNs", 2021, section 3.2.

    Example:
        >>> flow = ConditionalFlow(FlowConfig(z_dim=4, condition_dim=2, num_blocks=2))
        >>> z, c = torch.randn(8, 4), torch.randn(8, 2)
        >>> flow.initialise(z, c)
        >>> nu, _ = flow.to_residual(z, c)
        >>> torch.allclose(flow.to_latent(nu, c)[0], z, atol=1e-5)
        True

    Args:
        config: Its sizes, see `FlowConfig`.
        network: Builds the network of a coupling, called as `ConditionedNetwork` is.
    """

    def __init__(
        self, config: FlowConfig, *, network: Callable[..., nn.Module] = ConditionedNetwork
    ) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        parts = [
            part
            for _ in range(config.num_blocks)
            for part in _block(config, network=network, generator=generator)
        ]
        super().__init__(Compose(parts), z_dim=config.z_dim, condition_dim=config.condition_dim)
        self.config = config


def require_temperature(temperature: float) -> None:
    """Check a temperature, the factor on nu.

    Raises:
        UserError: If the temperature is negative or not finite.
    """
    if not 0 <= temperature < math.inf:
        raise UserError(
            f"temperature: must be finite and at least 0, got {temperature}; 1 samples the model"
        )


def _block(
    config: FlowConfig, *, network: Callable[..., nn.Module], generator: torch.Generator
) -> list[Transform]:
    couplings = [_coupling(config, half, network=network, generator=generator) for half in _HALVES]
    leaky = [LeakyReLU()] if config.leaky_relu else []
    mixing = {"permutation": Permutation, "linear": InvertibleLinear}[config.mixing]
    return [ActNorm(config.z_dim), *leaky, *couplings, mixing(config.z_dim, generator=generator)]


def _coupling(
    config: FlowConfig,
    half: Half,
    *,
    network: Callable[..., nn.Module],
    generator: torch.Generator,
) -> AffineCoupling:
    kept_dim, changed_dim = half_sizes(config.z_dim, half)
    return AffineCoupling(
        config.z_dim,
        transforms=half,
        network=network(
            kept_dim,
            2 * changed_dim,
            condition_dim=config.condition_dim,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            dropout=config.dropout,
            generator=generator,
        ),
        log_scale_bound=config.log_scale_bound,
    )


_HALVES: tuple[Half, ...] = ("second", "first")
