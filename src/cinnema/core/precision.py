"""Which number format a device is fast in, and float32 master weights beside bf16 ones."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device multiplies it in hardware, else float32.

    On a CPU that is AMX: without it, bf16 convolutions run ten times slower than float32 ones.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


class MasterWeights:
    """Trainable parameters in float32, beside a network that may compute in fewer bits.

    The optimiser holds `self.parameters`. In float32 they are the network's own; else copies:
    `take_gradients` brings the network's gradients to them, `publish` their values back.

    Args:
        network: Already in the format it computes in.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = [p for p in network.parameters() if p.requires_grad]
        self.shared = all(p.dtype == torch.float32 for p in self._network)
        self.parameters = (
            self._network
            if self.shared
            else [nn.Parameter(p.detach().float()) for p in self._network]
        )

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


class MovingAverage:
    """An exponential moving average of parameters, with a warm-up: early values fade fast.

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

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint needs."""
        return {"values": self.values, "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take up a checkpoint's averages."""
        values, num_updates = state["values"], state["num_updates"]
        assert isinstance(values, list)
        assert isinstance(num_updates, int)
        for mine, saved in zip(self.values, values, strict=True):
            mine.copy_(saved)
        self.num_updates = num_updates
