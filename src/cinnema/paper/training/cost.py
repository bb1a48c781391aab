"""What the trainings of the paper's model will cost: a step or a few of each on made-up clips."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cinnema.backbones.lpips import LPIPS
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import VideoBatch
from cinnema.paper.control import END_POINT_DIM
from cinnema.paper.recipes import PaperRecipe
from cinnema.paper.training.autoencoding import AutoencodingNetworks, AutoencodingStep
from cinnema.paper.training.conditioning import ConditioningNetworks, ConditioningStep
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.training.loop import Length, batch_of
from cinnema.recipes.cost import CostEstimate, count_parameters, measure, state_bytes

_Step = Callable[..., object]


def estimate_paper(recipe: PaperRecipe, *, data: Path, device: torch.device) -> list[CostEstimate]:
    """Take a few steps of the three trainings, discriminators among them.

    Args:
        recipe: What would be trained.
        data: Folder of packed clips, which says how many an epoch has.
        device: Where to compute.

    Raises:
        UserError: The data are missing or damaged, the weights of LPIPS are not installed, or the
            device is slow in the recipe's precision.
    """
    num_clips = len(PackedDataset(data).indices("train"))
    stage1 = AutoencodingNetworks(recipe.stage1).to(device)
    conditioner = ConditioningNetworks(recipe.conditioner).to(device)
    flow = new_flow(recipe.flow).to(device)
    lpips = {
        name: LPIPS.load(name).to(device)
        for name in {recipe.autoencoding.network, recipe.conditioning.network}
    }
    autoencoding = AutoencodingStep(
        stage1,
        recipe.autoencoding,
        perceptual=lpips[recipe.autoencoding.network],
        precision=recipe.precision,
    )
    conditioning = ConditioningStep(
        conditioner,
        recipe.conditioning,
        perceptual=lpips[recipe.conditioning.network],
        precision=recipe.precision,
    )
    # It freezes the encoders that it is given.
    flow_step = FlowStep(
        flow,
        recipe.flow_training,
        video_encoder=copy.deepcopy(stage1.encoder),
        image_encoder=copy.deepcopy(conditioner.encoder),
        precision=recipe.precision,
    )
    trainings: list[tuple[str, nn.Module, _Step, Length]] = [
        ("stage1", stage1, autoencoding, recipe.autoencoding),
        ("conditioning", conditioner, conditioning, recipe.conditioning),
        ("flow", nn.ModuleDict({"flow": flow}), flow_step, recipe.flow_training),
    ]
    return [
        _rehearse(recipe, *training, num_clips=num_clips, device=device) for training in trainings
    ]


def _rehearse(
    recipe: PaperRecipe,
    name: str,
    networks: nn.Module,
    step: _Step,
    config: Length,
    *,
    num_clips: int,
    device: torch.device,
) -> CostEstimate:
    batch = _made_up(recipe, config.batch_size, one_frame=name == "conditioning").to(device)
    kept, pace = measure(
        lambda number: step(batch, number=number, epoch=config.epochs),
        batch_size=config.batch_size,
        device=device,
    )
    trained, state = state_bytes(networks)
    return CostEstimate(
        name=name,
        clips=config.epochs * config.windows * num_clips,
        batch_size=config.batch_size,
        parameters=count_parameters(networks),
        trained=trained,
        state_bytes=state,
        activation_bytes=kept,
        clips_per_second=pace,
        drawn_per_second=None,
    )


def _made_up(recipe: PaperRecipe, num: int, *, one_frame: bool) -> VideoBatch:
    frames = 2 if one_frame else recipe.num_frames + 1
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(num, frames, 3, recipe.size, recipe.size, generator=generator) * 2 - 1
    return batch_of(video, control=torch.full((num, END_POINT_DIM), 0.2))
