"""Training in bfloat16 with float32 master weights, and moving averages of weights."""

import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from cinnema.core.devices import one_thread

_WORTHWHILE = 1.3  # measured are 0.55 and 2, so noise decides nothing
_SIZE, _ROUNDS = 512, 5


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device multiplies it faster than float32, else float32.

    GPUs and CPUs with AMX do. Of CPUs with bf16 in AVX-512, some do (AMD's, 2 times) and some take
    longer (Intel's without AMX, 1.8 times), so that is measured once, in 20 ms. Other CPUs take ten
    times longer.

    Args:
        device: Device to compute on.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    is_fast = device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported()
        or (torch.cpu._is_avx512_bf16_supported() and _bf16_speed() > _WORTHWHILE)
    )
    return torch.bfloat16 if is_fast else torch.float32


@cache
@one_thread()
def _bf16_speed() -> float:
    """Measure how many times faster than in float32 this CPU multiplies matrices in bf16."""
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(_ROUNDS):
        for dtype, seconds in times.items():
            matrix = torch.ones(_SIZE, _SIZE, dtype=dtype)
            start = time.thread_time()  # other programs do not count
            torch.mm(matrix, matrix)
            seconds.append(time.thread_time() - start)
    return min(times[torch.float32]) / min(times[torch.bfloat16])


class MasterWeights:
    """Float32 weights of a network that may compute in fewer bits.

    The optimiser changes `parameters`. If the network computes in float32 they are its own; else
    they are copies: `take_gradients` moves the network's gradients to them, `publish` copies their
    values to the network. Frozen weights are kept unrounded too, so that `restore` returns them as
    they were.

    Args:
        network: The network, which is converted to `dtype`. Parameters that require gradients have
            master weights.
        dtype: Type that it computes in; None keeps its own.

    Attributes:
        parameters: Weights for the optimiser, in float32.
        shared: Whether they are the network's own parameters.

    Example:
        >>> network = torch.nn.Linear(2, 2)
        >>> master = MasterWeights(network, dtype=torch.bfloat16)
        >>> optimiser = torch.optim.SGD(master.parameters, lr=1e-4)
        >>> network(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
        >>> master.take_gradients()
        >>> optimiser.step()
        >>> master.publish()
    """

    def __init__(self, network: nn.Module, *, dtype: torch.dtype | None = None) -> None:
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self._module, self._names, self._network = network, list(trained), list(trained.values())
        wanted = {p.dtype for p in self._network} if dtype is None else {dtype}
        self.shared = wanted <= {torch.float32}
        self._frozen: dict[str, Tensor] = {}
        if self.shared:
            self.parameters = self._network
        else:
            self.parameters = [nn.Parameter(p.detach().float().clone()) for p in self._network]
            self._frozen = {
                name: value.detach().clone()
                for name, value in network.state_dict().items()
                if name not in trained and value.is_floating_point()
            }
        if dtype is not None:
            network.to(dtype)

    def take_gradients(self) -> None:
        """Move the network's gradients to the master weights, as float32."""
        if self.shared:
            return
        for master, own in zip(self.parameters, self._network, strict=True):
            master.grad = None if own.grad is None else own.grad.float()
            own.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the master weights into the network."""
        if self.shared:
            return
        for master, own in zip(self.parameters, self._network, strict=True):
            own.copy_(master)

    @torch.no_grad()
    def restore(self) -> None:
        """Convert the network to float32, with the unrounded weights."""
        self._module.float()
        self.publish()
        own = self._module.state_dict()
        for name, value in self._frozen.items():
            own[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the network's state dict with unrounded weights.

        A checkpoint so does not depend on the type that the network computes in.
        """
        state: dict[str, Any] = self._module.state_dict()
        if not self.shared:
            masters = zip(self._names, self.parameters, strict=True)
            state |= self._frozen | {name: master.detach() for name, master in masters}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a checkpoint into the master weights and the network.

        Args:
            state: What `state_dict` returned.
        """
        self._module.load_state_dict(state)
        if not self.shared:
            with torch.no_grad():
                for name, master in zip(self._names, self.parameters, strict=True):
                    master.copy_(state[name])
                for name, value in self._frozen.items():
                    value.copy_(state[name])


class MovingAverage:
    """An exponential moving average of parameters, with a warm-up in which it decays faster.

    Update n is average <- d average + (1 - d) parameters with d = min(decay, n / (n + 10)).

    Args:
        parameters: Parameters to average.
        decay: d after the warm-up, in [0, 1).
    """

    def __init__(self, parameters: Iterable[Tensor], *, decay: float) -> None:
        self.source = list(parameters)
        self.decay = decay
        self.num_updates = 0
        self.values = [p.detach().clone() for p in self.source]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current values of the parameters."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 10))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.source], 1 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the averages and the parameters; a second call swaps them back."""
        for value, parameter in zip(self.values, self.source, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of updates, for a checkpoint."""
        return {"values": self.values, "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the averages of a checkpoint.

        Args:
            state: What `state_dict` returned.
        """
        for mine, saved in zip(self.values, state["values"], strict=True):
            mine.copy_(saved)
        self.num_updates = state["num_updates"]
