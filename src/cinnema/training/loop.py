"""The loop in which both kinds of stage 1 are trained: batches in, steps, checkpoints, numbers.

A kind of stage 1 says in a `Step` what is its own: the losses of a batch, what was rendered, and
what a phase trains. Everything else is here, once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.randomness import generator_for
from cinnema.training.adversarial import Discriminators, DiscriminatorsConfig
from cinnema.training.losses import PerceptualDistance
from cinnema.training.run import Stateful, TrainingRun, warmup_cosine

# Steps between two records of the losses, and between two validations.
_RECORD_EVERY, _VALIDATE_EVERY = 50, 1000


@runtime_checkable
class PhaseConfig(Protocol):
    """What every configuration of a phase says of its steps."""

    @property
    def clips(self) -> int:
        """Clips seen before the run ends."""
        ...

    @property
    def batch_size(self) -> int:
        """Clips in a step, of all ranks together."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of AdamW at its peak."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""
        ...

    @property
    def ema_decay(self) -> float:
        """Of the weights that are kept."""
        ...

    @property
    def adversaries(self) -> DiscriminatorsConfig | None:
        """Discriminators of what is rendered, if there are any."""
        ...

    @property
    def seed(self) -> int:
        """Of every draw."""
        ...


_Model = TypeVar("_Model", bound=nn.Module)
_Batch = TypeVar("_Batch")
_Made_co = TypeVar("_Made_co", covariant=True)
_Config = TypeVar("_Config", bound=PhaseConfig)


@runtime_checkable
class Batches(Protocol[_Made_co]):
    """Endless batches of a training, which go on from any clip."""

    def __next__(self) -> _Made_co:
        """Return the next batch of this rank."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Go on from where `clips`, a number in the state, have been handed out."""
        ...


class Rendered(NamedTuple):
    """Frames of clips as they were rendered, beside the true ones.

    Attributes:
        real: As they are, in [-1, 1]; in a row where an adversary is temporal.
        fake: As they were rendered, in float32, with their graph.
        x0: The first frames.
    """

    real: Float[Tensor, "b n 3 h w"]
    fake: Float[Tensor, "b n 3 h w"]
    x0: Float[Tensor, "b 3 h w"]


