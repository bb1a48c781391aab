"""Affine couplings, and the network that gives them scale and shift."""

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.models.flow.transforms import Transform

Half: TypeAlias = Literal["first", "second"]


class AffineCoupling(Transform):
    """Scale and shift one half by amounts that depend on the other half and on the condition.

    With a the half that changes and b the one that stays: a' = a * exp(s) + t and b' = b, where
    (raw, t) = network(b, c) and s = bound * tanh(raw / bound) lies within +-bound, or s = raw
    without a bound.

    The first half has the odd dimension. With one dimension the second half is empty: the first
    then depends on the condition alone, and a coupling of the second is the identity. In training
    mode with dropout a round trip is not exact, because each direction draws its own mask.

    Source: Dinh et al., "Density estimation using Real NVP", 2017, equation 7. The reference does
    not bound s; we do because an unbounded exp makes deep flows diverge.

    Example:
        >>> kept, changed = half_sizes(3, "second")
        >>> network = ConditionedNetwork(
        ...     kept, 2 * changed, condition_dim=2, hidden_dim=8, depth=1
        ... )
        >>> coupling = AffineCoupling(3, transforms="second", network=network)
        >>> nu, log_det = coupling.to_residual(torch.ones(1, 3), torch.ones(1, 2))
        >>> nu.tolist(), log_det.tolist()
        ([[1.0, 1.0, 1.0]], [0.0])

    Args:
        z_dim: Number of dimensions, at least 1.
        transforms: The half that changes.
        network: Maps b and c to `2 * changed` columns, raw log-scales and then shifts; see
            `half_sizes` for its sizes. A coupling that depends on the condition alone has a
            network that ignores b.
        log_scale_bound: Largest abs(s), in nats a dimension, above 0; None does not bound s.

    Raises:
        UserError: If the bound is not positive.
    """

    def __init__(
        self,
        z_dim: int,
        *,
        transforms: Half,
        network: nn.Module,
        log_scale_bound: float | None = 1.5,
    ) -> None:
        super().__init__()
        if log_scale_bound is not None and not log_scale_bound > 0:
            raise UserError(
                f"log_scale_bound: must be positive, got {log_scale_bound}; 1.5 is usual"
            )
        self.transforms = transforms
        self.log_scale_bound = log_scale_bound
        self.first_dim = (z_dim + 1) // 2
        self.network = network

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
        # Under autocast the network returns bfloat16; the bijection itself stays exact.
        raw, shift = self.network(kept, c).to(kept.dtype).chunk(2, dim=1)
        if self.log_scale_bound is None:
            return raw, shift
        return self.log_scale_bound * torch.tanh(raw / self.log_scale_bound), shift


def half_sizes(z_dim: int, transforms: Half) -> tuple[int, int]:
    """Return the number of dimensions that a coupling keeps, and the number that it changes."""
    first, second = (z_dim + 1) // 2, z_dim // 2
    return (second, first) if transforms == "first" else (first, second)


class ConditionedNetwork(nn.Module):
    """A multi-layer perceptron of (x, c) that returns 0 at first, with c modulating every layer.

    h = silu(entry([x, c])); then for each hidden layer (gamma, beta) = film(c) and
    h = dropout(silu((1 + gamma) * layer(h) + beta)); the result is exit(h). `film` and `exit` start
    at zero, so the first results are all 0 and c = 0 modulates nothing.

    Source of the modulation: Perez et al., "FiLM", 2018, equation 2.

    Example:
        >>> network = ConditionedNetwork(3, 2, condition_dim=4, hidden_dim=8, depth=1)
        >>> network(torch.ones(1, 3), torch.ones(1, 4)).tolist()
        [[0.0, 0.0]]

    Args:
        in_dim: Number of columns of x, may be 0.
        out_dim: Number of columns of the result, may be 0.
        condition_dim: Number of columns of c, may be 0.
        hidden_dim: Width of every layer.
        depth: Number of hidden layers after the first.
        dropout: Probability that a hidden unit is dropped in training, from 0 to below 1.
        generator: Draws the first weights; torch's global one if None.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        condition_dim: int,
        hidden_dim: int,
        depth: int,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.entry = random_linear(in_dim + condition_dim, hidden_dim, generator=generator)
        self.layers = nn.ModuleList(
            random_linear(hidden_dim, hidden_dim, generator=generator) for _ in range(depth)
        )
        self.films = nn.ModuleList(
            zero_linear(condition_dim, 2 * hidden_dim, bias=False) for _ in range(depth)
        )
        self.dropout = nn.Dropout(dropout)
        self.exit = zero_linear(hidden_dim, out_dim)

    def forward(self, x: Float[Tensor, "b x"], c: Float[Tensor, "b c"]) -> Float[Tensor, "b out"]:
        """Compute the result for each row."""
        h = functional.silu(self.entry(torch.cat([x, c], dim=1)))
        for layer, film in zip(self.layers, self.films, strict=True):
            gamma, beta = film(c).chunk(2, dim=1)
            h = self.dropout(functional.silu((1 + gamma) * layer(h) + beta))
        out: Tensor = self.exit(h)
        return out


class _UnsetLinear(nn.Linear):
    # torch's layer draws from the global generator, and warns where a layer has no inputs.
    def reset_parameters(self) -> None:
        pass


def random_linear(in_dim: int, out_dim: int, *, generator: torch.Generator | None) -> nn.Linear:
    """Return a linear layer with torch's default initialisation, U(+-1/sqrt(in_dim)).

    Args:
        in_dim: Number of columns in, may be 0.
        out_dim: Number of columns out, may be 0.
        generator: Draws the weights; torch's global one if None.
    """
    layer = _UnsetLinear(in_dim, out_dim)
    bound = 1 / math.sqrt(max(in_dim, 1))
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def zero_linear(in_dim: int, out_dim: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer whose weights and bias are 0, without drawing random numbers.

    Args:
        in_dim: Number of columns in, may be 0.
        out_dim: Number of columns out, may be 0.
        bias: Whether it has a bias.
    """
    layer = _UnsetLinear(in_dim, out_dim, bias=bias)
    nn.init.zeros_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
