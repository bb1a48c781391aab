"""A transformer as the network of a coupling: a row of the ablation ladder."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.flow.couplings import random_linear, zero_linear


class TokenNetwork(nn.Module):
    """A transformer over pieces of x that returns 0 at first, with c modulating every layer.

    x is cut into tokens of `token_dim` numbers, the last filled up with zeros; each becomes
    h_i = entry_i(x_i) + condition(c), with layers of its own. Each of `depth` blocks then takes

        h = h + attention(norm(h) (1 + gamma_1) + beta_1)
        h = h + mlp(norm(h) (1 + gamma_2) + beta_2),   (gamma_1, beta_1, gamma_2, beta_2) = film(c),

    and the result of each token is exit_i(norm(h_i)). `film` and `exit` start at zero, so the
    first results are all 0.

    Source: Ho et al., "Flow++", 2019, section 3.3, for attention in couplings; Peebles and Xie,
    "Scalable Diffusion Models with Transformers", 2023, section 3.2, for the modulation (without
    its gates, as the last layer is zero already).

    Example:
        >>> network = TokenNetwork(6, 4, condition_dim=4, hidden_dim=8, depth=1)
        >>> network(torch.ones(1, 6), torch.ones(1, 4)).tolist()
        [[0.0, 0.0, 0.0, 0.0]]

    Args:
        in_dim: Number of columns of x, may be 0.
        out_dim: Number of columns of the result, may be 0.
        condition_dim: Number of columns of c, may be 0.
        hidden_dim: Width of a token; there is a head for every 32 of it, or one in all where 32
            does not divide it.
        depth: Number of blocks.
        token_dim: Numbers of x in a token, at least 1.
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
        token_dim: int = 4,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.out_dim, self.token_dim = out_dim, token_dim
        self.num_tokens = max(1, math.ceil(in_dim / token_dim))
        each = math.ceil(out_dim / self.num_tokens)
        tokens = range(self.num_tokens)
        self.entries = nn.ModuleList(
            random_linear(token_dim, hidden_dim, generator=generator) for _ in tokens
        )
        self.condition = random_linear(condition_dim, hidden_dim, generator=generator)
        self.blocks = nn.ModuleList(
            _TokenBlock(hidden_dim, condition_dim, dropout=dropout, generator=generator)
            for _ in range(depth)
        )
        self.exits = nn.ModuleList(zero_linear(hidden_dim, each) for _ in tokens)

    def forward(self, x: Float[Tensor, "b x"], c: Float[Tensor, "b c"]) -> Float[Tensor, "b out"]:
        """Compute the result for each row."""
        missing = self.num_tokens * self.token_dim - x.shape[1]
        pieces = functional.pad(x, (0, missing)).chunk(self.num_tokens, dim=1)
        tokens = [entry(piece) for entry, piece in zip(self.entries, pieces, strict=True)]
        h = torch.stack(tokens, dim=1) + self.condition(c)[:, None]
        for block in self.blocks:
            h = block(h, c)
        last = _normalised(h).unbind(dim=1)
        results = [leave(token) for leave, token in zip(self.exits, last, strict=True)]
        # All tokens' first numbers, then all second ones: each contributes to scales and to shifts.
        return torch.stack(results, dim=2).flatten(1)[:, : self.out_dim]


class _TokenBlock(nn.Module):
    """Attention among tokens, then a perceptron on each; c scales and shifts what both read."""

    def __init__(
        self,
        hidden_dim: int,
        condition_dim: int,
        *,
        dropout: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.num_heads = max(1, hidden_dim // _HEAD_DIM) if hidden_dim % _HEAD_DIM == 0 else 1
        self.film = zero_linear(condition_dim, 4 * hidden_dim)
        self.ask = random_linear(hidden_dim, 3 * hidden_dim, generator=generator)
        self.gather = random_linear(hidden_dim, hidden_dim, generator=generator)
        self.widen = random_linear(hidden_dim, 4 * hidden_dim, generator=generator)
        self.narrow = random_linear(4 * hidden_dim, hidden_dim, generator=generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Float[Tensor, "b n d"], c: Float[Tensor, "b c"]) -> Float[Tensor, "b n d"]:
        gamma1, beta1, gamma2, beta2 = self.film(c)[:, None].chunk(4, dim=2)
        h = h + self.dropout(self._attended(_normalised(h) * (1 + gamma1) + beta1))
        wide = functional.silu(self.widen(_normalised(h) * (1 + gamma2) + beta2))
        out: Tensor = h + self.dropout(self.narrow(wide))
        return out

    def _attended(self, h: Tensor) -> Tensor:
        query, key, value = rearrange(
            self.ask(h), "b n (three heads d) -> three b heads n d", three=3, heads=self.num_heads
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.gather(rearrange(mixed, "b heads n d -> b n (heads d)"))
        return out


_HEAD_DIM = 32


def _normalised(h: Tensor) -> Tensor:
    return functional.layer_norm(h, h.shape[-1:])
