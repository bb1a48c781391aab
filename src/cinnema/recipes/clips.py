"""Training clips and held-out clips of the recipes of keypoint models."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cinnema.core.distributed import Ranks
from cinnema.core.files import atomic_path
from cinnema.data.dataset import OpenProgress, PackedDataset, open_dataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.data.records import Split
from cinnema.media.grids import tile
from cinnema.media.pictures import to_pixels
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.recipe import KeypointRecipe

_SHOWN_CLIPS, _SHOWN_FRAMES = 6, 5
_ENCODED = 32  # batch size for encoding clips with stage 1


@dataclass(frozen=True)
class KeypointClips:
    """Clips of a packed data set, for a keypoint model.

    Attributes:
        recipe: The recipe.
        dataset: The packed clips.
        held_out: Windows of validation clips, not augmented.
    """

    recipe: KeypointRecipe
    dataset: PackedDataset
    held_out: VideoBatch

    @classmethod
    def open(
        cls, recipe: KeypointRecipe, data: Path, *, progress: OpenProgress | None = None
    ) -> "KeypointClips":
        """Open a data set.

        Args:
            recipe: The recipe.
            data: Packed data set, or folder of videos.
            progress: Called while videos are packed.

        Raises:
            UserError: The folder cannot be used, or no validation clip is long enough.
        """
        dataset = open_dataset(data, progress=progress)
        return cls(recipe, dataset, held_out_clips(recipe, dataset))

    def batches(self, training: KeypointTraining, *, seed: int, ranks: Ranks) -> ClipLoader:
        """Return endless batches for a phase, this rank's part of each.

        Raises:
            UserError: The ranks cannot share a batch evenly, or the data do not suit the recipe.
        """
        return training_loader(
            self.recipe, self.dataset, training.batch_size, seed=seed, ranks=ranks
        )

    def pool_batches(self, *, seed: int) -> ClipLoader:
        """Return endless batches of the clips that stage 2 is trained on."""
        return training_loader(self.recipe, self.dataset, _ENCODED, seed=seed)

    @torch.no_grad()
    def show(self, stage1: KeypointStage1, path: Path) -> None:
        """Draw some held-out clips, and their reconstructions below, into a PNG file."""
        video = self.held_out.video[:_SHOWN_CLIPS].to(next(stage1.parameters()).device)
        made = stage1.decode(video[:, 0], stage1.encode(video)).clamp(-1, 1)
        rows = []
        for real, frames in zip(video, made, strict=True):
            rows += [to_pixels(real), to_pixels(torch.cat([real[:1], frames]))]
        save_rows(path, rows)


def training_loader(
    recipe: KeypointRecipe,
    dataset: PackedDataset,
    batch_size: int,
    *,
    seed: int,
    ranks: Ranks | None = None,
) -> ClipLoader:
    """Return endless batches of training windows, this rank's part of each.

    Args:
        recipe: Length, size, landmarks and augmentation of the windows.
        dataset: The packed clips.
        batch_size: Clips per batch, over all ranks.
        seed: Seed of all random draws.
        ranks: The processes that train; one by default.

    Raises:
        UserError: The ranks cannot share a batch evenly, or the data do not suit the recipe.
    """
    ranks = ranks or Ranks()
    share = ranks.share(batch_size)
    return ClipLoader(
        dataset,
        batch_size=share.stop - share.start,
        num_frames=recipe.stage1.num_frames + 1,
        size=recipe.stage1.size,
        augmentation=recipe.data.augmentation,
        track=recipe.data.landmarks,
        has_points=recipe.stage1.points,
        seed=seed,
        rank=ranks.rank,
        num_ranks=ranks.size,
        num_workers=0,  # raw windows are read faster here than passed on by workers
    )


def held_out_clips(
    recipe: KeypointRecipe, dataset: PackedDataset, *, split: Split = "validation"
) -> VideoBatch:
    """Return windows of a split that is not trained on, the same at every call.

    Args:
        recipe: Number, length and size of the windows.
        dataset: The packed clips.
        split: The split.

    Raises:
        UserError: The split is empty, or no clip of it is long enough.
    """
    return next(
        ClipLoader(
            dataset,
            split=split,
            batch_size=recipe.data.validation_clips,
            num_frames=recipe.stage1.num_frames + 1,
            size=recipe.stage1.size,
            track=recipe.data.landmarks,
            has_points=recipe.stage1.points,
            num_workers=0,
        )
    )


def save_rows(path: Path, clips: list[UInt8[np.ndarray, "t h w 3"]]) -> None:
    """Write some frames of each clip, spread evenly over it, as a row of a PNG file.

    Args:
        path: The file; missing folders are created. Without clips nothing is written.
        clips: Clips of one size, x0 first.
    """
    if not clips:
        return
    times = np.linspace(0, len(clips[0]) - 1, _SHOWN_FRAMES).round().astype(int)
    with atomic_path(path, overwrite=True) as part:
        Image.fromarray(tile([list(clip[times]) for clip in clips])).save(part, "PNG")
