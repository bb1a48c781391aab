"""What the training of an articulated recipe will cost: a few steps of it on made-up clips."""

import torch
from torch import nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.precision import fast_dtype
from cinnema.data.loader import VideoBatch
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.recipes.cost import CostEstimate, count_parameters, measure, state_bytes
from cinnema.recipes.keypoint import KeypointRecipe
from cinnema.recipes.keypoint_assembly import new_stage1
from cinnema.training.keypoint import KeypointTraining
from cinnema.training.keypoint import trial as stage1_trial
from cinnema.training.latent_pool import LatentPool
from cinnema.training.stage2 import trial as stage2_trial


def estimate_stage1(recipe: KeypointRecipe, *, device: torch.device) -> list[CostEstimate]:
    """Take a few steps of each phase of stage 1.

    Args:
        recipe: What would be trained.
        device: Where to compute.

    Raises:
        UserError: The weights of LPIPS are not installed.
    """
    return [
        _rehearse_phase(recipe, training, device=device)
        for training in (recipe.motion, recipe.picture)
    ]


def estimate_stage2(recipe: KeypointRecipe, *, device: torch.device) -> list[CostEstimate]:
    """Take a few steps of stage 2 on a pool of made-up latents, whose encoding is not in it.

    Args:
        recipe: What would be trained.
        device: Where to compute.
    """
    config = recipe.stage2
    with torch.random.fork_rng():
        conditioner = Conditioner(recipe.conditioner).to(device)
        flow = ConditionalFlow(recipe.flow).to(device)
        num = max(256, config.batch_size)
        pool = LatentPool(
            joint=torch.randn(num, recipe.stage1.feature_dim, 8, 8).half(),
            z=torch.randn(num, recipe.stage1.z_dim),
            eta=torch.randn(num, recipe.conditioner.control_dim),
            known=torch.ones(num),
        ).to(device)
        take = stage2_trial(conditioner, flow, pool, config, noise=recipe.stage1.noise)
        kept, pace = measure(take, batch_size=config.batch_size, device=device)
    networks = nn.ModuleDict({"conditioner": conditioner, "flow": flow})
    trained, state = state_bytes(networks)
    return [
        CostEstimate(
            name="stage2",
            clips=config.clips,
            batch_size=config.batch_size,
            parameters=count_parameters(networks),
            trained=trained,
            state_bytes=state,
            activation_bytes=kept,
            clips_per_second=pace,
            drawn_per_second=None,
        )
    ]


def _rehearse_phase(
    recipe: KeypointRecipe, training: KeypointTraining, *, device: torch.device
) -> CostEstimate:
    model = new_stage1(recipe)
    perceptual = LPIPS.load(training.network).to(device) if training.perceptual else None
    batch = made_up_batch(recipe, training.batch_size)
    take = stage1_trial(model, batch, training, device=device, perceptual=perceptual)
    kept, pace = measure(take, batch_size=training.batch_size, device=device)
    trained, state = state_bytes(model, weight_bytes=torch.finfo(fast_dtype(device)).bits // 8)
    if perceptual is not None:
        state += sum(p.numel() * p.element_size() for p in perceptual.parameters())
    return CostEstimate(
        name=training.phase,
        clips=training.clips,
        batch_size=training.batch_size,
        parameters=count_parameters(model),
        trained=trained,
        state_bytes=state,
        activation_bytes=kept,
        clips_per_second=pace,
        drawn_per_second=None,
    )


def made_up_batch(recipe: KeypointRecipe, num: int) -> VideoBatch:
    """Return clips of noise, as large as those that a recipe trains on.

    Args:
        recipe: Its sizes.
        num: Of clips.
    """
    stage1 = recipe.stage1
    generator = torch.Generator().manual_seed(0)
    shape = (num, stage1.num_frames + 1)
    video = torch.rand(*shape, 3, stage1.size, stage1.size, generator=generator) * 2 - 1
    return VideoBatch(
        video=video,
        control=torch.zeros(num, recipe.conditioner.control_dim),
        confidence=torch.ones(num),
        track=torch.rand(*shape, stage1.landmarks, generator=generator),
        fps=torch.full((num,), stage1.fps),
        index=torch.arange(num),
        number=torch.arange(num),
    )
