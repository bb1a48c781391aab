"""The small network inside a coupling."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ConditionedNetwork(nn.Module):
    """A multi-layer perceptron of (x, c) that starts at zero and hears c at every layer.

    h = silu(entry([x, c])); then for each hidden layer (gamma, beta) = film(c) and
    h = dropout(silu((1 + gamma) * layer(h) + beta)); the result is exit(h). `film` and `exit` start
    at zero, so the first answers are all 0 and c = 0 modulates nothing.

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
        self.entry = _random_linear(in_dim + condition_dim, hidden_dim, generator=generator)
        self.layers = nn.ModuleList(
            _random_linear(hidden_dim, hidden_dim, generator=generator) for _ in range(depth)
        )
        self.films = nn.ModuleList(
            _zero_linear(condition_dim, 2 * hidden_dim, bias=False) for _ in range(depth)
        )
        self.dropout = nn.Dropout(dropout)
        self.exit = _zero_linear(hidden_dim, out_dim)

    def forward(self, x: Float[Tensor, "b x"], c: Float[Tensor, "b c"]) -> Float[Tensor, "b out"]:
        """Compute the answer for each row."""
        h = functional.silu(self.entry(torch.cat([x, c], dim=1)))
        for layer, film in zip(self.layers, self.films, strict=True):
            gamma, beta = film(c).chunk(2, dim=1)
            h = self.dropout(functional.silu((1 + gamma) * layer(h) + beta))
        answer: Tensor = self.exit(h)
        return answer


class _UnsetLinear(nn.Linear):
    # torch's layer draws from the global generator, and warns where a layer has no inputs.
    def reset_parameters(self) -> None:
        pass


def _random_linear(in_dim: int, out_dim: int, *, generator: torch.Generator | None) -> nn.Linear:
    # The distribution is torch's own, U(+-1/sqrt(in_dim)).
    layer = _UnsetLinear(in_dim, out_dim)
    bound = 1 / math.sqrt(max(in_dim, 1))
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _zero_linear(in_dim: int, out_dim: int, *, bias: bool = True) -> nn.Linear:
    layer = _UnsetLinear(in_dim, out_dim, bias=bias)
    nn.init.zeros_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
