"""Cost estimates: measures a few steps of each training, and makes the same checks."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cinnema.core.distributed import Ranks
from cinnema.training.assembly import Clips, load_stage1, lpips_of
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.latent_pool import LatentPool, fingerprint
from cinnema.training.loop import Position, Schedule, Step
from cinnema.training.recipe import KeypointRecipe
from cinnema.training.run import require_same_run
from cinnema.training.stage2 import FlowNetworks, LatentStep, PoolBatches

_Batch = TypeVar("_Batch")

_STEPS = 3  # measured steps, after a warm-up step
_LONG = 10.0  # seconds; a slower first step is itself the measurement
_POOL = 256  # random latents, at least, to measure stage 2 with


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The estimated cost of a training.

    Attributes:
        name: Name of the training.
        clips: Clips that it will see, at most.
        batch_size: Clips per step.
        parameters: Number of parameters by part of the networks, discriminators included.
        trained: Number of parameters that are trained.
        state_bytes: Memory of weights, gradients, optimiser state and averages.
        activation_bytes: Memory that a step keeps for its backward pass.
        clips_per_second: Speed of the steps, without waiting for clips.
    """

    name: str
    clips: int
    batch_size: int
    parameters: dict[str, int]
    trained: int
    state_bytes: int
    activation_bytes: int
    clips_per_second: float

    @property
    def hours(self) -> float:
        """Duration of the training."""
        return self.clips / self.clips_per_second / 3600


def estimate_stage1(
    recipe: KeypointRecipe, clips: Clips, *, run: Path, device: torch.device
) -> list[CostEstimate]:
    """Estimate the phases of stage 1; makes the same checks as `train_stage1`.

    Args:
        recipe: The recipe.
        clips: The recipe's clips.
        run: Folder of the run, in which nothing is written.
        device: Device to compute on.

    Raises:
        UserError: As `train_stage1`.
    """
    return [
        _estimate_phase(recipe, clips, training, run=run, device=device)
        for training in recipe.phases
    ]


def _estimate_phase(
    recipe: KeypointRecipe,
    clips: Clips,
    training: KeypointTraining,
    *,
    run: Path,
    device: torch.device,
) -> CostEstimate:
    batches = clips.batches(training, seed=training.seed, ranks=Ranks())
    step = recipe.new_step(
        recipe.new_stage1(), training, device=device, perceptual=lpips_of(training, device)
    )
    start = training.discriminators.start if training.discriminators else 0
    try:
        return estimate(
            training.phase,
            step,
            next(batches),
            training.schedule(),
            folder=run / training.phase,
            device=device,
            first=-(-start // training.batch_size),
        )
    finally:
        batches.close()


def estimate_stage2(recipe: KeypointRecipe, *, run: Path, device: torch.device) -> CostEstimate:
    """Estimate stage 2, on random latents; the encoding of the clips is not included.

    Args:
        recipe: The recipe.
        run: Folder of the run, with a trained stage 1.
        device: Device to compute on.

    Raises:
        UserError: As `train_stage2`.
    """
    stage1, config = load_stage1(recipe, run), recipe.stage2
    batches = _random_latents(recipe, device=device)
    step = LatentStep(
        FlowNetworks(*recipe.new_flow()).to(device),
        config,
        first=batches.first(),
        stage1=fingerprint(stage1),
    )
    return estimate(
        "stage2", step, next(batches), config.schedule(), folder=run / "stage2", device=device
    )


def _random_latents(recipe: KeypointRecipe, *, device: torch.device) -> PoolBatches:
    generator = torch.Generator().manual_seed(0)
    num, conditioner = max(_POOL, recipe.stage2.batch_size), recipe.conditioner
    pool = LatentPool(
        joint=torch.randn(num, conditioner.feature_dim, 8, 8, generator=generator).half(),
        z=torch.randn(num, recipe.flow.z_dim, generator=generator),
        eta=torch.randn(num, conditioner.control_dim, generator=generator),
        known=torch.ones(num),
    )
    return PoolBatches(pool.to(device), recipe.stage2, noise=recipe.stage1.noise)


def estimate(
    name: str,
    step: Step[_Batch],
    batch: _Batch,
    schedule: Schedule,
    *,
    folder: Path,
    device: torch.device,
    first: int = 0,
    epoch: int = 0,
) -> CostEstimate:
    """Take a few steps on one batch, and return the estimated cost of the training.

    Args:
        name: Name of the training.
        step: Step of the training; its networks are changed.
        batch: A batch of clips.
        schedule: Schedule of the training.
        folder: Folder of the run, which is checked and not changed.
        device: Device of the step.
        first: Number of the first step: large enough that all networks are trained in it.
        epoch: Epoch of the steps; as large as that requires.

    Raises:
        UserError: The folder holds another run or cannot be written to; the batch does not fit the
            networks; a loss is not finite.
    """
    require_same_run(folder, config=step.about() | {"clips": schedule.clips})
    kept, pace = measure(
        lambda number: step.take(batch, Position(number=first + number, epoch=epoch)),
        batch_size=schedule.batch_size,
        device=device,
    )
    optimisers = [p for p in step.parts().values() if isinstance(p, torch.optim.Optimizer)]
    trained = sum(
        p.numel() for o in optimisers for group in o.param_groups for p in group["params"]
    )
    return CostEstimate(
        name=name,
        clips=schedule.clips,
        batch_size=schedule.batch_size,
        parameters=step.count_parameters(),
        trained=trained,
        state_bytes=_bytes_of([p.state_dict() for p in step.parts().values()]) + 4 * trained,
        activation_bytes=kept,
        clips_per_second=pace,
    )


def measure(
    take: Callable[[int], object], *, batch_size: int, device: torch.device
) -> tuple[int, float]:
    """Return the bytes that a step keeps for its backward pass, and the speed in clips per second.

    Args:
        take: Function that takes step number n, from 0. The first is a warm-up, unless slow.
        batch_size: Clips per step.
        device: Device of the step.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def seconds_of(numbers: range) -> float:
        start = time.perf_counter()
        for number in numbers:
            take(number)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / len(numbers)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        seconds = seconds_of(range(1))
    if seconds < _LONG:
        seconds = seconds_of(range(1, 1 + _STEPS))
    return sum(kept.values()), batch_size / seconds


def _bytes_of(state: Any) -> int:  # noqa: ANN401 - any nest of tensors
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, dict):
        return sum(map(_bytes_of, state.values()))
    return sum(map(_bytes_of, state)) if isinstance(state, list | tuple) else 0
