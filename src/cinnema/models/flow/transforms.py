"""The bijections a conditional flow is made of, each with its exact log-determinant."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.flow.networks import ConditionedNetwork, TokenNetwork

STD_FLOOR = 1e-3
"""Smallest standard deviation that a fit to data believes; latents have unit scale."""


class Transform(nn.Module, ABC):
    """A map between latents z and residuals nu that is a bijection for every condition c.

    An implementer owes:

    - `to_residual(z, c)` and `to_latent(nu, c)`, each the exact inverse of the other for the same
      c, differentiable in all arguments and in the parameters. Rows are independent: no row of
      the result may depend on another row of the batch.
    - With each result its `log_det`, one number a row: the log of the absolute determinant of the
      Jacobian of *the direction just run*. `to_residual` returns log abs det d nu / d z,
      `to_latent` returns log abs det d z / d nu, so along a round trip they cancel. No caller
      ever changes a sign.
    - The dtype of its first argument in both results, in float32 and in float64.
    - `initialise(z, c)` where parameters are set from data, and only there: neither direction may
      change state, in training or in evaluation.
    - A line in the table of tests.

    Shapes: z and nu are `b z`, c is `b c` (c may have no columns), log_det is `b`.
    """

    @abstractmethod
    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals; the log-determinant is that of this direction."""

    @abstractmethod
    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents; the log-determinant is that of this direction."""

    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Set what depends on data from one batch. Most transforms have nothing to set.

        Args:
            z: A batch of this transform's inputs, at least two rows.
            c: Their conditions.
        """
        del z, c


