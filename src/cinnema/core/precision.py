"""Which number format a device is fast in, and float32 master weights beside bf16 ones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it in hardware, else float32.

    On a CPU that is AMX, or AVX-512 with bf16, where convolutions run twice as fast as in float32;
    without either they run ten times slower.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if device.type == "cpu" and has_bf16 else torch.float32


class MasterWeights:
    """A network's weights in float32, beside the network, which may compute in fewer bits.

    The optimiser holds `parameters`. In float32 they are the network's own; else copies:
    `take_gradients` brings the network's gradients to them, `publish` their values back. What is
    frozen is remembered unrounded as well, so that `restore` gives a network back as it came but
    for what was trained.

    Args:
        network: What requires gradients has a master. It is converted here.
        dtype: What it shall compute in; as it is if None.

    Attributes:
        parameters: What the optimiser changes, in float32.
        shared: Whether they are the network's own.

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
        """Move the network's gradients to the master weights."""
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
        """Let the network compute in float32, with the master weights, nothing rounded."""
        self._module.float()
        self.publish()
        own = self._module.state_dict()
        for name, value in self._frozen.items():
            own[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the network's state, by its names, with the master weights for what is trained.

        So a checkpoint is the same whatever the network computes in.
        """
        state: dict[str, Any] = self._module.state_dict()
        if not self.shared:
            masters = zip(self._names, self.parameters, strict=True)
            state |= self._frozen | {name: master.detach() for name, master in masters}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint, in the master weights and in the network."""
        self._module.load_state_dict(state)
        if not self.shared:
            with torch.no_grad():
                for name, master in zip(self._names, self.parameters, strict=True):
                    master.copy_(state[name])
                for name, value in self._frozen.items():
                    value.copy_(state[name])


class MovingAverage:
    """An exponential moving average of parameters, with a warm-up: early values fade fast.

    Update n keeps the share min(decay, n / (n + 10)) of the average.

    Args:
        parameters: What is averaged.
        decay: Share kept at each step once warm, in [0, 1).
    """

    def __init__(self, parameters: Iterable[Tensor], *, decay: float) -> None:
        self.source = list(parameters)
        self.decay = decay
        self.num_updates = 0
        self.values = [p.detach().clone() for p in self.source]

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters' present values into the average."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 10))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.source], 1 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the averages with the parameters; a second call swaps them back."""
        for value, parameter in zip(self.values, self.source, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"values": self.values, "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint's averages."""
        for mine, saved in zip(self.values, state["values"], strict=True):
            mine.copy_(saved)
        self.num_updates = state["num_updates"]
