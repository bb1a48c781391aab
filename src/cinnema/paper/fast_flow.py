"""The published cINN with constant weights: the same bijection in fewer, larger operations."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.flow.transforms import Permutation
from cinnema.paper.actnorm import ActNorm

_SLOPE = 0.01  # of the leaky ReLUs of the couplings' networks


@dataclass(frozen=True)
class _Layer:
    """The same layer of both networks of a coupling, for log-scales and for shifts."""

    weight: Float[Tensor, "2 in out"]
    bias: Float[Tensor, "2 1 out"]


@dataclass(frozen=True)
class _Coupling:
    """A coupling; the first layer of its networks is split into what sees z and what sees c."""

    kept: slice
    changed: slice
    entry: Float[Tensor, "half width"] | None
    layers: tuple[_Layer, ...]


@dataclass(frozen=True)
class _Block:
    shift: Float[Tensor, "1 z"]
    scale: Float[Tensor, "1 z"]
    couplings: tuple[_Coupling, ...]
    order: Tensor
    inverse: Tensor


class FastFlow:
    """A copy of a `PaperFlow` for evaluation without gradients, exactly invertible as that is.

    What c contributes to the first layers is one product for all couplings, and is kept for the
    next call with the same c. The networks for log-scales and for shifts run as one batch. Vectors
    are changed in place. Results differ from those of the flow in the last bits.

    Args:
        blocks: Parts of the flow.
        counts_slope: Whether the leaky ReLUs count in the log-determinant.
    """

    def __init__(self, blocks: Iterable[Any], *, counts_slope: bool) -> None:
        self._blocks: list[_Block] = []
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for norm, leaky, couplings, shuffle in (block.parts for block in blocks):
            self._slope = float(leaky.slope)
            made = tuple(_packed(coupling, weights, biases) for coupling in couplings.parts)
            self._blocks.append(_block(norm, made, shuffle))
        self._condition_weight = torch.cat(weights).T.contiguous()
        self._condition_bias = torch.cat(biases)
        self._log_slope = math.log(self._slope) if counts_slope else 0.0
        self._log_scale = torch.cat([block.scale for block in self._blocks]).abs().log().sum()
        self._c: Tensor | None = None
        self._entries: list[Tensor] = []

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals; see `PaperFlow.to_residual`."""
        entries = iter(self._entries_of(c))
        negative, log_scales = [], []
        for block in self._blocks:
            z = (z + block.shift).mul_(block.scale)
            negative.append(z < 0)
            functional.leaky_relu_(z, self._slope)
            for coupling in block.couplings:
                log_scale, shift = _log_scale_and_shift(coupling, z, next(entries))
                z[:, coupling.changed].mul_(log_scale.exp()).add_(shift)
                log_scales.append(log_scale)
            z = z.index_select(1, block.order)
        return z, self._log_det(negative, log_scales)

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents; see `PaperFlow.to_latent`."""
        entries = reversed(self._entries_of(c))
        negative, log_scales = [], []
        for block in reversed(self._blocks):
            nu = nu.index_select(1, block.inverse)
            for coupling in reversed(block.couplings):
                log_scale, shift = _log_scale_and_shift(coupling, nu, next(entries))
                nu[:, coupling.changed].sub_(shift).mul_((-log_scale).exp())
                log_scales.append(log_scale)
            negative.append(nu < 0)
            functional.leaky_relu_(nu, 1 / self._slope)
            nu = nu.div_(block.scale).sub_(block.shift)
        return nu, -self._log_det(negative, log_scales)

    def _entries_of(self, c: Tensor) -> list[Tensor]:
        """Return what c contributes to the first layers of each coupling, bias included."""
        if self._c is None or not torch.equal(self._c, c):
            entries = torch.addmm(self._condition_bias, c, self._condition_weight)
            num = sum(len(block.couplings) for block in self._blocks)
            self._c, self._entries = c.clone(), list(entries.chunk(num, dim=1))
        return self._entries

    def _log_det(self, negative: list[Tensor], log_scales: list[Tensor]) -> Tensor:
        total = torch.cat(log_scales, dim=1).sum(dim=1) + self._log_scale
        if not self._log_slope:
            return total
        return total + self._log_slope * torch.cat(negative, dim=1).sum(dim=1)


def _log_scale_and_shift(coupling: _Coupling, z: Tensor, entry: Tensor) -> tuple[Tensor, Tensor]:
    if coupling.entry is not None:
        entry = torch.addmm(entry, z[:, coupling.kept], coupling.entry)
    h = entry.unflatten(1, (2, -1)).transpose(0, 1)
    for layer in coupling.layers:
        h = torch.baddbmm(layer.bias, functional.leaky_relu(h, _SLOPE), layer.weight)
    log_scale, shift = h.unbind(0)
    return log_scale, shift


def _packed(coupling: Any, weights: list[Tensor], biases: list[Tensor]) -> _Coupling:  # noqa: ANN401
    """Rearrange a coupling; append its part of the condition's weight and bias."""
    network, half = coupling.network, coupling.first_dim
    scale, shift = _linears(network.s), _linears(network.t)
    first = torch.cat([scale[0].weight, shift[0].weight])
    sees_latent = network.sees_latent
    weights.append(first[:, half:] if sees_latent else first)
    biases.append(torch.cat([scale[0].bias, shift[0].bias]))
    layers = tuple(
        _Layer(
            weight=torch.stack([s.weight.T, t.weight.T]).contiguous(),
            bias=torch.stack([s.bias, t.bias])[:, None],
        )
        for s, t in zip(scale[1:], shift[1:], strict=True)
    )
    halves = slice(0, half), slice(half, None)
    kept, changed = halves if coupling.transforms == "second" else halves[::-1]
    entry = first[:, :half].T.contiguous() if sees_latent else None
    return _Coupling(kept, changed, entry, layers)


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def _block(norm: ActNorm, couplings: tuple[_Coupling, ...], shuffle: Permutation) -> _Block:
    return _Block(
        shift=norm.loc.reshape(1, -1).clone(),
        scale=norm.scale.reshape(1, -1).clone(),
        couplings=couplings,
        order=shuffle.order,
        inverse=shuffle.order.argsort(),
    )