class ActNorm(Transform):
    """Shift and scale every dimension: nu = (z - shift) * exp(log_scale).

    Until `initialise` is called it is the identity. The buffer `initialised` travels with the
    weights, so that a resumed run can tell.

    Source: Kingma and Dhariwal, "Glow", 2018, section 3.1. The reference initialises itself on its
    first call even in evaluation; we do it on demand because a model must not change when used.

    Example:
        >>> norm = ActNorm(2)
        >>> z = torch.tensor([[0.0, 7.0], [4.0, 7.0]])
        >>> norm.initialise(z, z[:, :0])
        >>> norm.to_residual(z, z[:, :0])[0]
        tensor([[-1.,  0.],
                [ 1.,  0.]], grad_fn=<MulBackward0>)

    Args:
        z_dim: Number of dimensions.
        std_floor: Deviations below this count as this, so a constant dimension is scaled by at
            most 1 / std_floor.
    """

    initialised: Tensor

    def __init__(self, z_dim: int, *, std_floor: float = STD_FLOOR) -> None:
        super().__init__()
        self.std_floor = std_floor
        self.shift = nn.Parameter(torch.zeros(z_dim))
        self.log_scale = nn.Parameter(torch.zeros(z_dim))
        self.register_buffer("initialised", torch.tensor(False))

    @torch.no_grad()
    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Choose shift and scale such that this batch gets mean 0 and deviation 1.

        Args:
            z: At least two rows, finite.
            c: Not used.

        Raises:
            UserError: With fewer than two rows, or with values that are not finite.
        """
        del c
        if len(z) < 2:
            raise UserError(
                f"z: ActNorm needs at least 2 rows to measure a deviation, got {len(z)}; "
                "initialise with a larger batch"
            )
        if not torch.isfinite(z).all():
            raise UserError(
                "z: ActNorm needs finite values, got NaN or infinity; check the latents"
            )
        # correction=0: a maximum-likelihood fit, and defined for every batch size.
        std, mean = torch.std_mean(z, dim=0, correction=0)
        self.shift.copy_(mean)
        self.log_scale.copy_(-std.clamp(min=self.std_floor).log())
        self.initialised.fill_(True)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Normalise; log_det = sum(log_scale)."""
        del c
        return (z - self.shift) * self.log_scale.exp(), self.log_scale.sum().expand(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Undo the normalisation; log_det = -sum(log_scale)."""
        del c
        z = nu * (-self.log_scale).exp() + self.shift
        return z, -self.log_scale.sum().expand(len(nu))


class LeakyReLU(Transform):
    """Multiply negative entries by a slope: nu = z if z >= 0 else slope * z.

    The reference returns a log-determinant of 0; we return log(slope) for each negative entry,
    because otherwise likelihoods are off by a hundred nats.

    Example:
        >>> z = torch.tensor([[2.0, -2.0]])
        >>> LeakyReLU(slope=0.5).to_residual(z, z[:, :0])[0]
        tensor([[ 2., -1.]])

    Args:
        slope: Above 0; 1 is the identity.

    Raises:
        UserError: If the slope is not positive, for then there is no inverse.
    """

    def __init__(self, *, slope: float = 0.9) -> None:
        super().__init__()
        if not slope > 0:
            raise UserError(f"slope: must be positive to be invertible, got {slope}; 0.9 is usual")
        self.slope = slope

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Shrink negative entries; log_det = log(slope) * number of negative entries."""
        del c
        negative = z < 0
        log_det = negative.sum(dim=1).to(z.dtype) * math.log(self.slope)
        return torch.where(negative, z * self.slope, z), log_det

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Stretch negative entries; log_det = -log(slope) * number of negative entries."""
        del c
        negative = nu < 0
        log_det = negative.sum(dim=1).to(nu.dtype) * -math.log(self.slope)
        return torch.where(negative, nu / self.slope, nu), log_det


class AffineCoupling(Transform):
    """Scale and shift one half by amounts that depend on the other half and on the condition.

    With a the half that changes and b the one that stays: a' = a * exp(s) + t and b' = b, where
    (raw, t) = network(b, c) and s = bound * tanh(raw / bound) lies within +-bound. The
    network's last layer starts at zero, so the coupling starts at the identity.

    The first half has the odd dimension. With one dimension the second half is empty: the first
    then depends on the condition alone, and a coupling of the second is the identity. In training
    mode with dropout a round trip is not exact, for each direction draws its own mask.

    Source: Dinh et al., "Density estimation using Real NVP", 2017, equation 7. The reference does
    not bound s; we do because an unbounded exp makes deep flows diverge.

    Example:
        >>> coupling = AffineCoupling(3, transforms="second", condition_dim=2)
        >>> nu, log_det = coupling.to_residual(torch.ones(1, 3), torch.ones(1, 2))
        >>> nu.tolist(), log_det.tolist()
        ([[1.0, 1.0, 1.0]], [0.0])

    Args:
        z_dim: Number of dimensions, at least 1.
        transforms: The half that changes.
        condition_dim: Number of columns of c, may be 0.
        hidden_dim: Width of the network.
        depth: Number of hidden layers after the first, or of blocks of a transformer.
        log_scale_bound: Largest abs(s), in nats a dimension; above 0.
        dropout: Probability that a hidden unit is dropped in training, from 0 to below 1.
        network: What reads b and c: a perceptron (`ConditionedNetwork`), or a transformer over
            pieces of b (`TokenNetwork`).
        generator: Draws the first weights; torch's global one if None.

    Raises:
        UserError: If the bound is not positive.
    """

    def __init__(
        self,
        z_dim: int,
        *,
        transforms: Literal["first", "second"],
        condition_dim: int = 0,
        hidden_dim: int = 64,
        depth: int = 2,
        log_scale_bound: float = 1.5,
        dropout: float = 0.0,
        network: Literal["mlp", "transformer"] = "mlp",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not log_scale_bound > 0:
            raise UserError(
                f"log_scale_bound: must be positive, got {log_scale_bound}; 1.5 is usual"
            )
        self.transforms = transforms
        self.log_scale_bound = log_scale_bound
        self.first_dim = (z_dim + 1) // 2
        second_dim = z_dim - self.first_dim
        sizes = {"first": (second_dim, self.first_dim), "second": (self.first_dim, second_dim)}
        kept_dim, changed_dim = sizes[transforms]
        self.network = _NETWORKS[network](
            kept_dim,
            2 * changed_dim,
            condition_dim=condition_dim,
            hidden_dim=hidden_dim,
            depth=depth,
            dropout=dropout,
            generator=generator,
        )

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Scale, then shift; log_det = sum(s)."""
        changed, kept = self._split(z)
        log_scale, shift = self._log_scale_and_shift(kept, c)
        return self._join(changed * log_scale.exp() + shift, kept), log_scale.sum(dim=1)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Shift back, then scale back; log_det = -sum(s)."""
        changed, kept = self._split(nu)
        log_scale, shift = self._log_scale_and_shift(kept, c)
        return self._join((changed - shift) * (-log_scale).exp(), kept), -log_scale.sum(dim=1)

    def _split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z[:, : self.first_dim], z[:, self.first_dim :]
        return (first, second) if self.transforms == "first" else (second, first)

    def _join(self, changed: Tensor, kept: Tensor) -> Tensor:
        halves = (changed, kept) if self.transforms == "first" else (kept, changed)
        return torch.cat(halves, dim=1)

    def _log_scale_and_shift(self, kept: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        # Under autocast the network answers in bfloat16; the bijection itself stays exact.
        raw, shift = self.network(kept, c).to(kept.dtype).chunk(2, dim=1)
        return self.log_scale_bound * torch.tanh(raw / self.log_scale_bound), shift


_NETWORKS: dict[str, type[ConditionedNetwork | TokenNetwork]] = {
    "mlp": ConditionedNetwork,
    "transformer": TokenNetwork,
}


class Compose(Transform):
    """Transforms one after the other, in the order of `to_residual`.

    The log-determinant of a composition is the sum of its parts'.

    Example:
        >>> z = torch.tensor([[-4.0]])
        >>> twice = Compose([LeakyReLU(slope=0.5), LeakyReLU(slope=0.5)])
        >>> twice.to_residual(z, z[:, :0])[0]
        tensor([[-1.]])

    Args:
        transforms: The parts; none at all is the identity.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(transforms)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Run the parts from first to last."""
        total = z.new_zeros(len(z))
        for part in self._transforms():
            z, log_det = part.to_residual(z, c)
            total = total + log_det
        return z, total

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Run the parts' inverses from last to first."""
        total = nu.new_zeros(len(nu))
        for part in reversed(self._transforms()):
            nu, log_det = part.to_latent(nu, c)
            total = total + log_det
        return nu, total

    @torch.no_grad()
    def initialise(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> None:
        """Initialise each part from what the parts before it make of the batch."""
        for part in self._transforms():
            part.initialise(z, c)
            z, _ = part.to_residual(z, c)

    def _transforms(self) -> list[Transform]:
        return [part for part in self.parts if isinstance(part, Transform)]
