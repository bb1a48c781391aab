"""Training clips and held-out clips of the recipes."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from cinnema.core.distributed import Ranks
from cinnema.core.files import atomic_path
from cinnema.data.crop_batches import ClipBatch, MixedClips
from cinnema.data.crops import Scene, SceneCrops, SplitCrops, find_scenes, load_crops
from cinnema.data.dataset import OpenProgress, PackedDataset, open_dataset
from cinnema.data.loader import BatchLoader, ClipLoader, VideoBatch
from cinnema.data.records import Split
from cinnema.media.grids import tile
from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.models.warping.model import WarpingModelConfig
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.simulators.sky.foregrounds import read_foregrounds
from cinnema.simulators.sky.pool import SkyPool
from cinnema.training.finetune import Finetuning
from cinnema.training.keypoint import KeypointRecipe, KeypointTraining
from cinnema.training.run import counted
from cinnema.training.warping import CropData, WarpingRecipe, WarpingTraining

_SHOWN_SCENES, _SHOWN_CLIPS, _SHOWN_FRAMES = 4, 6, 5
_TIMED_SKIES = 3
_ENCODED = 32  # batch size for encoding clips with stage 1 of a keypoint model


@dataclass(frozen=True)
class WarpingClips:
    """Crops of real scenes and synthetic skies, for a warping model.

    Attributes:
        recipe: The recipe.
        train: Crops of the training scenes.
        held_out: Crops of the held-out scenes.
        foregrounds: Folder of photographs without motion, from which the foregrounds of synthetic
            skies are cut; None for procedural foregrounds only.
    """

    recipe: WarpingRecipe
    train: list[SceneCrops]
    held_out: list[SceneCrops]
    foregrounds: Path | None = None

    @classmethod
    def open(
        cls,
        recipe: WarpingRecipe,
        data: Path,
        *,
        foregrounds: Path | None = None,
        ranks: Ranks | None = None,
        progress: OpenProgress | None = None,
    ) -> "WarpingClips":
        """Cut the crops of all scenes, or read them from the cache beside the data set.

        Args:
            recipe: The recipe.
            data: Packed data set, or folder of videos.
            foregrounds: Folder of photographs without motion, for the foregrounds of skies.
            ranks: The processes that train: the first cuts the clips, the others read them.
            progress: Called while videos are packed and clips are cut.

        Raises:
            UserError: The data cannot be used, or no scene is held out.
        """
        crops = (ranks or Ranks()).first_then_all(
            lambda: split_crops(recipe.data, recipe.stage1, root=data, progress=progress)
        )
        return cls(recipe, crops.train, crops.held_out, foregrounds)

    def batches(
        self, training: WarpingTraining, *, seed: int, ranks: Ranks
    ) -> BatchLoader[ClipBatch]:
        """Return endless batches for a phase, this rank's part of each.

        Raises:
            UserError: The ranks cannot share a batch evenly, or no scene has a positive weight.
        """
        share = ranks.share(training.batch_size)
        clips = MixedClips(
            self.train,
            weights=self.recipe.data.textures,
            skies=self._skies(seed=seed, rendered=training.num_rendered),
            sky_share=self.recipe.data.sky_share,
            num_rendered=training.num_rendered,
            seed=seed,
        )
        return BatchLoader(
            clips, batch_size=share.stop - share.start, rank=ranks.rank, num_ranks=ranks.size
        )

    def pool_batches(self, *, seed: int) -> BatchLoader[ClipBatch]:
        """Return endless batches of the clips that stage 2 is trained on."""
        return self.batches(self.recipe.motion, seed=seed, ranks=Ranks())

    @torch.no_grad()
    def show(self, stage1: Stage1, path: Path) -> None:
        """Draw held-out clips of some scenes, each above its reconstruction, into a PNG file."""
        device, rows = next(stage1.parameters()).device, []
        for scene in self.held_out[:_SHOWN_SCENES]:
            real = np.asarray(scene.frames[0])
            z = stage1.encode(torch.from_numpy(scene.flow[:1]).to(device))
            decoded = stage1.decode(to_tensor(real[:1]).to(device), z)[0]
            rows += [real, np.concatenate([real[:1], to_pixels(decoded.cpu().clamp(-1, 1))])]
        save_rows(path, rows)

    def drawn_per_second(self) -> float | None:
        """Measure how many clips per second one worker prepares; None without synthetic skies."""
        if not self.recipe.data.sky_share:
            return None
        skies = self._skies(seed=0, rendered=0)
        start = time.perf_counter()
        for number in range(_TIMED_SKIES):
            skies.sky(number)
        seconds = (time.perf_counter() - start) / _TIMED_SKIES
        return skies.uses / self.recipe.data.sky_share / seconds

    def _skies(self, *, seed: int, rendered: int) -> SkyPool:
        size = self.recipe.stage1.size
        textures = None
        if self.foregrounds is not None:
            textures = read_foregrounds(self.foregrounds, side=size)
        return SkyPool(
            size=size,
            num_frames=self.recipe.stage1.num_frames,
            grid=GRID,
            textures=textures,
            seed=seed,
            rendered=rendered,
        )


def split_crops(
    data: CropData, model: Stage1Config, *, root: Path, progress: OpenProgress | None = None
) -> SplitCrops:
    """Cut the crops of every scene, or read them from the cache beside the data set.

    Args:
        data: The scenes, and the number of crops.
        model: Size, number of frames and frame rate.
        root: Packed data set, or folder of videos.
        progress: Called while videos are packed and clips are cut.

    Raises:
        UserError: The data cannot be used, or no scene is held out.
    """
    dataset = open_dataset(root, progress=progress)
    return load_crops(
        dataset,
        find_scenes(dataset, textures=tuple(data.textures), excluded=data.excluded),
        num_train=data.crops,
        num_held_out=data.validation_crops,
        size=model.size,
        num_frames=model.num_frames,
        grid=GRID,
        fps=model.fps,
        progress=progress,
    )


@dataclass(frozen=True)
class UserClips(WarpingClips):
    """A user's own videos, for fine-tuning: some are held out, and synthetic skies are mixed in.

    Attributes:
        about: Names of the videos, reasons for skipping others, and a hash of the files, as JSON
            values.
    """

    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_finetuning(
        cls,
        base: WarpingModelConfig,
        data: Path,
        config: Finetuning,
        *,
        progress: OpenProgress | None = None,
    ) -> "UserClips":
        """Cut clips from videos, or read them from the cache beside the videos.

        Args:
            base: Configuration of the model that is adapted.
            data: Packed data set, or folder of videos.
            config: Options of the fine-tuning.
            progress: Called while videos are packed and clips are cut.

        Raises:
            UserError: The folder has no video that can be used, or nothing can be held out.
        """
        recipe = WarpingRecipe(
            name=base.name,
            data=CropData(textures={}, sky_share=config.sky_share),
            stage1=base.stage1,
            motion=config.motion,
            picture=config.picture,
            mask=WarpingTraining(phase="mask"),
            conditioner=base.conditioner,
            flow=base.flow,
            stage2=config.stage2,
        )
        dataset = open_dataset(data, progress=progress)
        crops = _user_crops(dataset, base.stage1, config, progress=progress)
        clips = dataset.manifest.clips
        used = {clips[c.scene.clips[0]].source for c in (*crops.train, *crops.held_out)}
        about = {
            "clips": sorted(used),
            "skipped": [*dataset.manifest.notes, *crops.skipped],
            "digest": dataset.digest,
        }
        return cls(recipe, crops.train, crops.held_out, about=about)


def simulated_skies(*, num: int, size: int, num_frames: int, seed: int) -> SceneCrops:
    """Draw skies whose flow is known exactly, one clip each, as crops with x0 alone.

    Args:
        num: Number of skies.
        size: Width and height in pixels.
        num_frames: T, the frames after x0.
        seed: Seed of the skies.
    """
    pool = SkyPool(
        size=size, num_frames=num_frames, grid=GRID, textures=None, seed=seed, rendered=0
    )
    items = []
    with counted("drawing synthetic skies", total=num) as count:
        for number in range(num):
            items.append(pool.sky(number))
            count(number + 1)
    return SceneCrops(
        scene=Scene("skies", "skies", held_out=True),
        frames=np.stack([to_pixels(item.x0[None]) for item in items]),
        flow=torch.stack([item.flow for item in items]).numpy().astype(np.float32),
        motion=2 * torch.stack([item.moving for item in items]).numpy().astype(np.float32),
    )


def _user_crops(
    dataset: PackedDataset,
    shape: Stage1Config,
    config: Finetuning,
    *,
    progress: OpenProgress | None,
) -> SplitCrops:
    scenes = find_scenes(dataset)
    num_held_out = sum(scene.held_out for scene in scenes)
    each_train = math.ceil(config.num_train / max(1, len(scenes) - num_held_out))
    return load_crops(
        dataset,
        scenes,
        num_train=max(8, min(200, each_train)),
        num_held_out=max(1, math.ceil(config.num_held_out / max(1, num_held_out))),
        size=shape.size,
        num_frames=shape.num_frames,
        grid=GRID,
        fps=shape.fps,
        speed=1 / config.slow_motion,
        seed=config.seed,
        progress=progress,
    )


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