class Step(ABC, Generic[_Model, _Batch, _Config]):
    """One step of the optimiser, with everything that it changes.

    What an implementer owes: `choose_trained` says which weights the phase moves, `losses` what
    they are moved by and what was rendered meanwhile, `last_layer` where adversaries pull, `names`
    which clips a batch holds. All draws are of the generator that `losses` is given, for the whole
    batch, of which a rank takes its `share`: then ranks take the step of one process, and a run
    that is resumed goes on as if it had not been stopped.

    Args:
        model: What is trained, in place; it computes in `dtype` from here on.
        config: Of the phase.
        device: Where to compute.
        perceptual: LPIPS on that device, in float32; None where no perceptual distance counts.
        ranks: The processes that train.

    Attributes:
        share: This rank's clips of a batch.
        dtype: What the device is fast in.
        master: The weights that are moved, in float32.
        average: Of those weights.
        adversaries: Discriminators of what is rendered, or None.

    Raises:
        UserError: The ranks cannot share a batch evenly.

    Example:
        >>> class Doubling(Step[nn.Linear, Tensor, Stage1Training]):
        ...     def choose_trained(self) -> None:
        ...         self.model.bias.requires_grad_(requires_grad=False)
        ...     def losses(self, batch, generator):
        ...         error = self.model(batch.to(self.dtype)) - 2 * batch
        ...         return {"error": error.square().mean()}, None
        ...     def last_layer(self) -> Tensor:
        ...         return self.model.weight
        ...     def names(self, batch) -> list[str]:
        ...         return [f"row {row}" for row in range(len(batch))]
        >>> step = Doubling(nn.Linear(1, 1), Stage1Training(), device=torch.device("cpu"))
        >>> sorted(step.backward(torch.ones(2, 1), number=0))
        ['error', 'gradient']
        >>> step.update(1e-3)
    """

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
        self.model = model.to(device)
        self.choose_trained()
        self.master = MasterWeights(model, dtype=self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = MovingAverage(self.master.parameters, decay=config.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )
        self.adversaries = self._new_adversaries()

    @abstractmethod
    def choose_trained(self) -> None:
        """Set which parameters of `model` require gradients in the phase; all others rest.

        Called once, when `model`, `config`, `device` and `ranks` are there and nothing else.
        """

    @abstractmethod
    def losses(
        self, batch: _Batch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered | None]:
        """Return weighted losses, without the adversaries', and what was rendered.

        Args:
            batch: This rank's clips, on any device.
            generator: Of the step's draws.

        Returns:
            Losses by name, whose means over all ranks are those of the whole batch; and what was
            rendered, None if nothing was. Where something was, adversaries weigh their pull against
            that of "pixels" and "lpips", of which there has to be one.
        """

    @abstractmethod
    def last_layer(self) -> Tensor:
        """Return the weight of the layer that frames come out of."""

    @abstractmethod
    def names(self, batch: _Batch) -> Sequence[str]:
        """Return which clips a batch holds, for people."""

    def parts(self) -> dict[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        own: dict[str, Stateful] = {
            "model": self.master,
            "optimiser": self.optimiser,
            "average": self.average,
        }
        return own | ({} if self.adversaries is None else self.adversaries.parts())

    def tensors(self) -> Iterator[Tensor]:
        """All that has to be the same on all ranks before the first step."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield from self.master.parameters
        yield from self.average.values
        if self.adversaries is not None:
            yield from self.adversaries.tensors()

    def backward(self, batch: _Batch, *, number: int) -> dict[str, float]:
        """Leave the gradient on the whole batch in the master weights; return losses and norm.

        Discriminators, if any, learn from what was rendered, unless a number is not finite.

        Args:
            batch: This rank's clips.
            number: Of the step, from 0.
        """
        self.model.train()
        losses, rendered = self.losses(batch, generator_for(self.config.seed, number))
        losses |= self._adversarial_losses(rendered, losses, number=number)
        torch.stack(list(losses.values())).sum().backward()
        self.master.take_gradients()
        self.ranks.average_gradients(self.master.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.master.parameters, 1.0)
        values = torch.stack([*losses.values(), norm]).detach()
        self.ranks.average([values])
        numbers = dict(zip([*losses, "gradient"], values.tolist(), strict=True))
        if not all(map(math.isfinite, numbers.values())):
            return numbers
        return numbers | self._taught(rendered, number=number)

    def update(self, learning_rate: float) -> None:
        """Move the weights down the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update()
        self.master.publish()

    def take_average(self) -> None:
        """Give the model its averaged weights, in float32."""
        self.average.exchange()
        self.master.restore()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have its averaged weights, in float32, for the time of a `with` block."""
        self.take_average()
        self.model.eval()
        try:
            yield
        finally:
            self.average.exchange()
            self.model.to(self.dtype).train()
            self.master.publish()

    def _new_adversaries(self) -> Discriminators | None:
        config = self.config
        if config.adversaries is None:
            return None
        return Discriminators(
            config.adversaries,
            batch_size=config.batch_size,
            device=self.device,
            seed=config.seed,
            ranks=self.ranks,
        )

    def _adversarial_losses(
        self, rendered: Rendered | None, losses: Mapping[str, Tensor], *, number: int
    ) -> dict[str, Tensor]:
        """Return what adversaries, as they are, ask of what was rendered."""
        if self.adversaries is None or rendered is None:
            return {}
        pictures = [losses[name] for name in ("pixels", "lpips") if name in losses]
        return self.adversaries.generator_losses(
            rendered.real,
            rendered.fake,
            rendered.x0,
            reconstruction=torch.stack(pictures).sum(),
            last=self.last_layer(),
            number=number,
        )

    def _taught(self, rendered: Rendered | None, *, number: int) -> dict[str, float]:
        """Let adversaries learn from what was rendered; return their losses and norms."""
        if self.adversaries is None or rendered is None:
            return {}
        real, fake, x0 = rendered
        return self.adversaries.update(real, fake.detach(), x0, number=number)


def fit(
    step: Step[_Model, _Batch, _Config],
    batches: Batches[_Batch],
    *,
    folder: Path,
    about: Mapping[str, Any],
    validate: Callable[[_Model], dict[str, float]] | None = None,
    show: Callable[[_Model, Path], object] | None = None,
    tensorboard: bool = False,
) -> None:
    """Take steps until the phase is over, resuming what `folder` holds.

    The model is left with its averaged weights, in float32.

    Args:
        step: What is trained.
        batches: This rank's share of each; they go on from where the run was.
        folder: Of the run: `checkpoint.pt`, `metrics.jsonl` and `strips`.
        about: What the run is known by, as JSON values; a folder of another run is refused.
        validate: Called with the averaged model now and then; its numbers are recorded.
        show: Called then, too, with a file in `strips`.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Raises:
        UserError: `folder` holds another run, or cannot be written to; the loss is no number any
            more (the last checkpoint is from before that).
    """
    with TrainingRun(
        folder,
        config=about,
        parts=step.parts(),
        total=step.config.clips,
        ranks=step.ranks,
        tensorboard=tensorboard,
    ) as run:
        batches.load_state_dict({"clips": run.clips})
        step.ranks.broadcast(step.tensors())
        while not run.is_done:
            number = run.clips // step.config.batch_size
            _advance(run, step, next(batches), number=number)
            if number % _VALIDATE_EVERY == _VALIDATE_EVERY - 1 or run.is_done:
                _look(run, step, validate, show)
            run.save_if_due()
    step.take_average()


def _advance(
    run: TrainingRun, step: Step[_Model, _Batch, _Config], batch: _Batch, *, number: int
) -> None:
    """Take a step, and count it."""
    losses = step.backward(batch, number=number)
    run.require_finite(losses, step=number, ids=step.names(batch))
    step.update(step.config.learning_rate * warmup_cosine(run.progress))
    run.advance(step.config.batch_size)
    if number % _RECORD_EVERY == 0:
        run.record(**losses)


def _look(
    run: TrainingRun,
    step: Step[_Model, _Batch, _Config],
    validate: Callable[[_Model], dict[str, float]] | None,
    show: Callable[[_Model, Path], object] | None,
) -> None:
    """Score and show the averaged model, on the first rank; the others wait at their next step."""
    if not step.ranks.is_first:
        return
    with step.averaged():
        numbers = {} if validate is None else validate(step.model)
        if show is not None:
            show(step.model, run.folder / "strips" / f"{run.clips:09d}.png")
    if numbers:
        run.record(**numbers)


def trial_of(
    step: Step[_Model, _Batch, _Config], batch: _Batch
) -> Callable[[int], dict[str, float]]:
    """Return a function that takes the step of a number on a batch, to see what it costs.

    It returns the losses, and moves the weights at the peak of the rate.

    Args:
        step: What is trained.
        batch: This rank's share of a batch.
    """

    def take(number: int) -> dict[str, float]:
        losses = step.backward(batch, number=number)
        step.update(step.config.learning_rate)
        return losses

    return take


def from_the_start(adversaries: DiscriminatorsConfig | None) -> DiscriminatorsConfig | None:
    """Return adversaries, if there are any, that take part from the first step on."""
    return None if adversaries is None else replace(adversaries, start=0)


def known_by(config: object, defaults: object, *, later: Sequence[str]) -> dict[str, Any]:
    """Return what a run is known by, without later options where they change nothing.

    So that runs that were begun before there were those go on.

    Args:
        config: Of the run.
        defaults: A configuration of that kind in which every later option changes nothing.
        later: The names of options that came later.
    """
    values, usual = config_to_dict(config), config_to_dict(defaults)
    return {n: v for n, v in values.items() if n not in later or v != usual[n]}
