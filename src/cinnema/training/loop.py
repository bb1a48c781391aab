"""The training loop: batches in, named losses out; it validates, saves, and resumes to the bit.

All trainings of the library run in `fit`. What is specific to one (networks, losses, optimisers)
is a `Step`; how long it runs and how often it validates is a `Schedule`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from cinnema.core.distributed import Ranks
from cinnema.core.errors import NotFiniteError
from cinnema.training.run import Stateful, TrainingRun

_Batch = TypeVar("_Batch")
_Batch_co = TypeVar("_Batch_co", covariant=True)

Validate = Callable[[], dict[str, float]]
"""Scores the networks that are trained on held-out clips."""

Show = Callable[[Path], object]
"""Draws held-out clips and their reconstruction by the networks into a PNG file."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The length of a training, and the intervals of validation, recording and saving.

    Attributes:
        clips: Clips seen before the training ends.
        batch_size: Clips per step, over all ranks.
        validate_every: Clips between two validations; the last step is followed by one as well.
        epoch: Clips per epoch; None for a training that is not divided into epochs.
        patience: Validations without a lower "nll" after which the training ends early; None for
            no early stopping.
        keep_best: Whether the averaged weights with the lowest "nll" are kept, not the last ones.
            Needs `patience`.
        record_every: Steps between two records of the losses; the last step of an epoch is
            recorded as well.
        save_every: Seconds between two checkpoints; one follows the last step as well.
    """

    clips: int
    batch_size: int
    validate_every: int
    epoch: int | None = None
    patience: int | None = None
    keep_best: bool = False
    record_every: int = 50
    save_every: float = 120.0


class Position(NamedTuple):
    """The position of a step in its training.

    Attributes:
        number: Number of the step, from 0.
        epoch: Number of its epoch, from 0; 0 without epochs.
        progress: Share of the training that is done before the step, in [0, 1).
    """

    number: int
    epoch: int = 0
    progress: float = 0.0


@runtime_checkable
class Batches(Protocol[_Batch_co]):
    """Endless batches of training clips that can continue at any clip."""

    def __next__(self) -> _Batch_co:
        """Return this rank's part of the next batch."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Continue where `state["clips"]` clips have been handed out, over all ranks."""
        ...

    def names(self, batch: Any) -> Sequence[str]:  # noqa: ANN401 - one that it has handed out
        """Return the names of a batch's clips, for error messages."""
        ...

    def close(self) -> object:
        """End the processes that prepare batches, if there are any."""
        ...


