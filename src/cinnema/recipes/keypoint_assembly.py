"""From an articulated recipe and a packed data set to trained networks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.distributed import Ranks
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.data.records import Split
from cinnema.evaluation.held_out import keypoint_latent_validation, keypoint_validation
from cinnema.media.pictures import to_pixels
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import Conditioner, pool_features
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.keypoint.keypoints import Twins, sides_apart
from cinnema.models.keypoint.model import KeypointModel
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.recipes.keypoint import KeypointRecipe
from cinnema.recipes.parts import keep_recipe, load_part, save_part
from cinnema.recipes.strips import save_strips
from cinnema.recipes.summary import draw_summary
from cinnema.training.keypoint import train as run_phase
from cinnema.training.latent_pool import LatentPool
from cinnema.training.stage2 import train as run_stage2

_FILES = {
    "motion": "motion.safetensors",
    "picture": "stage1.safetensors",
    "stage2": "stage2.safetensors",
}
_SHOWN, _SHOWN_FRAMES = 6, 5


def train_stage1(
    recipe: KeypointRecipe,
    *,
    data: Path,
    run: Path,
    device: torch.device,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the phases of stage 1, or go on where the run stopped.

    Args:
        recipe: What to train, on what, how.
        data: Folder of a packed data set.
        run: Folder of the run.
        device: Where to compute.
        ranks: The processes that train together; one alone if None.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The file of stage 1's weights, in the run's folder.

    Raises:
        UserError: The data or the folder cannot be used, the folder holds a run of another recipe,
            the ranks cannot share a batch evenly, or a loss is no number.
    """
    ranks = ranks or Ranks()
    dataset = PackedDataset(data)
    held_out = held_out_clips(recipe, dataset)
    alex = LPIPS.load("alex")
    model = new_stage1(recipe)
    for training in (recipe.motion, recipe.picture):
        lpips = LPIPS.load(training.network).to(device) if training.perceptual else None
        model = run_phase(
            model,
            training_loader(recipe, dataset, training.batch_size, seed=training.seed, ranks=ranks),
            training,
            folder=run / training.phase,
            device=device,
            perceptual=lpips,
            validate=keypoint_validation(held_out, lpips=alex, twins=training.twins),
            show=partial(_show, clips=held_out),
            ranks=ranks,
            tensorboard=tensorboard,
        )
        if ranks.is_first:
            save_part(run / _FILES[training.phase], model, recipe.stage1)
            draw_summary(run / training.phase)
    if ranks.is_first:
        keep_recipe(run, recipe)
    return run / _FILES["picture"]


def train_stage2(
    recipe: KeypointRecipe,
    *,
    data: Path,
    run: Path,
    device: torch.device,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the conditioner and the flow on stage 1 of the same run.

    If phase "picture" holds the encoder still, phase "motion" has to be done only.

    Args:
        recipe: What to train, on what, how.
        data: Folder of a packed data set.
        run: Folder of the run.
        device: Where to compute.
        ranks: The processes that train together; one alone if None. The first encodes the clips.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The file of stage 2's weights, in the run's folder.

    Raises:
        UserError: Stage 1 has not been trained in that folder; and as `train_stage1`.
    """
    ranks = ranks or Ranks()
    dataset = PackedDataset(data)
    stage1 = KeypointStage1(recipe.stage1)
    phase = "picture" if recipe.picture.train_encoder else "motion"
    load_part(run / _FILES[phase], stage1)
    encode = latents_of(recipe)
    stage1.eval()
    held_out = encode(stage1, held_out_clips(recipe, dataset))
    loader = training_loader(recipe, dataset, _ENCODED, seed=recipe.stage2.seed + 1)
    result = run_stage2(
        stage1,
        _new_conditioner(recipe),
        ConditionalFlow(recipe.flow),
        loader,
        recipe.stage2,
        folder=run / "stage2",
        device=device,
        encode_batch=encode,
        validate=keypoint_latent_validation(held_out, noise=recipe.stage1.noise),
        ranks=ranks,
        tensorboard=tensorboard,
    )
    loader.close()
    if ranks.is_first:
        networks = nn.ModuleDict({"conditioner": result.conditioner, "flow": result.flow})
        save_part(run / _FILES["stage2"], networks, recipe.flow)
        draw_summary(run / "stage2")
        keep_recipe(run, recipe)
    return run / _FILES["stage2"]


def bundle(recipe: KeypointRecipe, *, run: Path, output: Path, overwrite: bool = False) -> Path:
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
    model = KeypointModel(recipe.model_config())
    load_part(run / _FILES["picture"], model.stage1)
    networks = nn.ModuleDict({"conditioner": model.conditioner, "flow": model.flow})
    load_part(run / _FILES["stage2"], networks)
    save_model(output, model, overwrite=overwrite)
    return output


def training_loader(
    recipe: KeypointRecipe,
    dataset: PackedDataset,
    batch_size: int,
    *,
    seed: int,
    ranks: Ranks | None = None,
) -> ClipLoader:
    """Return the endless batches that a phase is trained on.

    Args:
        recipe: Its data and model.
        dataset: The packed clips.
        batch_size: Clips in a step, of all ranks together.
        seed: Of all draws.
        ranks: The processes that train; each gets its share of every batch.

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
        num_workers=0,  # raw windows are read faster than workers hand them over
    )


