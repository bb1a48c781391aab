"""The loop that the three trainings share: batches in, steps, checkpoints, numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import NotFiniteError, UserError
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.media.formats import DEFAULT_FPS
from cinnema.training.run import Stateful, TrainingRun

Validate = Callable[[], dict[str, float]]
"""Scores what is trained on clips held out."""

_SECONDS_BETWEEN = 300.0  # a checkpoint of the largest recipe has 3 GB
_RECORD_EVERY = 50  # steps between two records of the losses


@runtime_checkable
class TrainingStep(Protocol):
    """One step of a training, with everything that it changes.

    Steps owe: all draws follow from a seed and `number`; `parts` holds all that a checkpoint needs
    for the next step to be the same to the bit; a loss that is not finite raises a `NotFiniteError`
    before its optimiser has moved.
    """

    def parts(self) -> Mapping[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        ...

    def __call__(self, batch: VideoBatch, *, number: int, epoch: int) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: Clips, on the device of the networks.
            number: Of the step, from 0.
            epoch: In which it lies, from 0.

        Returns:
            Weighted losses by name, without their graph.
        """
        ...


@runtime_checkable
class Length(Protocol):
    """What every configuration of a training says of its length."""

    @property
    def epochs(self) -> int:
        """How many."""
        ...

    @property
    def windows(self) -> int:
        """Windows that an epoch takes of each clip.

        Long videos are cut at random places, so that one window would be little of them.
        """
        ...

    @property
    def batch_size(self) -> int:
        """Clips in a step."""
        ...


def fit(
    step: TrainingStep,
    batches: ClipLoader,
    config: Length,
    *,
    folder: Path,
    about: Mapping[str, Any],
    validate: Validate | None = None,
    tensorboard: bool = False,
) -> None:
    """Take steps until all epochs are over, resuming what `folder` holds.

    Args:
        step: What is trained.
        batches: Of training clips; they go on from where the run was. Under several ranks, this
            rank's share of each batch.
        config: Of the training.
        folder: Of the run: `checkpoint.pt` and `metrics.jsonl`.
        about: What decides the run beside config and number of clips, as JSON values.
        validate: Called after each epoch, on the first rank; its numbers are recorded.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Raises:
        UserError: `folder` holds another run or cannot be written to; batches are of another size
            than the config says; a loss is not finite; the data are damaged.
    """
    ranks = Ranks(batches.rank, batches.num_ranks)
    if batches.batch_size * ranks.size != config.batch_size:
        raise UserError(
            f"batches must hold {config.batch_size} clips, as the training's config says, got "
            f"{batches.batch_size * ranks.size}: change one"
        )
    num_clips = len(batches.sequence)
    per_epoch = config.windows * num_clips
    with TrainingRun(
        folder,
        config={"training": config_to_dict(config), "num_clips": num_clips, **about},
        parts=step.parts(),
        total=config.epochs * per_epoch,
        seconds_between=_SECONDS_BETWEEN,
        ranks=ranks,
        tensorboard=tensorboard,
    ) as run:
        for part in step.parts().values():
            if isinstance(part, nn.Module):
                ranks.broadcast([*part.parameters(), *part.buffers()])
        batches.load_state_dict({"clips": run.clips})
        try:
            while not run.is_done:
                _advance(run, step, batches, per_epoch=per_epoch, validate=validate)
        finally:
            batches.close()


def _advance(
    run: TrainingRun,
    step: TrainingStep,
    batches: ClipLoader,
    *,
    per_epoch: int,
    validate: Validate | None,
) -> None:
    batch_size = batches.batch_size * batches.num_ranks
    number, epoch = run.clips // batch_size, run.clips // per_epoch
    batch = next(batches)
    try:
        losses = step(batch, number=number, epoch=epoch)
    except NotFiniteError as error:
        clips = batches.sequence.dataset.manifest.clips
        ids = [clips[index].clip for index in batch.index.tolist()]
        raise run.keep_batch(error, step=number, ids=ids) from error
    run.advance(batch_size)
    is_last_of_epoch = run.is_done or run.clips // per_epoch > epoch
    if number % _RECORD_EVERY == 0 or is_last_of_epoch:
        run.record(epoch=epoch, **{name: float(value) for name, value in losses.items()})
    if validate is not None and is_last_of_epoch:
        numbers = validate() if run.ranks.is_first else {}
        run.record(epoch=epoch, **numbers)
    run.save_if_due()


def batch_of(
    video: Float[Tensor, "b t 3 h w"], *, control: Float[Tensor, "b e"] | None = None
) -> VideoBatch:
    """Return clips from memory as the loader hands them out.

    Args:
        video: x0 and the frames after it, in [-1, 1].
        control: eta of each; none if None.
    """
    num, device = len(video), video.device
    numbers = torch.arange(num, device=device)
    return VideoBatch(
        video=video,
        control=video.new_zeros(num, 0) if control is None else control,
        confidence=torch.full((num,), float(control is not None), device=device),
        track=video.new_zeros(num, video.shape[1], 0),
        fps=torch.full((num,), DEFAULT_FPS, device=device),
        index=numbers,
        number=numbers,
    )
