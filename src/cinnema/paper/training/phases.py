"""The phases of an adversarial step: each trains some networks with an optimiser of its own."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.distributed import Ranks
from cinnema.paper.actnorm import ActNorm
from cinnema.paper.discriminators import PatchDiscriminator
from cinnema.training.loop import require_finite, take_gradients

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AdamConfig:
    """Adam, and the decay of its learning rate.

    Attributes:
        learning_rate: Initial learning rate.
        betas: Decay of the averages of the gradient and of its square.
        weight_decay: L2 penalty, added to the gradient as a factor on the weights.
        amsgrad: Whether the AMSGrad variant is used.
        decay: Factor on the learning rate every `decay_every` epochs, in (0, 1].
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
        """Return the learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.decay ** (epoch // self.decay_every)

    def optimiser(
        self, networks: Sequence[nn.Module], *, is_fused: bool = False
    ) -> torch.optim.Adam:
        """Return an optimiser of all parameters of the networks.

        Args:
            networks: The networks.
            is_fused: Whether a step is one pass over the weights, which rounds differently.
        """
        return torch.optim.Adam(
            [p for network in networks for p in network.parameters()],
            lr=self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            amsgrad=self.amsgrad,
            fused=is_fused or None,
        )


class Phase:
    """Some networks, their optimiser, and when they are trained.

    Args:
        name: Name of the phase, for error messages.
        networks: The networks that it trains; it changes no others.
        adam: Configuration of the optimiser.
        start: First epoch in which it is active, from 0; the learning rate decays from there.
        interval: Steps between two updates, at least 1.
        ranks: The processes that share each batch; gradients are averaged over them.
        is_fused: As in `AdamConfig.optimiser`.

    Attributes:
        optimiser: Adam on all parameters of the networks.

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
        is_fused: bool = False,
    ) -> None:
        self.name, self.networks, self.adam = name, list(networks), adam
        self.start, self.interval = start, interval
        self.ranks = ranks or Ranks()
        self.optimiser = adam.optimiser(self.networks, is_fused=is_fused)

    def is_due(self, number: int, *, epoch: int) -> bool:
        """Whether step `number`, in `epoch`, trains the networks; both are counted from 0."""
        return epoch >= self.start and number % self.interval == 0

    def descend(
        self, losses: Mapping[str, Tensor], number: int, *, epoch: int, rate: float | None = None
    ) -> dict[str, float]:
        """Take one step down the gradient of the sum of some losses.

        Args:
            losses: Weighted losses by name.
            number: Number of the step, for error messages.
            epoch: Decides the learning rate.
            rate: Learning rate, instead of that of the epoch.

        Returns:
            The losses, means over all ranks.

        Raises:
            NotFiniteError: A loss or the gradient is not finite; no weight has been changed.
        """
        parameters = [p for network in self.networks for p in network.parameters()]
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        numbers = take_gradients(losses, parameters, ranks=self.ranks)
        require_finite(numbers, number=number, name=self.name)
        for group in self.optimiser.param_groups:
            group["lr"] = self.adam.rate(epoch - self.start) if rate is None else rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {name: numbers[name] for name in losses}


def initialise_once(discriminator: PatchDiscriminator, image: Float[Tensor, "b c h w"]) -> None:
    """Fit the ActNorms of a discriminator to its first batch; later calls do nothing.

    The released code does so in the first call, on generated images of the first step; we pass real
    ones as well, as the discriminator is trained on both.

    Args:
        discriminator: Changed in place the first time.
        image: Images as it is trained on.
    """
    norms = [layer for layer in discriminator.modules() if isinstance(layer, ActNorm)]
    if norms and not all(bool(norm.initialized) for norm in norms):
        discriminator.initialise(image)
