"""Activation checkpointing: blocks of which only the inputs are kept for the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cinnema.paper.spectral import SpectralWeight

_Entered: TypeAlias = AbstractContextManager[None]
_Context: TypeAlias = Callable[[], _Entered]

_CLIPS = 2  # computed again together


def recomputed(function: Callable[..., Tensor], *inputs: Tensor, network: nn.Module) -> Tensor:
    """Return a function's result; the backward pass computes its activations again.

    Two clips are computed at a time, so that memory hardly grows with their number. Of up to two,
    gradients are the same as without, to the bit; of more, sums over clips are rounded differently.

    Args:
        function: Computes with layers of `network`, each clip by itself.
        inputs: Its arguments, clips along the first axis.
        network: Its spectral norms take one step of power iteration in training mode, for all
            clips. No other call in training mode may come before the backward pass.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    held = partial(_held_norms, network)
    results: list[Tensor] = []
    for part in zip(*(x.split(_CLIPS) for x in inputs), strict=True):
        options: dict[str, Any] = {
            "context_fn": partial(_contexts, held if results else nullcontext, held),
            "preserve_rng_state": False,
        }
        results.append(checkpoint(function, *part, use_reentrant=False, **options))
    return results[0] if len(results) == 1 else torch.cat(results)


def _contexts(first: _Context, again: _Context) -> tuple[_Entered, _Entered]:
    return first(), again()


@contextmanager
def _held_norms(network: nn.Module) -> Iterator[None]:
    """Keep the singular vectors of spectral norms as they are."""
    held = [m for m in network.modules() if isinstance(m, SpectralWeight) and m.training]
    for module in held:
        module.training = False
    try:
        yield
    finally:
        for module in held:
            module.training = True
