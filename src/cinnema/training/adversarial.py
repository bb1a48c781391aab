"""Discriminators that a training of stage 1 owns: what they ask of the decoder, how they learn."""

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
from cinnema.training.adversarial_losses import (
    adaptive_weight,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    relativistic_discriminator,
    relativistic_generator,
    slope_penalty,
)
from cinnema.training.discriminators import (
    Judgement,
    SpatialDiscriminator,
    TemporalDiscriminator,
    resting,
)
from cinnema.training.run import Stateful

_NETWORKS = {"spatial": SpatialDiscriminator, "temporal": TemporalDiscriminator}
# Ordinary gradients are well below; penalties, differentiated twice, have rare huge ones.
_LARGEST_GRADIENT = 10.0

Share = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=8, multiple_of=8)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AdversaryPhase:
    """One discriminator, its optimiser, and when it is trained.

    Attributes:
        module: "spatial" looks at frames one by one, "temporal" at frames in a row.
        learning_rate: Of Adam.
        betas: Decay of Adam's averages of the gradient and of its square; none of the gradient
            by default, as in R3GAN.
        interval: Steps between two updates. The decoder hears the discriminator at every step.
        weight: Of what the decoder minimises against it.
    """

    module: Literal["spatial", "temporal"]
    learning_rate: float = Field(default=2e-4, gt=0)
    betas: tuple[Share, Share] = (0.0, 0.99)
    interval: int = Field(default=1, ge=1)
    weight: float = Field(default=0.5, ge=0)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DiscriminatorsConfig:
    """The adversaries of a training of stage 1.

    Attributes:
        kind: "hinge" scores real and generated clips apart, with R1; "relativistic" holds each
            generated clip against its real one, with R1 and R2 (R3GAN).
        phases: The discriminators, one of each module at most.
        gamma: Of the penalties on their slopes, whose weight is gamma / 2.
        matching: Weight of the distance of their features; the paper has 10.
        adaptive: Whether a phase's weight is relative to the pull of the reconstruction at the
            decoder's last layer; else the losses are weighted as they are.
        start: Clips after which adversaries begin, to learn and to be heard.
        widths: Channels of the stages of each discriminator, from half the full size downwards.

    Raises:
        ValueError: Two phases are of one module.

    Example:
        >>> config = DiscriminatorsConfig(kind="hinge", phases=(AdversaryPhase(module="temporal"),))
        >>> config.needs_motion
        True
    """

    kind: Literal["hinge", "relativistic"] = "relativistic"
    phases: Annotated[tuple[AdversaryPhase, ...], Field(min_length=1)] = (
        AdversaryPhase(module="spatial"),
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
        """Whether one of them looks at several frames in a row."""
        return any(phase.module == "temporal" for phase in self.phases)


class Discriminators:
    """Discriminators with their optimisers, and both sides' losses.

    A step of a training makes frames, adds `generator_losses` to its own, goes back through the
    sum, and then calls `update` on the same frames; only after that may it move the decoder, so
    that a number that is not finite is seen before any weight has changed. Discriminators compute
    in float32, whatever the decoder does: penalties are differentiated twice.

    Args:
        config: Which, and how they learn.
        batch_size: Clips in a step, of all ranks together.
        device: Where to compute.
        seed: Of the first weights; torch's global stream is left as it was.
        ranks: The processes that share each batch; gradients are averaged over them.

    Attributes:
        networks: The discriminators, by module.

    Example:
        >>> cpu, decoder = torch.device("cpu"), nn.Conv2d(3, 3, 1)
        >>> adversaries = Discriminators(DiscriminatorsConfig(), batch_size=2, device=cpu)
        >>> x0 = torch.rand(2, 3, 64, 64)
        >>> real, fake = x0[:, None] / 2, decoder(x0)[:, None]
        >>> error = (fake - real).abs().mean()
        >>> losses = adversaries.generator_losses(
        ...     real, fake, x0, reconstruction=error, last=decoder.weight, number=0
        ... )
        >>> (error + losses["adversarial_spatial"]).backward()
        >>> sorted(adversaries.update(real, fake, x0, number=0))
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
        """Return what a checkpoint holds, by name."""
        parts: dict[str, Stateful] = {}
        for phase in self._phases:
            parts[f"{phase.name}_adversary"] = phase.network
            parts[f"{phase.name}_adversary_optimiser"] = phase.optimiser
        return parts

    def tensors(self) -> Iterator[Tensor]:
        """All that has to be the same on all ranks before the first step."""
        yield from self.networks.parameters()

    def is_active(self, number: int) -> bool:
        """Whether adversaries take part in the step of a number, counted from 0."""
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
        """Return what the decoder minimises against the discriminators as they are, weighted.

        Go back through the losses before `update`: it changes weights that they were made with.

        Args:
            real: Frames of clips, in [-1, 1]; in a row where a discriminator is temporal.
            fake: What the decoder made of them; the losses are differentiable in them.
            x0: The first frames.
            reconstruction: The loss against whose pull adaptive weights are set.
            last: The weight of the decoder's last layer, in the graph of `fake`.
            number: Of the step, from 0.

        Returns:
            "adversarial_<module>" and, where features are matched, "matching_<module>"; none
            before adversaries begin.

        Raises:
            UserError: Frames are too few, or of a size that the discriminators cannot halve.
        """
        losses: dict[str, Tensor] = {}
        if not self.is_active(number):
            return losses
        clips = (real.float(), fake.float(), x0.float())
        for phase in self._phases:
            adversarial, matching = self._asked_by(phase, *clips)
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
        """Let the discriminators that are due learn from clips, unless a number is not finite.

        Args:
            real: Frames of clips, in [-1, 1].
            fake: What the decoder made of them; no gradient goes back into it.
            x0: The first frames.
            number: Of the step, from 0.

        Returns:
            Weighted losses and the norm of the gradient, means over all ranks. Where one of them
            is not finite, no discriminator has changed: `TrainingRun.require_finite` tells.

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

    def _asked_by(
        self, phase: "_Phase", real: Tensor, fake: Tensor, x0: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the adversarial loss of the decoder, and that of features if they are matched."""
        is_hinge, matches = self.config.kind == "hinge", self.config.matching > 0
        with resting(phase.network):
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
        """Leave the gradient on the whole batch in a discriminator; return losses and its norm."""
        losses, parameters = self._losses(phase.network, real, fake, x0), phase.parameters
        torch.stack(list(losses.values())).sum().backward(inputs=parameters)
        self.ranks.average_gradients(parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        values = torch.stack([*losses.values(), norm]).detach()
        self.ranks.average([values])
        names = [f"{name}_{phase.name}" for name in (*losses, "gradient")]
        return dict(zip(names, values.tolist(), strict=True))

    def _losses(
        self, network: nn.Module, real: Tensor, fake: Tensor, x0: Tensor
    ) -> Mapping[str, Tensor]:
        """Return what a discriminator minimises, weighted: its kind's loss and the penalties."""
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
    """A discriminator, its optimiser and its turn."""

    def __init__(
        self, config: AdversaryPhase, widths: tuple[int, ...], device: torch.device
    ) -> None:
        self.config, self.name = config, config.module
        self.network = _NETWORKS[config.module](widths).to(device)
        self.parameters = list(self.network.parameters())
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=config.learning_rate, betas=config.betas
        )

    def is_due(self, number: int) -> bool:
        return number % self.config.interval == 0
