"""From a recipe and a folder of clips to trained networks."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from cinnema.backbones.efficientnet import EfficientNetLite0
from cinnema.backbones.lpips import LPIPS
from cinnema.core.distributed import Ranks
from cinnema.data.crop_batches import ClipBatch, MixedClips
from cinnema.data.crops import SceneCrops, SplitCrops, find_scenes, load_crops
from cinnema.data.dataset import OpenProgress, open_dataset
from cinnema.data.loader import BatchLoader
from cinnema.evaluation.held_out import latent_validation, stage1_validation
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.recipes.landscape import DataConfig, Recipe
from cinnema.recipes.parts import keep_recipe, load_part, save_part
from cinnema.recipes.strips import reconstruction_strips
from cinnema.recipes.summary import draw_summary
from cinnema.simulators.sky.foregrounds import read_foregrounds
from cinnema.simulators.sky.pool import SkyPool
from cinnema.training.latent_pool import encode_drifting
from cinnema.training.stage2 import train as run_stage2
from cinnema.training.warping import Stage1Training
from cinnema.training.warping import train as run_phase


def split_crops(
    data: DataConfig, model: Stage1Config, *, root: Path, progress: OpenProgress | None = None
) -> SplitCrops:
    """Cut, or take from the cache, the crops of every scene.

    Args:
        data: Which scenes and how many crops.
        model: Its size and number of frames.
        root: Packed data set or folder of videos.
        progress: Called now and then with what is being done.

    Raises:
        UserError: The folder has no video that can be used.
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


def training_stream(
    recipe: Recipe,
    training: Stage1Training,
    crops: Sequence[SceneCrops],
    *,
    seed: int,
    foregrounds: Path | None = None,
    ranks: Ranks | None = None,
) -> BatchLoader[ClipBatch]:
    """Return the endless batches that a phase is trained on.

    Args:
        recipe: Its data and model.
        training: Its batch size, phase, and frames rendered.
        crops: Of the training scenes.
        seed: Of all draws.
        foregrounds: Folder of photographs in which nothing moves, of which the ground of synthetic
            skies is cut; procedural ground only if None.
        ranks: The processes that train; each gets its share of every batch.

    Raises:
        UserError: The ranks cannot share a batch evenly, or no scene can be drawn from.
    """
    ranks = ranks or Ranks()
    share = ranks.share(training.batch_size)
    side = recipe.stage1.size
    textures = None if foregrounds is None else read_foregrounds(foregrounds, side=side)
    num_rendered = training.frames if training.phase == "picture" else 0
    skies = SkyPool(
        size=recipe.stage1.size,
        num_frames=recipe.stage1.num_frames,
        grid=GRID,
        textures=textures,
        seed=seed,
        rendered=num_rendered,
    )
    clips = MixedClips(
        crops,
        weights=recipe.data.textures,
        skies=skies,
        sky_share=recipe.data.sky_share,
        num_rendered=num_rendered,
        seed=seed,
    )
    return BatchLoader(
        clips, batch_size=share.stop - share.start, rank=ranks.rank, num_ranks=ranks.size
    )


