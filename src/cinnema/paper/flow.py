"""The published cINN: the bijection between latents and residuals."""

import math
from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.flow import require_temperature
from cinnema.models.flow.transforms import LeakyReLU, Transform
from cinnema.paper.actnorm import ActNorm

_FULL_EVERY = 4  # with a control, the blocks whose couplings see the latent too

LogDet: TypeAlias = Literal["exact", "published"]
PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PaperFlowConfig:
    """Everything that makes a `PaperFlow`, weights apart; names are the published ones.

    Attributes:
        in_channels: Number of latent dimensions, even.
        embedding_dim: Number of condition columns; with a control, the frame's embedding and the
            30 of the one-hots.
        hidden_dim: Width of the couplings' networks; 8 * in_channels in the paper.
        hidden_depth: Number of their hidden layers after the first; 2 in the paper.
        n_flows: Number of blocks; 20 in the paper.
        conditioning_option: The published `"None"`: every block sees the condition as it is.
        control: Whether three of every four blocks see the condition alone.
        log_det: `"exact"`, or `"published"` for the numbers of the released code: its leaky ReLU
            adds 0 where log(0.9) a negative entry is right. Values and samples do not depend on
            it, likelihoods do, by up to 135 nats at 20 blocks of 64 dimensions.

    Raises:
        ValueError: On a field that is unknown, missing or out of range.
    """

    in_channels: Annotated[int, Field(ge=2, multiple_of=2)]
    embedding_dim: PositiveCount
    hidden_dim: PositiveCount
    hidden_depth: Annotated[int, Field(ge=0)]
    n_flows: PositiveCount
    conditioning_option: Literal["None", "none"] = "None"
    control: bool = False
    log_det: LogDet = "exact"


