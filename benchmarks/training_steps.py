"""Training steps of our own recipes at full size, on random clips."""

from typing import Any

import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.bench.paper_steps import Take, random_video
from cinnema.core.distributed import Ranks
from cinnema.data.loader import VideoBatch
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.loop import Position, Step
from cinnema.training.recipe import KeypointRecipe


def own_step(
    recipe: KeypointRecipe,
    training: KeypointTraining,
    *,
    device: torch.device,
    ranks: Ranks | None = None,
) -> tuple[Step[Any], Take]:
    """Return a step of stage 1 of one of our recipes on random clips, without and with them.

    Args:
        recipe: The recipe.
        training: The phase, with the batch size over all ranks.
        device: Where to compute.
        ranks: The processes that share the batch. Defaults to one.
    """
    perceptual = LPIPS.load(training.network).to(device) if training.uses_lpips else None
    step = recipe.new_step(
        recipe.new_stage1(), training, device=device, perceptual=perceptual, ranks=ranks
    )
    share = (ranks or Ranks()).share(training.batch_size)
    batch = random_batch(recipe, share.stop - share.start)
    return step, lambda number: step.take(batch, Position(number=number))


def random_batch(recipe: KeypointRecipe, num: int) -> VideoBatch:
    """Return random clips of the size that a recipe trains on.

    Args:
        recipe: The recipe.
        num: Number of clips.
    """
    generator, stage1 = torch.Generator().manual_seed(0), recipe.stage1
    shape = (num, stage1.num_frames + 1, 3, stage1.size, stage1.size)
    return random_video(shape, generator=generator, landmarks=stage1.landmarks, fps=stage1.fps)