def held_out_clips(
    recipe: KeypointRecipe, dataset: PackedDataset, *, split: Split = "validation"
) -> VideoBatch:
    """Return windows of clips that are not trained on, unvaried, the same at every call.

    Args:
        recipe: How many, and of what length and size.
        dataset: The packed clips.
        split: Which of them.

    Raises:
        UserError: There are none, or none is long enough.
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


def latents_of(
    recipe: KeypointRecipe,
) -> Callable[[KeypointStage1, VideoBatch], LatentPool]:
    """Return what encodes a batch for the flow: features of x0, z, and the control, centred.

    Where the track of a body's points is known, z is that of the points and not of the pixels, so
    that what the clip encoder cannot make out does not become a part of how bodies move.
    """
    centre = torch.tensor(() if recipe.end_point is None else recipe.end_point.centre)

    @torch.no_grad()
    def encode(stage1: KeypointStage1, batch: VideoBatch) -> LatentPool:
        video = batch.video.to(next(stage1.parameters()))
        joint = stage1.features(stage1.scene(video[:, 0]))
        has_control = recipe.end_point is not None
        eta = batch.control - centre if has_control else batch.control[:, :0]
        return LatentPool(
            joint=pool_features(joint).half().contiguous(),
            z=_latent(stage1, video, batch, twins=recipe.motion.twins).float(),
            eta=eta,
            known=batch.confidence * float(has_control),
        )

    return encode


def _latent(
    stage1: KeypointStage1, video: Tensor, batch: VideoBatch, *, twins: Twins
) -> Float[Tensor, "b z"]:
    if stage1.config.points:
        return stage1.encode_path(sides_apart(batch.track.to(video.device), twins))
    return stage1.encode(video)


def new_stage1(recipe: KeypointRecipe, *, seed: int = 0) -> KeypointStage1:
    """Build stage 1 with random weights.

    Args:
        recipe: What it is made of.
        seed: Of the weights; torch's global stream is left as it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return KeypointStage1(recipe.stage1)


# Clips that stage 1 encodes at once.
_ENCODED = 32


def _new_conditioner(recipe: KeypointRecipe) -> Conditioner:
    with torch.random.fork_rng():
        torch.manual_seed(recipe.stage2.seed)
        return Conditioner(recipe.conditioner)


@torch.no_grad()
def _show(stage1: KeypointStage1, path: Path, *, clips: VideoBatch) -> None:
    """Draw real clips, and below each what comes back of it."""
    device = next(stage1.parameters()).device
    video = clips.video[:_SHOWN].to(device)
    made = stage1.decode(video[:, 0], stage1.encode(video)).clamp(-1, 1)
    times = np.linspace(0, video.shape[1] - 1, _SHOWN_FRAMES).round().astype(int)
    rows = []
    for real, frames in zip(video, made, strict=True):
        below = torch.cat([real[:1], frames])
        rows += [to_pixels(real[times]), to_pixels(below[times])]
    save_strips(path, rows)
