"""Batches of random numbers, as large as those that the recipes train on."""

import torch

from cinnema.data.crop_batches import ClipBatch
from cinnema.data.loader import VideoBatch
from cinnema.models.warping.motion import GRID
from cinnema.training.keypoint import KeypointRecipe
from cinnema.training.warping import WarpingRecipe


def random_crops(recipe: WarpingRecipe, num: int, *, num_rendered: int = 0) -> ClipBatch:
    """Return clips for a warping model, with the first `num_rendered` frames after x0."""
    size, t = recipe.stage1.size, recipe.stage1.num_frames
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(num, 3, size, size, generator=generator) * 2 - 1
    moving = torch.ones(num, 2 * GRID, 2 * GRID)
    return ClipBatch(
        x0=x0,
        flow=0.02 * torch.randn(num, 2, t, GRID, GRID, generator=generator),
        moving=moving,
        known=moving,
        frames=x0[:, None].repeat(1, num_rendered, 1, 1, 1),
        times=(torch.arange(num_rendered) + 1).expand(num, -1) / t,
        ids=tuple(f"random:{index}" for index in range(num)),
    )


def random_landmarks(recipe: KeypointRecipe, num: int) -> VideoBatch:
    """Return clips with landmarks, for a keypoint model."""
    stage1 = recipe.stage1
    track = torch.rand(num, stage1.num_frames + 1, stage1.landmarks)
    video = random_video(num, stage1.num_frames + 1, stage1.size)
    return video_batch(video, track=track)


def random_video(num: int, num_frames: int, size: int) -> torch.Tensor:
    """Return clips of shape `num num_frames 3 size size`, in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, num_frames, 3, size, size, generator=generator) * 2 - 1


def video_batch(video: torch.Tensor, *, track: torch.Tensor | None = None) -> VideoBatch:
    """Return clips as the loader of packed clips does, without a control."""
    num, numbers = len(video), torch.arange(len(video))
    return VideoBatch(
        video=video,
        control=video.new_zeros(num, 0),
        confidence=torch.zeros(num),
        track=video.new_zeros(num, video.shape[1], 0) if track is None else track,
        fps=torch.full((num,), 25.0),
        index=numbers,
        number=numbers,
    )
