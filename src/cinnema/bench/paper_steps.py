"""Training steps of the paper's recipes, on random clips."""

from collections.abc import Callable
from dataclasses import replace

import torch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.loader import VideoBatch
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.recipes import PaperRecipe
from cinnema.paper.training.autoencoding import AutoencodingNetworks, AutoencodingStep
from cinnema.paper.training.conditioning import ConditioningNetworks, ConditioningStep
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.training.precision import Precision
from cinnema.paper.video_encoder import VideoEncoder
from cinnema.training.loop import Position, Step

TRAININGS = ("autoencoding", "conditioning", "flow")
"""The three trainings of the paper's recipes."""

Take = Callable[[int], dict[str, float]]
"""Takes the step of a number and returns its losses."""


def paper_step(
    recipe: PaperRecipe,
    training: str,
    *,
    batch_size: int,
    precision: Precision = "float32",
    recompute_activations: bool = False,
) -> Take:
    """Return a step of one of the paper's trainings, with discriminators, on random clips.

    Args:
        recipe: The recipe.
        training: One of `TRAININGS`.
        batch_size: Number of clips.
        precision: Number format of the networks.
        recompute_activations: Whether stage 1 computes activations again in the backward pass.
    """
    recipe = replace(recipe, precision=precision, recompute_activations=recompute_activations)
    num_frames = 2 if training == "conditioning" else recipe.num_frames + 1
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, num_frames, 3, recipe.size, recipe.size)
    batch = random_video(shape, generator=generator)
    step = _new_paper_step(recipe, training)
    epoch = max(recipe.autoencoding.adversarial_from, recipe.conditioning.adversarial_from)
    return lambda number: step.take(batch, Position(number=number, epoch=epoch))


def _new_paper_step(recipe: PaperRecipe, training: str) -> Step[VideoBatch]:
    precision = recipe.precision
    if training == "autoencoding":
        config = recipe.autoencoding
        return AutoencodingStep(
            AutoencodingNetworks(recipe.stage1),
            config,
            perceptual=LPIPS.load(config.network),
            precision=precision,
            recompute_activations=recipe.recompute_activations,
        )
    if training == "conditioning":
        return ConditioningStep(
            ConditioningNetworks(recipe.conditioner),
            recipe.conditioning,
            perceptual=LPIPS.load(recipe.conditioning.network),
            precision=precision,
        )
    return FlowStep(
        new_flow(recipe.flow),
        recipe.flow_training,
        video_encoder=VideoEncoder(recipe.stage1.encoder),
        image_encoder=ImageEncoder(recipe.conditioner.encoder),
        precision=precision,
    )


def random_video(
    shape: tuple[int, ...], *, generator: torch.Generator, landmarks: int = 0, fps: float = 1.0
) -> VideoBatch:
    """Return a batch of noise without a control.

    Args:
        shape: Clips, frames, channels, height and width.
        generator: Source of the noise.
        landmarks: Columns of the track.
        fps: Frames per second of the clips.
    """
    num = shape[0]
    return VideoBatch(
        video=torch.rand(shape, generator=generator) * 2 - 1,
        control=torch.zeros(num, 0),
        confidence=torch.ones(num),
        track=torch.rand(*shape[:2], landmarks, generator=generator),
        fps=torch.full((num,), fps),
        index=torch.arange(num),
        number=torch.arange(num),
    )
