"""The conditional invertible network between latents z and residuals nu."""

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.mixing import InvertibleLinear, Permutation
from cinnema.models.flow.transforms import ActNorm, AffineCoupling, Compose, LeakyReLU, Transform

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FlowConfig:
    """Everything that makes a `ConditionalFlow`, weights apart.

    Attributes:
        z_dim: Number of latent dimensions, at least 1, odd or even.
        condition_dim: Number of condition columns; 0 makes the flow unconditional.
        num_blocks: Number of blocks; 20 in the paper, 0 is the identity.
        coupling: What scale and shift come from: a perceptron (the paper), or a transformer over
            pieces of four numbers of z.
        hidden_dim: Width of the coupling networks; 8 * z_dim in the paper.
        depth: Number of hidden layers in each after the first; 2 in the paper. Of a transformer,
            the number of its blocks.
        log_scale_bound: Largest log-scale of a coupling, in nats a dimension; above 0, at most 10.
        dropout: Probability of dropping a hidden unit in training, from 0 to below 1.
        leaky_relu: Whether each block has a leaky ReLU of slope 0.9, as in the paper.
        mixing: What mixes dimensions after each block: a fixed permutation (the paper) or a
            learned invertible matrix that starts at one.
        seed: Of the permutations and of the first weights.

    Raises:
        ValueError: On a field that is unknown or out of range.
    """

    z_dim: PositiveCount
    condition_dim: Count = 0
    num_blocks: Count = 20
    coupling: Literal["mlp", "transformer"] = "mlp"
    hidden_dim: PositiveCount = 512
    depth: Count = 2
    log_scale_bound: Annotated[float, Field(gt=0, le=10)] = 1.5
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    leaky_relu: bool = True
    mixing: Literal["permutation", "linear"] = "permutation"
    seed: Count = 0


class ConditionalFlow(nn.Module):
    """A bijection between z and nu for every condition c, with nu standard normal.

    A block of `to_residual` is ActNorm, leaky ReLU, a coupling of the second half, a coupling of
    the first half, mixing. Couplings start at the identity. The density of a latent is

        log p(z | c) = log N(nu; 0, I) + log abs det d nu / d z,   nu = to_residual(z, c).

    Building it draws nothing from torch's global generator: the config alone decides the first
    weights. Before training call `initialise` once; nothing else changes the model's state.
    Dropout acts in training mode only and makes round trips inexact there. Under autocast the
    coupling networks alone run in low precision; round trips want none.

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
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        self.transform = Compose(
            [part for _ in range(config.num_blocks) for part in _block(config, generator)]
        )

    @property
    def is_initialised(self) -> bool:
        """Whether every ActNorm has seen data, here or before the weights were saved."""
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        return all(bool(norm.initialised) for norm in norms)

    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Set every ActNorm from one batch, in place of what it held.

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
        """Take the condition out of a latent.

        Args:
            z: Latents.
            c: Conditions.

        Returns:
            nu, and log abs det d nu / d z in nats.

        Raises:
            UserError: If a shape is not the config's.
        """
        self._require_shapes(z, c)
        return self.transform.to_residual(z, c)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Put a condition into a residual.

        Args:
            nu: Residuals.
            c: Conditions.

        Returns:
            z, and log abs det d z / d nu in nats.

        Raises:
            UserError: If a shape is not the config's.
        """
        self._require_shapes(nu, c)
        return self.transform.to_latent(nu, c)

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of each latent given its condition, in nats.

        Args:
            z: Latents.
            c: Conditions.

        Raises:
            UserError: If a shape is not the config's.
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
            temperature: Factor on nu; 0 gives the middle of the distribution, 1 the model itself.
            generator: Draws nu on its own device; torch's global one if None.

        Raises:
            UserError: If the temperature is negative or not finite, or the shape not the config's.
        """
        require_temperature(temperature)
        device = c.device if generator is None else generator.device
        shape = (len(c), self.config.z_dim)
        nu = torch.randn(shape, generator=generator, device=device, dtype=c.dtype)
        return self.to_latent(temperature * nu.to(c.device), c)[0]

    def _require_shapes(self, z: Tensor, c: Tensor) -> None:
        if z.shape[1] != self.config.z_dim:
            raise UserError(
                f"z: this flow has {self.config.z_dim} dimensions, got {z.shape[1]}; "
                "latents and flow must come from the same training"
            )
        if c.shape[1] != self.config.condition_dim:
            raise UserError(
                f"c: this flow has {self.config.condition_dim} condition columns, got "
                f"{c.shape[1]}; without conditions pass a tensor of shape (b, 0)"
            )
        if len(z) != len(c):
            raise UserError(
                f"c: needs one row for each latent, got {len(c)} rows for {len(z)} latents; "
                "repeat the condition"
            )


def require_temperature(temperature: float) -> None:
    """Refuse what is no factor on a deviation.

    Raises:
        UserError: If the temperature is negative or not finite.
    """
    if not 0 <= temperature < math.inf:
        raise UserError(
            f"temperature: must be finite and at least 0, got {temperature}; 1 samples the model"
        )


def _block(config: FlowConfig, generator: torch.Generator) -> list[Transform]:
    couplings = [
        AffineCoupling(
            config.z_dim,
            transforms=half,
            condition_dim=config.condition_dim,
            hidden_dim=config.hidden_dim,
            depth=config.depth,
            log_scale_bound=config.log_scale_bound,
            dropout=config.dropout,
            network=config.coupling,
            generator=generator,
        )
        for half in _HALVES
    ]
    leaky = [LeakyReLU()] if config.leaky_relu else []
    mixing = {"permutation": Permutation, "linear": InvertibleLinear}[config.mixing]
    return [ActNorm(config.z_dim), *leaky, *couplings, mixing(config.z_dim, generator=generator)]


_HALVES: tuple[Literal["first", "second"], ...] = ("second", "first")
