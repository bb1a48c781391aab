"""The phases of an adversarial step: what each trains, when, and how fast."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.distributed import Ranks
from cinnema.core.errors import NotFiniteError

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AdamConfig:
    """Adam, and how its rate falls.

    Attributes:
        learning_rate: At first.
        betas: Decay of the averages of the gradient and of its square.
        weight_decay: Added to the gradient, as factor on the weights.
        amsgrad: Whether the largest average of squares so far counts.
        decay: Factor on the rate, in (0, 1].
        decay_every: Epochs between two such factors.

    Example:
        >>> AdamConfig(learning_rate=1.0, betas=(0.9, 0.99), decay=0.5, decay_every=7).rate(14)
        0.25
    """

    learning_rate: float = Field(gt=0)
    betas: tuple[Share, Share]
    weight_decay: float = Field(default=0.0, ge=0)
    amsgrad: bool = False
    decay: float = Field(default=1.0, gt=0, le=1)
    decay_every: int = Field(default=1, ge=1)

    def rate(self, epoch: int) -> float:
        """Return the rate of an epoch, counted from 0."""
        return self.learning_rate * self.decay ** (epoch // self.decay_every)

    def optimiser(self, networks: Sequence[nn.Module]) -> torch.optim.Adam:
        """Return an optimiser of all parameters of some networks."""
        return torch.optim.Adam(
            [p for network in networks for p in network.parameters()],
            lr=self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            amsgrad=self.amsgrad,
        )


class Phase:
    """Some networks, their optimiser, and when they are trained.

    Args:
        name: Of the phase, for messages.
        networks: What it trains; nothing else changes in it.
        adam: How.
        start: The epoch from which on it is active; its rate falls from there.
        interval: Steps between two of its updates, at least 1.
        ranks: The processes that share each batch; gradients are averaged over them.

    Attributes:
        optimiser: Of all parameters of the networks.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> adam = AdamConfig(learning_rate=0.1, betas=(0.5, 0.9))
        >>> phase = Phase("line", [network], adam, interval=2)
        >>> [phase.is_due(number, epoch=0) for number in range(3)]
        [True, False, True]
        >>> _ = phase.descend({"square": network(torch.ones(1, 1)).square().sum()}, 0, epoch=0)
    """

    def __init__(
        self,
        name: str,
        networks: Sequence[nn.Module],
        adam: AdamConfig,
        *,
        start: int = 0,
        interval: int = 1,
        ranks: Ranks | None = None,
    ) -> None:
        self.name, self.networks, self.adam = name, list(networks), adam
        self.start, self.interval = start, interval
        self.ranks = ranks or Ranks()
        self.optimiser = adam.optimiser(self.networks)

    def is_due(self, number: int, *, epoch: int) -> bool:
        """Whether step `number` of an epoch trains the networks, both counted from 0."""
        return epoch >= self.start and number % self.interval == 0

    def descend(
        self, losses: Mapping[str, Tensor], number: int, *, epoch: int, rate: float | None = None
    ) -> dict[str, Tensor]:
        """Take one step down the sum of some losses.

        Args:
            losses: Weighted, by name.
            number: Of the step, for the message.
            epoch: Decides the rate.
            rate: Takes the place of the rate that the epoch has.

        Returns:
            The losses, without their graph: means over all ranks.

        Raises:
            NotFiniteError: A loss or the gradient is not finite; no weight has been changed.
        """
        seen = {name: value.detach().clone() for name, value in losses.items()}
        self.ranks.average(list(seen.values()))
        self._require_finite(seen, number)
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.ranks.average_gradients(self._parameters())
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._require_finite({"gradient": norm}, number)
        for group in self.optimiser.param_groups:
            group["lr"] = self.adam.rate(epoch - self.start) if rate is None else rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        return seen

    def _parameters(self) -> Iterator[nn.Parameter]:
        for network in self.networks:
            yield from network.parameters()

    def _require_finite(self, losses: Mapping[str, Tensor], number: int) -> None:
        values = {name: float(value.detach()) for name, value in losses.items()}
        spoilt = [f"{name} {value:g}" for name, value in values.items() if not math.isfinite(value)]
        if spoilt:
            told = ", ".join(spoilt)
            raise NotFiniteError(f"{self.name}: {told} at step {number} is no number to train on")
