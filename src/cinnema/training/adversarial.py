"""Adversarial training: discriminators with their optimisers, and the losses of both sides."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.training.discriminators import (
    Judgement,
    SpatialDiscriminator,
    TemporalDiscriminator,
    frozen,
)
from cinnema.training.loop import take_gradients
from cinnema.training.losses import (
    adaptive_weight,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    relativistic_discriminator,
    relativistic_generator,
    slope_penalty,
)
from cinnema.training.run import Stateful

_NETWORKS = {"spatial": SpatialDiscriminator, "temporal": TemporalDiscriminator}
# Typical norms are well below; gradients of the penalties, second derivatives, rarely are huge.
_LARGEST_GRADIENT = 10.0

Share = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DiscriminatorTraining:
    """One discriminator, its optimiser, and when it is trained.

    Attributes:
        module: "spatial" scores single frames, "temporal" consecutive frames jointly.
        learning_rate: Learning rate of Adam.
        betas: Decay of Adam's averages of the gradient and of its square; the gradient is not
            averaged by default, as in R3GAN.
        interval: Steps between two updates. The decoder's loss contains the discriminator at every
            step.
        weight: Weight of its loss in the decoder's loss.
    """

    module: Literal["spatial", "temporal"]
    learning_rate: float = Field(default=2e-4, gt=0)
    betas: tuple[Share, Share] = (0.0, 0.99)
    interval: int = Field(default=1, ge=1)
    weight: float = Field(default=0.5, ge=0)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DiscriminatorsConfig:
    """The discriminators of a training of stage 1.

    Attributes:
        kind: "hinge" scores real and generated clips separately, with R1; "relativistic" compares
            each generated clip with its real one, with R1 and R2 (R3GAN).
        phases: The discriminators, at most one of each module.
        gamma: Strength of the gradient penalties, whose weight is gamma / 2.
        matching: Weight of the feature matching loss; 10 in the paper.
        adaptive: Whether the weight of a discriminator is relative to the gradient of the
            reconstruction loss at the decoder's last layer.
        start: Clips after which discriminators are trained and enter the decoder's loss.
        widths: Channels of the stages of each discriminator, from half the full size downwards.

    Raises:
        ValueError: Two discriminators have the same module.

    Example:
        >>> temporal = DiscriminatorTraining(module="temporal")
        >>> DiscriminatorsConfig(kind="hinge", phases=(temporal,)).needs_motion
        True
    """

    kind: Literal["hinge", "relativistic"] = "relativistic"
    phases: Annotated[tuple[DiscriminatorTraining, ...], Field(min_length=1)] = (
        DiscriminatorTraining(module="spatial"),
    )
    gamma: float = Field(default=1.0, ge=0)
    matching: float = Field(default=0.0, ge=0)
    adaptive: bool = True
    start: int = Field(default=0, ge=0)
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 48, 64, 96)

    def __post_init__(self) -> None:
        modules = [phase.module for phase in self.phases]
        if len(set(modules)) < len(modules):
            raise UserError(
                "phases must be of different modules, spatial and temporal, got "
                f"{', '.join(modules)}: leave one out"
            )

    @property
    def needs_motion(self) -> bool:
        """Whether one of them needs consecutive frames."""
        return any(phase.module == "temporal" for phase in self.phases)


class Discriminators:
    """Discriminators with their optimisers, and the losses of both sides.

    A training step renders frames, adds `generator_losses` to its own losses, calls `backward` on
    their sum, and then calls `update` with the same frames. Only then may it move the decoder, so
    that losses that are not finite are noticed before any weight has changed. Discriminators
    always compute in float32, as the penalties are second derivatives.

    Args:
        config: Discriminators and their training.
        batch_size: Clips per step, over all ranks.
        device: Device to compute on.
        seed: Seed of the initial weights; torch's global random state is not changed.
        ranks: The processes that share each batch; gradients are averaged over them.

    Attributes:
        networks: The discriminators, by module.

    Example:
        >>> cpu, decoder = torch.device("cpu"), nn.Conv2d(3, 3, 1)
        >>> discriminators = Discriminators(DiscriminatorsConfig(), batch_size=2, device=cpu)
        >>> x0 = torch.rand(2, 3, 64, 64)
        >>> real, fake = x0[:, None] / 2, decoder(x0)[:, None]
        >>> error = (fake - real).abs().mean()
        >>> losses = discriminators.generator_losses(
        ...     real, fake, x0, reconstruction=error, last=decoder.weight, number=0
        ... )
        >>> (error + losses["adversarial_spatial"]).backward()
        >>> sorted(discriminators.update(real, fake, x0, number=0))
        ['gradient_spatial', 'r1_spatial', 'r2_spatial', 'relativistic_spatial']
    """

    def __init__(
        self,
        config: DiscriminatorsConfig,
        *,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.batch_size, self.ranks = config, batch_size, ranks or Ranks()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._phases = [_Phase(phase, config.widths, device) for phase in config.phases]
        self.networks = nn.ModuleDict({phase.name: phase.network for phase in self._phases})

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        parts: dict[str, Stateful] = {}
        for phase in self._phases:
            parts[f"{phase.name}_discriminator"] = phase.network
            parts[f"{phase.name}_optimiser"] = phase.optimiser
        return parts

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that must be equal on all ranks before the first step."""
        yield from self.networks.parameters()

    def is_active(self, number: int) -> bool:
        """Whether discriminators take part in step `number`, counted from 0."""
        return number * self.batch_size >= self.config.start

    def generator_losses(
        self,
        real: Float[Tensor, "b n 3 h w"],
        fake: Float[Tensor, "b n 3 h w"],
        x0: Float[Tensor, "b 3 h w"],
        *,
        reconstruction: Float[Tensor, ""],
        last: Tensor,
        number: int,
    ) -> dict[str, Tensor]:
        """Return the decoder's weighted losses against the current discriminators.

        Call `backward` on them before `update`, which changes weights in their graph.

        Args:
            real: Frames of clips, in [-1, 1]; consecutive for a temporal discriminator.
            fake: The rendered frames, with their graph.
            x0: The first frames.
            reconstruction: The loss to which adaptive weights are relative.
            last: The weight of the decoder's last layer, in the graph of `fake`.
            number: Number of the step, from 0.

        Returns:
            "adversarial_<module>" and, with feature matching, "matching_<module>"; empty before
            `config.start`.

        Raises:
            UserError: There are too few frames, or their size cannot be halved often enough.
        """
        losses: dict[str, Tensor] = {}
        if not self.is_active(number):
            return losses
        clips = (real.float(), fake.float(), x0.float())
        for phase in self._phases:
            adversarial, matching = self._losses_against(phase, *clips)
            weight: float | Tensor = phase.config.weight
            if self.config.adaptive:
                weight = weight * adaptive_weight(
                    reconstruction, adversarial, last, ranks=self.ranks
                )
            losses[f"adversarial_{phase.name}"] = weight * adversarial
            if matching is not None:
                losses[f"matching_{phase.name}"] = self.config.matching * matching
        return losses

    def update(
        self,
        real: Float[Tensor, "b n 3 h w"],
        fake: Float[Tensor, "b n 3 h w"],
        x0: Float[Tensor, "b 3 h w"],
        *,
        number: int,
    ) -> dict[str, float]:
        """Update each discriminator whose interval has passed, unless a loss is not finite.

        Args:
            real: Frames of clips, in [-1, 1].
            fake: The rendered frames, without their graph.
            x0: The first frames.
            number: Number of the step, from 0.

        Returns:
            Weighted losses and gradient norms, means over all ranks. If one of them is not finite,
            no discriminator has changed.

        Raises:
            UserError: As `generator_losses`.
        """
        due = [p for p in self._phases if self.is_active(number) and p.is_due(number)]
        clips = (real.float(), fake.float(), x0.float())
        numbers: dict[str, float] = {}
        for phase in due:
            numbers |= self._backward(phase, *clips)
        is_finite = all(map(math.isfinite, numbers.values()))
        for phase in due:
            if is_finite:
                phase.optimiser.step()
            phase.optimiser.zero_grad()
        return numbers

    def _losses_against(
        self, phase: "_Phase", real: Tensor, fake: Tensor, x0: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the decoder's adversarial loss, and its feature matching loss if there is one."""
        is_hinge, matches = self.config.kind == "hinge", self.config.matching > 0
        with frozen(phase.network):
            judged: Judgement = phase.network(fake, x0)
            if is_hinge and not matches:
                return hinge_generator(judged.logits), None
            with torch.no_grad():
                wanted: Judgement = phase.network(real, x0)
        matching = feature_matching(wanted.features, judged.features) if matches else None
        if is_hinge:
            return hinge_generator(judged.logits), matching
        return relativistic_generator(wanted.logits, judged.logits), matching

    def _backward(
        self, phase: "_Phase", real: Tensor, fake: Tensor, x0: Tensor
    ) -> dict[str, float]:
        """Compute the gradient of a discriminator; return its losses and the gradient's norm."""
        losses, parameters = self._losses(phase.network, real, fake, x0), phase.parameters
        torch.stack(list(losses.values())).sum().backward(inputs=parameters)
        numbers = take_gradients(losses, parameters, ranks=self.ranks, largest=_LARGEST_GRADIENT)
        return {f"{name}_{phase.name}": value for name, value in numbers.items()}

    def _losses(
        self, network: nn.Module, real: Tensor, fake: Tensor, x0: Tensor
    ) -> Mapping[str, Tensor]:
        """Return the weighted losses of a discriminator: that of its kind, and the penalties."""
        is_hinge, half_gamma = self.config.kind == "hinge", 0.5 * self.config.gamma
        real = real.detach().requires_grad_(half_gamma > 0)
        fake = fake.detach().requires_grad_(half_gamma > 0 and not is_hinge)
        of_real, of_fake = network(real, x0).logits, network(fake, x0).logits
        compare = hinge_discriminator if is_hinge else relativistic_discriminator
        losses: dict[str, Tensor] = {self.config.kind: compare(of_real, of_fake)}
        if real.requires_grad:
            losses["r1"] = half_gamma * slope_penalty(of_real, real)
        if fake.requires_grad:
            losses["r2"] = half_gamma * slope_penalty(of_fake, fake)
        return losses


class _Phase:
    """A discriminator with its optimiser."""

    def __init__(
        self, config: DiscriminatorTraining, widths: tuple[int, ...], device: torch.device
    ) -> None:
        self.config, self.name = config, config.module
        self.network = _NETWORKS[config.module](widths).to(device)
        self.parameters = list(self.network.parameters())
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=config.learning_rate, betas=config.betas
        )

    def is_due(self, number: int) -> bool:
        return number % self.config.interval == 0
