"""Linear bijections that mix dimensions between couplings."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.flow.transforms import Transform


class Permutation(Transform):
    """Put the dimensions in a fixed random order: nu[:, i] = z[:, order[i]].

    The order is a buffer, so it travels with the weights.

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
    exp(log_diagonal): W can not become singular, and log abs det W = sum(log_diagonal) costs
    nothing. L and U start at the identity, so this is a `Permutation` that can learn to be more.

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
        # The inverse solves in full precision, so this direction multiplies in it too.
        with torch.autocast(z.device.type, enabled=False):
            z = z * self.log_diagonal.exp() + functional.linear(z, self.upper.triu(1))
            z = z + functional.linear(z, self.lower.tril(-1))
        return z[:, self.order], self.log_diagonal.sum().expand(len(z))

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Solve two triangular systems; log_det = -sum(log_diagonal)."""
        del c
        upper = self.upper.triu(1) + self.log_diagonal.exp().diag()
        columns = nu[:, self.order.argsort()].T
        # A unit triangular solve takes the diagonal of `lower` for ones and ignores what is above.
        columns = torch.linalg.solve_triangular(
            self.lower, columns, upper=False, unitriangular=True
        )
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        return columns.T, -self.log_diagonal.sum().expand(len(nu))
