"""Training steps of our own recipes at full size, on random clips."""

from typing import Any

import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.bench.paper_steps import Take, random_video
from cinnema.core.distributed import Ranks
from cinnema.data.crop_batches import ClipBatch
from cinnema.data.loader import VideoBatch
from cinnema.models.warping.motion import GRID
from cinnema.training.keypoint import KeypointRecipe
from cinnema.training.loop import Position, Step
from cinnema.training.recipe import Recipe
from cinnema.training.video_step import VideoTraining
from cinnema.training.warping import WarpingRecipe


def own_step(
    recipe: Recipe,
    training: VideoTraining,
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
    batch = random_batch(recipe, training, share.stop - share.start)
    return step, lambda number: step.take(batch, Position(number=number))


def random_batch(recipe: Recipe, training: VideoTraining, num: int) -> ClipBatch | VideoBatch:
    """Return random clips of the size that a recipe trains on.

    Args:
        recipe: The recipe.
        training: The phase.
        num: Number of clips.
    """
    generator, stage1 = torch.Generator().manual_seed(0), recipe.stage1
    if isinstance(recipe, KeypointRecipe):
        shape = (num, stage1.num_frames + 1, 3, stage1.size, stage1.size)
        return random_video(shape, generator=generator, landmarks=stage1.landmarks, fps=stage1.fps)
    assert isinstance(recipe, WarpingRecipe)
    x0 = torch.rand(num, 3, stage1.size, stage1.size, generator=generator) * 2 - 1
    moving = torch.ones(num, 2 * GRID, 2 * GRID)
    shown = training.frames
    return ClipBatch(
        x0=x0,
        flow=0.02 * torch.randn(num, 2, stage1.num_frames, GRID, GRID, generator=generator),
        moving=moving,
        known=moving,
        frames=x0[:, None].repeat(1, shown, 1, 1, 1),
        times=(torch.arange(shown) + 1).expand(num, -1) / stage1.num_frames,
        ids=tuple(f"random:{index}" for index in range(num)),
    )