class PaperFlow(Transform):
    """The cINN as published: nu = to_residual(z, c), a standard normal if z and c are of the data.

    `ConditionalFlow` is its successor; this one has the published state dict and
    couplings without a bound on their log-scales: exp(s) is not clamped, so a latent far from
    those of the training may end in infinity, as it does in the released code.

    Before training call `initialise` once; nothing else changes its state. First weights come from
    torch's global generator.

    Source: Dorkenwald et al., "Stochastic Image-to-Video Synthesis using cINNs", 2021, section 3.2.

    Example:
        >>> flow = PaperFlow(
        ...     PaperFlowConfig(
        ...         in_channels=4, embedding_dim=3, hidden_dim=8, hidden_depth=2, n_flows=2
        ...     )
        ... )
        >>> z, c = torch.randn(8, 4), torch.randn(8, 3)
        >>> flow.initialise(z, c)
        >>> nu, _ = flow.to_residual(z, c)
        >>> torch.allclose(flow.to_latent(nu, c)[0], z, atol=1e-5)
        True

    Args:
        config: Its sizes.
    """

    def __init__(self, config: PaperFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.sub_layers = nn.ModuleList(
            FlowBlock(config, sees_latent=not config.control or index % _FULL_EVERY == 0)
            for index in range(config.n_flows)
        )

    @property
    def is_initialised(self) -> bool:
        """Whether every ActNorm has seen data, here or before the weights were saved."""
        return all(bool(block.norm_layer.initialized) for block in self._blocks())

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Take the condition out of a latent.

        Args:
            z: Latents.
            c: Conditions: embeddings of first frames, and the control after them if there is one.

        Returns:
            nu, and log abs det d nu / d z in nats.

        Raises:
            UserError: If a shape is not the config's.
        """
        self._require_shapes(z, c)
        total = z.new_zeros(len(z))
        for block in self._blocks():
            z, log_det = block.to_residual(z, c)
            total = total + log_det
        return z, total

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
        total = nu.new_zeros(len(nu))
        for block in reversed(self._blocks()):
            nu, log_det = block.to_latent(nu, c)
            total = total + log_det
        return nu, total

    @torch.no_grad()
    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Set every ActNorm from one batch, in place of what it held.

        Args:
            z: Latents as they will be trained on; a few hundred rows or more are best.
            c: Their conditions.

        Raises:
            UserError: With fewer than two rows, values that are not finite, or a wrong shape.
        """
        self._require_shapes(z, c)
        for block in self._blocks():
            block.initialise(z, c)
            z, _ = block.to_residual(z, c)

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float[Tensor, " b"]:
        """Log-density of each latent given its condition, in nats; right if `log_det` is exact.

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
            temperature: Factor on nu; 1 gives the model itself.
            generator: Draws nu on its own device; torch's global one if None.

        Raises:
            UserError: If the temperature is negative or not finite, or the shape not the config's.
        """
        require_temperature(temperature)
        device = c.device if generator is None else generator.device
        shape = (len(c), self.config.in_channels)
        nu = torch.randn(shape, generator=generator, device=device, dtype=c.dtype)
        return self.to_latent(temperature * nu.to(c.device), c)[0]

    def _blocks(self) -> list["FlowBlock"]:
        return [block for block in self.sub_layers if isinstance(block, FlowBlock)]

    def _require_shapes(self, z: Tensor, c: Tensor) -> None:
        config = self.config
        if z.shape[1] != config.in_channels or c.shape != (len(z), config.embedding_dim):
            raise UserError(
                f"this flow takes latents of {config.in_channels} numbers and as many conditions "
                f"of {config.embedding_dim}, got shapes {tuple(z.shape)} and {tuple(c.shape)}; "
                "latents, conditions and flow must come from the same training"
            )


class FlowBlock(Transform):
    """ActNorm, a leaky ReLU of slope 0.9, two couplings, a permutation.

    Args:
        config: Of the flow.
        sees_latent: Whether the couplings see one half of the latent beside the condition.
    """

    def __init__(self, config: PaperFlowConfig, *, sees_latent: bool) -> None:
        super().__init__()
        self.norm_layer = VectorActNorm(config.in_channels)
        self.coupling = DoubleCoupling(config, sees_latent=sees_latent)
        exact = config.log_det == "exact"
        self.activation = LeakyReLU(slope=0.9) if exact else PublishedLeakyReLU(slope=0.9)
        self.shuffle = Shuffle(config.in_channels)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Run the parts from first to last."""
        total = z.new_zeros(len(z))
        for part in self._parts():
            z, log_det = part.to_residual(z, c)
            total = total + log_det
        return z, total

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Run the parts' inverses from last to first."""
        total = nu.new_zeros(len(nu))
        for part in reversed(self._parts()):
            nu, log_det = part.to_latent(nu, c)
            total = total + log_det
        return nu, total

    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Fit the ActNorm; no other part has anything to set."""
        self.norm_layer.initialise(z, c)

    def _parts(self) -> tuple[Transform, ...]:
        return self.norm_layer, self.activation, self.coupling, self.shuffle


class VectorActNorm(ActNorm, Transform):
    """The published ActNorm as a bijection of vectors: nu = scale * (z + loc).

    Args:
        num_channels: Number of dimensions.
    """

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Normalise; log_det = sum(log abs scale)."""
        del c
        nu = self.scale.flatten() * (z + self.loc.flatten())
        return nu, self.scale.abs().log().sum().expand(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Undo the normalisation; log_det = -sum(log abs scale)."""
        del c
        z = nu / self.scale.flatten() - self.loc.flatten()
        return z, -self.scale.abs().log().sum().expand(len(nu))

    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """See `ActNorm.fit`."""
        del c
        self.fit(z)


class PublishedLeakyReLU(LeakyReLU):
    """The leaky ReLU whose log-determinant is 0, as the released code has it.

    That is wrong by log(slope) for each negative entry. It is here because the published
    likelihoods, and the training that led to the published weights, contain it.

    Args:
        slope: Above 0.
    """

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Shrink negative entries; log_det is given as 0."""
        nu, log_det = super().to_residual(z, c)
        return nu, torch.zeros_like(log_det)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Stretch negative entries; log_det is given as 0."""
        z, log_det = super().to_latent(nu, c)
        return z, torch.zeros_like(log_det)


class DoubleCoupling(Transform):
    """Two affine couplings, the second with the halves swapped; they stay swapped.

    For i = 0, 1, with the halves (a, b) swapped before i = 1:

        b' = b * exp(s_i(h)) + t_i(h),   h = [a, c], or h = c where the latent is not seen,

    where s_i and t_i are networks of their own; the result is (a, b').

    Source: Dinh et al., "Density estimation using Real NVP", 2017, equation 7.

    Args:
        config: Of the flow.
        sees_latent: Whether s and t see a.
    """

    def __init__(self, config: PaperFlowConfig, *, sees_latent: bool) -> None:
        super().__init__()
        self.sees_latent = sees_latent
        half = config.in_channels // 2
        in_dim = config.embedding_dim + (half if sees_latent else 0)
        self.s = nn.ModuleList(PlainNetwork(in_dim, half, config=config) for _ in range(2))
        self.t = nn.ModuleList(PlainNetwork(in_dim, half, config=config) for _ in range(2))

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Scale, then shift, one half after the other; log_det = sum(s_0) + sum(s_1)."""
        a, b = z.chunk(2, dim=1)
        s0, t0 = self._log_scale_and_shift(0, a, c)
        b = b * s0.exp() + t0
        s1, t1 = self._log_scale_and_shift(1, b, c)
        a = a * s1.exp() + t1
        return torch.cat([b, a], dim=1), s0.sum(dim=1) + s1.sum(dim=1)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Shift back, then scale back, in the other order; log_det = -sum(s_0) - sum(s_1)."""
        b, a = nu.chunk(2, dim=1)
        s1, t1 = self._log_scale_and_shift(1, b, c)
        a = (a - t1) * (-s1).exp()
        s0, t0 = self._log_scale_and_shift(0, a, c)
        b = (b - t0) * (-s0).exp()
        return torch.cat([a, b], dim=1), -s0.sum(dim=1) - s1.sum(dim=1)

    def _log_scale_and_shift(self, index: int, kept: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.cat([kept, c], dim=1) if self.sees_latent else c
        # Under autocast the networks answer in bfloat16; the bijection itself stays exact.
        return self.s[index](h).to(kept.dtype), self.t[index](h).to(kept.dtype)


class PlainNetwork(nn.Module):
    """A multi-layer perceptron with leaky ReLUs of slope 0.01 between its layers.

    Args:
        in_dim: Number of inputs.
        out_dim: Number of outputs.
        config: Of the flow: width and number of hidden layers.
    """

    def __init__(self, in_dim: int, out_dim: int, *, config: PaperFlowConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        layers: list[nn.Module] = [nn.Linear(in_dim, width), nn.LeakyReLU()]
        for _ in range(config.hidden_depth):
            layers += [nn.Linear(width, width), nn.LeakyReLU()]
        self.main = nn.Sequential(*layers, nn.Linear(width, out_dim))

    def forward(self, h: Float[Tensor, "b h"]) -> Float[Tensor, "b out"]:
        """Compute the answer for each row."""
        answer: Tensor = self.main(h)
        return answer


class Shuffle(Transform):
    """A fixed random permutation: nu[:, i] = z[:, forward_shuffle_idx[i]].

    As `cinnema.models.flow.Permutation`, but the state dict holds the inverse too.

    Args:
        num_channels: Number of dimensions.
    """

    forward_shuffle_idx: Int64[Tensor, " z"]
    backward_shuffle_idx: Int64[Tensor, " z"]

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        order = torch.randperm(num_channels)
        self.register_buffer("forward_shuffle_idx", order)
        self.register_buffer("backward_shuffle_idx", order.argsort())

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Reorder; log_det = 0."""
        del c
        return z[:, self.forward_shuffle_idx], z.new_zeros(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Put the order back; log_det = 0."""
        del c
        return nu[:, self.backward_shuffle_idx], nu.new_zeros(len(nu))