def new_stage1(config: Stage1Config, *, seed: int = 0) -> Stage1:
    """Build stage 1 with random weights on its ImageNet backbone.

    Args:
        config: What it is made of.
        seed: Of the weights; torch's global stream is left as it was.

    Raises:
        UserError: The package with the backbone's weights is not installed.
    """
    with torch.random.fork_rng():
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
    foregrounds: Path | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the phases of stage 1, or go on where the run stopped.

    Each phase has a folder in that of the run: checkpoints, numbers, strips of pictures, and at
    its end a plot of all numbers.

    Args:
        recipe: What to train, on what, how.
        data: Packed data set or folder of videos; crops are cached beside it.
        run: Folder of the run.
        device: Where to compute.
        foregrounds: Folder of photographs in which nothing moves, for synthetic skies.
        ranks: The processes that train together; one alone if None.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The file of stage 1's weights, in the run's folder.

    Raises:
        UserError: The data or the folder cannot be used, the folder holds a run of another recipe,
            the ranks cannot share a batch evenly, or a loss is no number.
    """
    ranks = ranks or Ranks()
    crops = _crops(recipe, data=data, ranks=ranks)
    model = new_stage1(recipe.stage1)
    for training in (recipe.motion, recipe.picture, recipe.mask):
        is_picture = training.phase == "picture"
        folder = run / training.phase
        model = run_phase(
            model,
            training_stream(
                recipe,
                training,
                crops.train,
                seed=training.seed,
                foregrounds=foregrounds,
                ranks=ranks,
            ),
            training,
            folder=folder,
            device=device,
            perceptual=LPIPS.load(training.network).to(device) if is_picture else None,
            validate=stage1_validation(crops.held_out),
            show=reconstruction_strips(crops.held_out),
            ranks=ranks,
            tensorboard=tensorboard,
        )
        if ranks.is_first:
            save_part(run / _FILES[training.phase], model, model.config)
            draw_summary(folder)
    if ranks.is_first:
        keep_recipe(run, recipe)
    return run / _FILES["mask"]


def train_stage2(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    device: torch.device,
    foregrounds: Path | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the conditioner and the flow on stage 1 of the same run.

    Unless phase "picture" moves the encoder, it changes nothing that stage 2 reads, so stage 2 may
    be trained as soon as phase "motion" is done, beside it.

    Args:
        recipe: What to train, on what, how.
        data: Packed data set or folder of videos.
        run: Folder of the run.
        device: Where to compute.
        foregrounds: Folder of photographs in which nothing moves, for synthetic skies.
        ranks: The processes that train together; one alone if None. The first encodes the clips.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The file of stage 2's weights, in the run's folder.

    Raises:
        UserError: Stage 1 has not been trained in that folder; and as `train_stage1`.
    """
    ranks = ranks or Ranks()
    crops = _crops(recipe, data=data, ranks=ranks)
    phase = "picture" if recipe.picture.train_encoder else "motion"
    stage1 = Stage1(recipe.stage1)
    load_part(run / _FILES[phase], stage1)
    seed = recipe.stage2.seed + 1
    result = run_stage2(
        stage1,
        _new_conditioner(recipe),
        ConditionalFlow(recipe.flow),
        training_stream(recipe, recipe.motion, crops.train, seed=seed, foregrounds=foregrounds),
        recipe.stage2,
        folder=run / "stage2",
        device=device,
        encode_batch=encode_drifting,
        validate=latent_validation(stage1, crops.held_out),
        ranks=ranks,
        tensorboard=tensorboard,
    )
    networks = nn.ModuleDict({"conditioner": result.conditioner, "flow": result.flow})
    if ranks.is_first:
        save_part(run / _FILES["stage2"], networks, recipe.flow)
        draw_summary(run / "stage2")
        keep_recipe(run, recipe)
    return run / _FILES["stage2"]


def _crops(recipe: Recipe, *, data: Path, ranks: Ranks) -> SplitCrops:
    """The first rank cuts crops that are not there yet, the others read them."""
    return ranks.first_then_all(lambda: split_crops(recipe.data, recipe.stage1, root=data))


def _new_conditioner(recipe: Recipe) -> Conditioner:
    """Its first weights depend on the seed alone, as those of the flow do."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.stage2.seed)
        return Conditioner(recipe.conditioner)


def bundle(recipe: Recipe, *, run: Path, output: Path, overwrite: bool = False) -> Path:
    """Put both trained stages of a run into one weights file.

    Args:
        recipe: Of the run.
        run: Its folder.
        output: The file to write.
        overwrite: Whether it may replace one.

    Returns:
        `output`.

    Raises:
        UserError: A stage is missing, or `output` exists.
    """
    model = WarpingModel(
        WarpingModelConfig(
            name=recipe.name,
            stage1=recipe.stage1,
            conditioner=recipe.conditioner,
            flow=recipe.flow,
        )
    )
    load_part(run / _FILES["mask"], model.stage1)
    networks = nn.ModuleDict({"conditioner": model.conditioner, "flow": model.flow})
    load_part(run / _FILES["stage2"], networks)
    save_model(output, model, overwrite=overwrite)
    return output


# The phases' results, in the folder of the run.
_FILES = {
    "motion": "motion.safetensors",
    "picture": "picture.safetensors",
    "mask": "stage1.safetensors",
    "stage2": "stage2.safetensors",
}
