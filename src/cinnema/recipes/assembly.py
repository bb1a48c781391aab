"""From a recipe and a folder of clips to trained networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cinnema.backbones.efficientnet import EfficientNetLite0
from cinnema.backbones.lpips import LPIPS
from cinnema.data.clips import ClipStream, SkyPool
from cinnema.data.scenes import SceneCrops, find_scenes, load_crops
from cinnema.recipes.landscape import DataConfig, Recipe
from cinnema.stage1.model import Stage1, Stage1Config
from cinnema.stage1.motion import GRID
from cinnema.stage1.training import Stage1Training, Validate
from cinnema.stage1.training import train as run_phase


@dataclass(frozen=True)
class SplitCrops:
    """Crops of all scenes, by what they are for."""

    train: list[SceneCrops]
    validation: list[SceneCrops]


def split_crops(data: DataConfig, model: Stage1Config, *, root: Path, cache: Path) -> SplitCrops:
    """Cut, or take from the cache, the crops of every scene.

    Args:
        data: Which scenes and how many crops.
        model: Its size and number of frames.
        root: Folder with `manifest.json`.
        cache: Folder that keeps the crops.
    """
    scenes = find_scenes(root, textures=tuple(data.textures), excluded=data.excluded)
    crops = [
        load_crops(
            scene,
            num=data.crops if scene.split == "train" else data.validation_crops,
            size=model.size,
            num_frames=model.num_frames,
            grid=GRID,
            cache=cache,
        )
        for scene in scenes
    ]
    return SplitCrops(
        train=[c for c in crops if c.scene.split == "train"],
        validation=[c for c in crops if c.scene.split == "validation"],
    )


def training_stream(
    recipe: Recipe, training: Stage1Training, crops: Sequence[SceneCrops], *, seed: int
) -> ClipStream:
    """Return the endless batches that a phase is trained on.

    Args:
        recipe: Its data and model.
        training: Its batch size and phase.
        crops: Of the training scenes.
        seed: Of all draws; give another one after a resumption.
    """
    num_rendered = 1 if training.phase == "picture" else 0
    skies = SkyPool(
        size=recipe.stage1.size,
        num_frames=recipe.stage1.num_frames,
        grid=GRID,
        textures=foregrounds(crops),
        seed=seed,
        rendered=num_rendered,
    )
    return ClipStream(
        crops,
        weights=recipe.data.textures,
        skies=skies,
        sky_share=recipe.data.sky_share,
        batch_size=training.batch_size,
        num_rendered=num_rendered,
        seed=seed,
    )


def foregrounds(crops: Sequence[SceneCrops], *, each: int = 12) -> Tensor | None:
    """Return some frames of each scene, of which synthetic foregrounds are cut."""
    if not crops:
        return None
    frames = [np.array(c.frames[:: max(1, len(c) // each), 0]) for c in crops]
    return torch.from_numpy(np.concatenate(frames)).permute(0, 3, 1, 2).contiguous()


def new_stage1(config: Stage1Config, *, seed: int = 0) -> Stage1:
    """Build stage 1 with random weights on its ImageNet backbone."""
    torch.manual_seed(seed)
    model = Stage1(config)
    backbone = EfficientNetLite0.imagenet().fold_batch_norm()
    model.scene.backbone.load_state_dict(backbone.state_dict())
    return model


def train_stage1(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    device: torch.device,
    validate: Validate | None = None,
) -> Stage1:
    """Train both phases of stage 1, or go on where the run stopped.

    Args:
        recipe: What to train, on what, how.
        data: Folder of clips with a `manifest.json`.
        run: Folder of the run; crops are kept in `crops` beside it.
        device: Where to compute.
        validate: Called now and then with the averaged model.
    """
    crops = split_crops(recipe.data, recipe.stage1, root=data, cache=run.parent / "crops")
    model = new_stage1(recipe.stage1)
    for training in (recipe.motion, recipe.picture):
        is_picture = training.phase == "picture"
        model = run_phase(
            model,
            training_stream(recipe, training, crops.train, seed=training.seed),
            training,
            folder=run / training.phase,
            device=device,
            perceptual=LPIPS.load(training.network).to(device) if is_picture else None,
            validate=validate,
        )
    return model
