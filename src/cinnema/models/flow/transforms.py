"""The bijections a conditional flow is made of, each with its exact log-determinant."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError

STD_FLOOR = 1e-3
"""Smallest standard deviation used in a fit to data; smaller ones are raised to it.

Latents have unit scale.
"""


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
    - `initialise(z, c)` and `is_initialised` where parameters are set from data. Neither direction
      may change state, in training or in evaluation.
    - A line in the table of tests, `tests/models/flow/test_bijections.py`.

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
        """Set the parameters that depend on data from one batch. Most transforms have none.

        Args:
            z: A batch of this transform's inputs, at least two rows.
            c: Their conditions.
        """
        del z, c

    @property
    def is_initialised(self) -> bool:
        """Whether the parameters that depend on data have been set; True if there are none."""
        return True


class ActNorm(Transform):
    """Shift and scale every dimension: nu = (z - shift) * exp(log_scale).

    It is the identity until `initialise` is called. The buffer `initialised` is saved with the
    weights, so a resumed run knows its state.

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
        std_floor: Smaller standard deviations are raised to this, so a constant dimension is
            scaled by at most 1 / std_floor.
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
        """Set shift and scale so that this batch has mean 0 and standard deviation 1.

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

    @property
    def is_initialised(self) -> bool:
        """Whether `initialise` has been called, here or before the weights were saved."""
        return bool(self.initialised)

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
        UserError: If the slope is not positive, because there is then no inverse.
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


class Permutation(Transform):
    """Put the dimensions in a fixed random order: nu[:, i] = z[:, order[i]].

    The order is a buffer, so it is saved with the weights.

    Example:
        >>> z = torch.tensor([[1.0, 2.0, 3.0]])
        >>> nu, _ = Permutation(3, generator=torch.Generator().manual_seed(0)).to_residual(
        ...     z, z[:, :0]
        ... )
        >>> sorted(nu[0].tolist())
        [1.0, 2.0, 3.0]

    Args:
        z_dim: Number of dimensions.
        generator: Draws the order; torch's global one if None.
    """

    order: Tensor

    def __init__(self, z_dim: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(z_dim, generator=generator))

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Reorder; log_det = 0."""
        del c
        return z[:, self.order], z.new_zeros(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Put the order back; log_det = 0."""
        del c
        return nu[:, self.order.argsort()], nu.new_zeros(len(nu))


class InvertibleLinear(Transform):
    """Multiply by a learned matrix: nu = W z with W = P L U.

    P is a fixed random permutation, L unit lower triangular, U upper triangular with the diagonal
    exp(log_diagonal): W cannot become singular, and log abs det W = sum(log_diagonal) costs
    nothing. L and U start at the identity, so the map starts as a `Permutation`.

    Source: Kingma and Dhariwal, "Glow", 2018, equation 10. The reference starts at a random
    rotation; its factors are badly conditioned and grow worse when trained or rounded, so that
    twenty blocks would not be inverted to float32's precision. We start at a permutation.

    Example:
        >>> linear = InvertibleLinear(3, generator=torch.Generator().manual_seed(0))
        >>> z = torch.tensor([[1.0, 2.0, 3.0]])
        >>> nu, log_det = linear.to_residual(z, z[:, :0])
        >>> sorted(nu[0].tolist()), log_det.tolist()
        ([1.0, 2.0, 3.0], [0.0])

    Args:
        z_dim: Number of dimensions.
        generator: Draws the permutation; torch's global one if None.
    """

    order: Tensor

    def __init__(self, z_dim: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(z_dim, generator=generator))
        self.lower = nn.Parameter(torch.zeros(z_dim, z_dim))
        self.upper = nn.Parameter(torch.zeros(z_dim, z_dim))
        self.log_diagonal = nn.Parameter(torch.zeros(z_dim))

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Multiply by W; log_det = sum(log_diagonal)."""
        del c
        # The inverse solves in full precision, so this direction has to multiply in it too.
        with torch.autocast(z.device.type, enabled=False):
            z = z * self.log_diagonal.exp() + functional.linear(z, self.upper.triu(1))
            z = z + functional.linear(z, self.lower.tril(-1))
        return z[:, self.order], self.log_diagonal.sum().expand(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Solve two triangular systems; log_det = -sum(log_diagonal)."""
        del c
        precise = torch.promote_types(nu.dtype, torch.float32)  # torch solves in no lower one
        upper = self.upper.triu(1) + self.log_diagonal.exp().diag()
        columns = nu[:, self.order.argsort()].T.to(precise)
        # A unit triangular solve reads the diagonal of `lower` as ones, and nothing above it.
        columns = torch.linalg.solve_triangular(
            self.lower.to(precise), columns, upper=False, unitriangular=True
        )
        columns = torch.linalg.solve_triangular(upper.to(precise), columns, upper=True)
        return columns.T.to(nu.dtype), -self.log_diagonal.sum().expand(len(nu))


class Compose(Transform):
    """Transforms one after the other, in the order of `to_residual`.

    The log-determinant of a composition is the sum of its parts'.

    Example:
        >>> z = torch.tensor([[-4.0]])
        >>> twice = Compose([LeakyReLU(slope=0.5), LeakyReLU(slope=0.5)])
        >>> twice.to_residual(z, z[:, :0])[0]
        tensor([[-1.]])

    Args:
        transforms: The parts; an empty list is the identity.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(transforms)

    @property
    def is_initialised(self) -> bool:
        """Whether every part is."""
        return all(part.is_initialised for part in self._transforms())

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
        """Initialise each part from the output of the parts before it."""
        for part in self._transforms():
            part.initialise(z, c)
            z, _ = part.to_residual(z, c)

    def _transforms(self) -> list[Transform]:
        return [part for part in self.parts if isinstance(part, Transform)]
