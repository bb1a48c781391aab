"""The training step of a stage 1, apart from its losses.

Weights are kept in float32 beside a network that computes in the device's fast format; they are
moved by AdamW, averaged over time, and trained against discriminators of rendered frames.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.randomness import generator_for
from cinnema.training.adversarial import Discriminators, DiscriminatorsConfig
from cinnema.training.loop import (
    Position,
    Schedule,
    Step,
    count,
    require_finite,
    take_gradients,
    warmup_cosine,
)
from cinnema.training.losses import PerceptualDistance
from cinnema.training.run import Stateful

_VALIDATE_EVERY = 1000  # steps

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class VideoTraining:
    """Options of the training of a stage 1.

    Attributes:
        phase: Name of the phase.
        clips: Clips seen before the training ends.
        batch_size: Clips per step, over all ranks.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        ema_decay: Decay of the moving average of the weights, which is what is kept.
        pixels: Weight of the L1 distance of frames.
        perceptual: Weight of LPIPS.
        network: Network of LPIPS: "vgg", which evaluations report, or "alex", 20 times cheaper.
        train_encoder: Whether phase "picture" also trains the networks that stage 2 depends on: the
            encoder of z and the features of x0.
        discriminators: Discriminators of the rendered frames; None for none.
        seed: Seed of all random draws.
    """

    phase: str = "motion"
    clips: int = Field(default=60_000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: Weight = 0.02
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    pixels: Weight = 4.0
    perceptual: Weight = 0.0
    network: Literal["vgg", "alex"] = "alex"
    train_encoder: bool = False
    discriminators: DiscriminatorsConfig | None = None
    seed: int = Field(default=0, ge=0)

    @property
    def uses_lpips(self) -> bool:
        """Whether frames are compared by LPIPS."""
        return self.perceptual > 0

    def schedule(self) -> Schedule:
        """Return the schedule of the training."""
        return Schedule(
            clips=self.clips,
            batch_size=self.batch_size,
            validate_every=_VALIDATE_EVERY * self.batch_size,
        )


_Model = TypeVar("_Model", bound=nn.Module)
_Batch = TypeVar("_Batch")
_Config = TypeVar("_Config", bound=VideoTraining)


class Rendered(NamedTuple):
    """Rendered frames and the real ones.

    Attributes:
        real: Real frames in [-1, 1]; consecutive where a discriminator is temporal.
        fake: The rendered frames in float32, with their graph.
        x0: The first frames of their clips.
    """

    real: Float[Tensor, "b n 3 h w"]
    fake: Float[Tensor, "b n 3 h w"]
    x0: Float[Tensor, "b 3 h w"]


class VideoStep(Step[_Batch], Generic[_Model, _Batch, _Config]):
    """A step of AdamW on a stage 1, and of the discriminators of what it renders.

    Implementations say which weights are trained (`choose_trained`), compute the losses of a batch
    (`losses`), and return the layer against which adaptive weights are computed (`last_layer`).

    Args:
        model: The stage 1 that is trained, in place; it computes in `dtype` from here on.
        config: The training.
        device: Device to compute on.
        perceptual: LPIPS in float32, on that device; None for no perceptual loss.
        ranks: The processes that share each batch; one by default.

    Attributes:
        share: This rank's part of a batch.
        dtype: Floating-point format in which the device is fast.

    Raises:
        UserError: The config does not fit the model; the ranks cannot share a batch evenly.

    Example:
        >>> class Doubling(VideoStep[nn.Linear, Tensor, VideoTraining]):
        ...     def choose_trained(self) -> None:
        ...         self.networks.bias.requires_grad_(requires_grad=False)
        ...     def losses(self, batch, generator):
        ...         error = self.networks(batch.to(self.dtype)) - 2 * batch
        ...         return {"error": error.square().mean()}, None
        ...     def last_layer(self) -> Tensor:
        ...         return self.networks.weight
        >>> step = Doubling(nn.Linear(1, 1), VideoTraining(), device=torch.device("cpu"))
        >>> sorted(step.take(torch.ones(2, 1), Position(number=0)))
        ['error', 'gradient']
    """

    networks: _Model

    def __init__(
        self,
        model: _Model,
        config: _Config,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.device, self.perceptual = config, device, perceptual
        self.ranks = ranks or Ranks()
        self.share = self.ranks.share(config.batch_size)
        self.dtype = fast_dtype(device)
        self.networks = model.to(device)
        self.choose_trained()
        self._master = MasterWeights(model, dtype=self.dtype)
        self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._average = MovingAverage(self._master.parameters, decay=config.ema_decay)
        self._optimiser = torch.optim.AdamW(
            self._master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )
        self.discriminators = self._new_discriminators()

    @abstractmethod
    def choose_trained(self) -> None:
        """Set which parameters of `networks` require gradients; the others are not trained.

        Called by the constructor, when `networks`, `config`, `device` and `ranks` are set.

        Raises:
            UserError: The config does not fit the model.
        """

    @abstractmethod
    def losses(
        self, batch: _Batch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered | None]:
        """Return the weighted losses of a batch, and the frames that were rendered for them.

        Args:
            batch: This rank's clips, on any device.
            generator: Draws for the whole batch, of which the rank takes its `share`.

        Returns:
            Losses by name, whose means over the ranks are those of the whole batch; and rendered
            frames, or None. With frames there must be a loss "pixels" or "lpips", to which adaptive
            weights of discriminators are relative.
        """

    @abstractmethod
    def last_layer(self) -> Tensor:
        """Return the weight of the layer that outputs the frames."""

    def about(self) -> dict[str, Any]:
        """Return everything that determines the outcome."""
        model: Any = self.networks
        return {"model": config_to_dict(model.config), "training": config_to_dict(self.config)}

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        own: dict[str, Stateful] = {
            "model": self._master,
            "optimiser": self._optimiser,
            "average": self._average,
        }
        return own | ({} if self.discriminators is None else self.discriminators.parts())

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that must be equal on all ranks before the first step."""
        yield from super().tensors()
        yield from self._master.parameters
        yield from self._average.values
        if self.discriminators is not None:
            yield from self.discriminators.tensors()

    def count_parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part, discriminators included."""
        found = super().count_parameters()
        if self.discriminators is None:
            return found
        judges = self.discriminators.networks.items()
        return found | {f"{name} discriminator": count(judge) for name, judge in judges}

    def take(self, batch: _Batch, position: Position) -> dict[str, float]:
        """Take the step; discriminators, if any, are trained on the frames that were rendered."""
        numbers, rendered = self._backward(batch, number=position.number)
        require_finite(numbers, number=position.number)
        if rendered is not None and self.discriminators is not None:
            real, fake, x0 = rendered
            learned = self.discriminators.update(real, fake.detach(), x0, number=position.number)
            require_finite(learned, number=position.number)
            numbers |= learned
        for group in self._optimiser.param_groups:
            group["lr"] = self.config.learning_rate * warmup_cosine(position.progress)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._average.update()
        self._master.publish()
        return numbers

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give `networks` their averaged weights, in float32, for the time of a `with` block."""
        self._average.exchange()
        self._master.restore()
        self.networks.eval()
        try:
            yield
        finally:
            self._average.exchange()
            self.networks.to(self.dtype).train()
            self._master.publish()

    def finish(self) -> None:
        """Leave `networks` in evaluation mode with their averaged weights, in float32."""
        self._average.exchange()
        self._master.restore()
        self.networks.eval()

    def _backward(self, batch: _Batch, *, number: int) -> tuple[dict[str, float], Rendered | None]:
        """Compute the gradient on the whole batch; return losses, norm and rendered frames."""
        self.networks.train()
        losses, rendered = self.losses(batch, generator_for(self.config.seed, number))
        losses |= self._adversarial_losses(rendered, losses, number=number)
        torch.stack(list(losses.values())).sum().backward()
        self._master.take_gradients()
        numbers = take_gradients(losses, self._master.parameters, ranks=self.ranks, largest=1.0)
        return numbers, rendered

    def _new_discriminators(self) -> Discriminators | None:
        config = self.config
        if config.discriminators is None:
            return None
        return Discriminators(
            config.discriminators,
            batch_size=config.batch_size,
            device=self.device,
            seed=config.seed,
            ranks=self.ranks,
        )

    def _adversarial_losses(
        self, rendered: Rendered | None, losses: Mapping[str, Tensor], *, number: int
    ) -> dict[str, Tensor]:
        """Return the decoder's losses against the current discriminators."""
        if self.discriminators is None or rendered is None:
            return {}
        pictures = [losses[name] for name in ("pixels", "lpips") if name in losses]
        return self.discriminators.generator_losses(
            rendered.real,
            rendered.fake,
            rendered.x0,
            reconstruction=torch.stack(pictures).sum(),
            last=self.last_layer(),
            number=number,
        )