class Step(ABC, Generic[_Batch]):
    """One optimiser step (or one step of several optimisers), with everything that it changes.

    Implementations must draw all randomness from a seed and `position.number`, for the whole batch,
    of which each rank takes its part: then ranks take the step that one process would, and a
    resumed training equals an uninterrupted one to the bit.

    Attributes:
        networks: The networks that are trained, in one module.
        ranks: The processes that share each batch.
    """

    networks: nn.Module
    ranks: Ranks

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return everything that determines the outcome, as JSON values.

        A folder whose run has other values is not resumed.
        """

    @abstractmethod
    def parts(self) -> dict[str, Stateful]:
        """Return all state that a checkpoint has to hold, by name."""

    @abstractmethod
    def take(self, batch: _Batch, position: Position) -> dict[str, float]:
        """Take the step: compute losses, and move the weights down their gradient.

        Args:
            batch: This rank's clips, on any device.
            position: Position of the step in the training.

        Returns:
            Weighted losses by name, means over all ranks.

        Raises:
            NotFiniteError: A loss or the norm of a gradient is not finite; the weights that it
                belongs to have not been changed.
        """

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that must be equal on all ranks before the first step."""
        yield from self.networks.parameters()
        yield from self.networks.buffers()

    def count_parameters(self) -> dict[str, int]:
        """Return the number of parameters of each part of the networks."""
        parts = {name: count(part) for name, part in self.networks.named_children()}
        return {name: number for name, number in parts.items() if number}

    def averaged(self) -> AbstractContextManager[None]:
        """Give `networks` the weights that are validated, for the time of a `with` block.

        Steps that keep a moving average use it here; by default the weights stay as they are.
        """
        return nullcontext()

    def finish(self) -> None:
        """Leave `networks` in evaluation mode, with the weights that are kept."""
        self.networks.eval()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode for the time of a `with` block, then to training mode."""
    network.eval()
    try:
        yield
    finally:
        network.train()


@dataclass(frozen=True)
class FitResult:
    """How a training ended.

    Attributes:
        clips: Clips that the kept weights have been trained on.
        nll: Held-out "nll" of the best weights; None where the last weights are kept.
        stopped_early: Whether the training ended because "nll" did not fall any more.
    """

    clips: int
    nll: float | None
    stopped_early: bool


class BestWeights:
    """The weights with the lowest validation loss so far.

    Args:
        networks: Networks whose parameters are kept.

    Attributes:
        nll: The lowest loss so far; infinite before the first validation.
        clips: Clips seen when it was reached.
        num_stale: Validations since then.
        values: The weights that reached it.
    """

    def __init__(self, networks: nn.Module) -> None:
        self._source = [p.detach() for p in networks.parameters()]
        self.values = [p.clone() for p in self._source]
        self.nll, self.clips, self.num_stale = math.inf, 0, 0

    def offer(self, nll: float, *, clips: int) -> None:
        """Keep the present weights if their loss is the lowest."""
        if nll < self.nll:
            self.nll, self.clips, self.num_stale = nll, clips, 0
            torch._foreach_copy_(self.values, self._source)
        else:
            self.num_stale += 1

    def restore(self) -> None:
        """Give the networks the best weights."""
        torch._foreach_copy_(self._source, self.values)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"values": self.values, "numbers": (self.nll, self.clips, self.num_stale)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        torch._foreach_copy_(self.values, [v.to(self.values[0]) for v in state["values"]])
        self.nll, self.clips, self.num_stale = state["numbers"]


def fit(
    step: Step[_Batch],
    batches: Batches[_Batch],
    schedule: Schedule,
    *,
    folder: Path,
    validate: Validate | None = None,
    show: Show | None = None,
    tensorboard: bool = False,
) -> FitResult:
    """Train until the schedule ends, resuming the run that `folder` holds.

    Args:
        step: The step that is repeated; its networks are trained in place.
        batches: This rank's part of each batch; closed at the end.
        schedule: Length and intervals.
        folder: Folder of the run: `checkpoint.pt`, `metrics.jsonl` and, with `show`, `grids`.
        validate: Called on the first rank with the averaged weights in the networks; its numbers
            are recorded. With `schedule.patience` it has to return "nll".
        show: Called after each validation with the path of a PNG file in `grids`.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        How the training ended. The networks are in evaluation mode, with the weights to keep.

    Raises:
        UserError: `folder` holds another run or cannot be written to; a loss is not finite (the
            last checkpoint is older than that); the data are damaged.
    """
    best = None if validate is None or schedule.patience is None else BestWeights(step.networks)
    with TrainingRun(
        folder,
        config=step.about() | {"clips": schedule.clips},
        parts=step.parts() | ({} if best is None else {"best": best}),
        total=schedule.clips,
        seconds_between=schedule.save_every,
        ranks=step.ranks,
        tensorboard=tensorboard,
    ) as run:
        batches.load_state_dict({"clips": run.clips})
        step.ranks.broadcast([*step.tensors(), *(best.values if best else ())])
        try:
            while not (run.is_done or _is_stale(best, schedule)):
                _advance(run, step, batches, schedule)
                if run.is_done or _crosses(run, schedule, schedule.validate_every):
                    _validate(run, step, schedule, validate=validate, show=show, best=best)
                run.save_if_due()
        finally:
            batches.close()
    step.finish()
    if best is None or not schedule.keep_best:
        return FitResult(run.clips, nll=None, stopped_early=not run.is_done)
    best.restore()
    return FitResult(best.clips, nll=best.nll, stopped_early=not run.is_done)


def _advance(
    run: TrainingRun, step: Step[_Batch], batches: Batches[_Batch], schedule: Schedule
) -> None:
    """Take a step, count its clips, and record its losses at the set interval."""
    batch, number = next(batches), run.clips // schedule.batch_size
    position = Position(number, epoch=_epoch(run, schedule), progress=run.progress)
    try:
        losses = step.take(batch, position)
    except NotFiniteError as error:
        raise run.keep_batch(error, step=number, clips=batches.names(batch)) from error
    run.advance(schedule.batch_size)
    ends_epoch = schedule.epoch is not None and (
        run.is_done or _crosses(run, schedule, schedule.epoch)
    )
    if number % schedule.record_every == 0 or ends_epoch:
        _record(run, schedule, losses, epoch=position.epoch)


def _validate(
    run: TrainingRun,
    step: Step[_Batch],
    schedule: Schedule,
    *,
    validate: Validate | None,
    show: Show | None,
    best: BestWeights | None,
) -> None:
    """Validate and show the averaged weights on the first rank, and keep them if best."""
    with step.averaged():
        numbers = {} if validate is None else step.ranks.from_first(validate)
        if show is not None and step.ranks.is_first:
            show(run.folder / "grids" / f"{run.clips:09d}.png")
        if best is not None:
            best.offer(numbers["nll"], clips=run.clips)
    if numbers:
        last = run.clips - schedule.batch_size  # the step that was just taken
        _record(run, schedule, numbers, epoch=last // schedule.epoch if schedule.epoch else 0)


def _record(
    run: TrainingRun, schedule: Schedule, numbers: Mapping[str, float], *, epoch: int
) -> None:
    run.record(**({} if schedule.epoch is None else {"epoch": epoch}), **numbers)


def _epoch(run: TrainingRun, schedule: Schedule) -> int:
    return run.clips // schedule.epoch if schedule.epoch else 0


def _crosses(run: TrainingRun, schedule: Schedule, interval: int) -> bool:
    """Whether the last step has reached a multiple of an interval of clips."""
    return run.clips // interval > (run.clips - schedule.batch_size) // interval


def _is_stale(best: BestWeights | None, schedule: Schedule) -> bool:
    return best is not None and best.num_stale >= (schedule.patience or math.inf)


def count(network: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def take_gradients(
    losses: Mapping[str, Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    ranks: Ranks,
    largest: float = math.inf,
) -> dict[str, float]:
    """Average the gradients that `backward` left over the ranks, and clip their norm.

    Args:
        losses: Weighted losses by name, scalars of one type and device.
        parameters: The parameters that have the gradients.
        ranks: The processes that share the batch.
        largest: Largest norm; larger gradients are scaled down to it.

    Returns:
        The losses, and "gradient", the norm before clipping; means over all ranks.
    """
    ranks.average_gradients(parameters)
    if math.isinf(largest):  # clipping would multiply all gradients by 1
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    else:
        norm = nn.utils.clip_grad_norm_(parameters, largest)
    values = torch.stack([*losses.values(), norm]).detach()
    ranks.average([values])
    return dict(zip([*losses, "gradient"], values.tolist(), strict=True))


def require_finite(numbers: Mapping[str, float], *, number: int, name: str = "") -> None:
    """Raise a NotFiniteError if a loss or a gradient's norm is infinite or NaN.

    Args:
        numbers: Losses and norms by name, the same on all ranks.
        number: Number of the step, for the message.
        name: Name of the network or training, for the message.
    """
    bad = [f"{key} {value:g}" for key, value in numbers.items() if not math.isfinite(value)]
    if bad:
        prefix = f"{name}: " if name else ""
        raise NotFiniteError(f"{prefix}{', '.join(bad)} at step {number} is not finite")


def warmup_cosine(progress: float, *, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Return the factor of the learning rate: a linear warm-up, then half a cosine.

    Args:
        progress: Share of the training that is done, in [0, 1].
        warmup: Share of the training that the warm-up takes, in [0, 1).
        floor: The factor at the end, in [0, 1].

    Returns:
        A factor in (0, 1].
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    share = (progress - warmup) / (1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
