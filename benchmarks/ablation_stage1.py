"""Rows of the ablation of stage 1: the recipe with one change, trained at small size and scored."""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ablation_scores import Metric, num_parameters, pairs
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.lpips import LPIPS
from cinnema.data.augmentation import Augmentation
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import VideoBatch
from cinnema.models.flow.priors import LinearGaussianPrior
from cinnema.models.keypoint.keypoints import sort_symmetric
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from cinnema.recipes import person, robot
from cinnema.recipes.clips import held_out_clips, training_loader
from cinnema.training.adversarial import DiscriminatorsConfig, DiscriminatorTraining
from cinnema.training.keypoint import KeypointStep
from cinnema.training.loop import fit
from cinnema.training.recipe import KeypointData, KeypointRecipe

RECIPES = {"person": person, "robot": robot}
STAGE1_MEASURES = (
    Metric("lpips", "LPIPS"),
    Metric("moved", "L1 where moved"),
    Metric("predicted", "landmarks predicted"),
    Metric("probed", "landmarks probed from z"),
)

# Times at which frames and landmarks are scored, as shares of a clip.
_SHOWN = (0.25, 0.5, 0.75, 1.0)
_MOVED = 0.1  # smallest change of a pixel that counts as motion, in a range of 2
_LPIPS_SIZE = 64  # smaller frames are enlarged to it, because AlexNet needs more than 32 pixels
_PROBED = 512  # training windows of the linear probe from z to landmarks

Change = Callable[[KeypointRecipe], KeypointRecipe]


def _model(**options: Any) -> Change:  # noqa: ANN401
    return lambda recipe: _with_stage1(
        recipe, dataclasses.replace(recipe.stage1, **options), data=recipe.data
    )


def _with_stage1(
    recipe: KeypointRecipe, stage1: KeypointConfig, *, data: KeypointData
) -> KeypointRecipe:
    """Return the recipe with another stage 1, without mirroring if landmarks are not points."""
    if stage1.landmarks and not stage1.points and recipe.stage1.points:
        augmentation = dataclasses.replace(data.augmentation, mirror=0.0)
        data = dataclasses.replace(data, augmentation=augmentation)
    conditioner = dataclasses.replace(recipe.conditioner, feature_dim=stage1.feature_dim)
    return dataclasses.replace(recipe, stage1=stage1, conditioner=conditioner, data=data)


def _training(**options: Any) -> Change:  # noqa: ANN401
    return lambda recipe: dataclasses.replace(
        recipe, motion=dataclasses.replace(recipe.motion, **options)
    )


def _without_landmarks(recipe: KeypointRecipe) -> KeypointRecipe:
    stage1 = dataclasses.replace(recipe.stage1, landmarks=0, points=False)
    return _with_stage1(recipe, stage1, data=dataclasses.replace(recipe.data, landmarks=None))


def _without_augmentation(recipe: KeypointRecipe) -> KeypointRecipe:
    data = dataclasses.replace(recipe.data, augmentation=Augmentation())
    return dataclasses.replace(recipe, data=data)


def _with_discriminators(recipe: KeypointRecipe) -> KeypointRecipe:
    """Return the recipe with both discriminators, from half of the training on."""
    config = DiscriminatorsConfig(
        phases=(DiscriminatorTraining(module="spatial"), DiscriminatorTraining(module="temporal")),
        start=recipe.motion.clips // 2,
        widths=(16, 24, 32),
    )
    return _training(discriminators=config)(recipe)


STAGE1_ROWS: dict[str, Change] = {
    "ours": lambda recipe: recipe,
    "paints only": _model(decoder="paint"),
    "warps only": _model(decoder="warp"),
    "landmarks, no points": _model(points=False),
    "learned sigma, no points": _model(points=False, spread="learned"),
    "no landmarks": _without_landmarks,
    "no augmentation": _without_augmentation,
    "perceptual": _training(perceptual=1.0),
    "discriminators": _with_discriminators,
}


def small_recipe(options: argparse.Namespace, *, seed: int) -> KeypointRecipe:
    """Return the recipe with narrower layers and smaller frames."""
    recipe = RECIPES[options.recipe]()
    stage1 = dataclasses.replace(
        recipe.stage1, size=options.size, width=options.width, encoder_width=options.width
    )
    motion = dataclasses.replace(
        recipe.motion, clips=options.clips, batch_size=options.batch, moments=2, seed=seed
    )
    data = dataclasses.replace(recipe.data, validation_clips=options.held_out)
    recipe = _with_stage1(recipe, stage1, data=data)
    return dataclasses.replace(recipe, motion=motion)


def stage1_row(options: argparse.Namespace, row: str, *, seed: int) -> dict[str, Any]:
    dataset = PackedDataset(options.data)
    base = small_recipe(options, seed=seed)
    recipe = STAGE1_ROWS[row](base)
    model = recipe.new_stage1(seed=seed)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        lpips = LPIPS.load("alex") if recipe.motion.perceptual else None
        step = KeypointStep(model, recipe.motion, device=torch.device("cpu"), perceptual=lpips)
        batches = training_loader(recipe, dataset, recipe.motion.batch_size, seed=seed)
        fit(step, batches, recipe.motion.schedule(), folder=Path(folder))
    seconds = time.process_time() - start
    return {
        "parameters": num_parameters(model),
        "seconds": round(seconds, 1),
        **stage1_scores(model.eval(), base, dataset),
    }


def frozen_row(options: argparse.Namespace) -> dict[str, Any]:
    """Score x0 repeated at every time."""
    return {
        "parameters": 0,
        "seconds": 0.0,
        **stage1_scores(None, small_recipe(options, seed=0), PackedDataset(options.data)),
    }


@torch.no_grad()
def stage1_scores(
    model: KeypointStage1 | None, recipe: KeypointRecipe, dataset: PackedDataset
) -> dict[str, Any]:
    """Score reconstructions of test clips, or their repeated first frames if `model` is None."""
    clips = held_out_clips(recipe, dataset, split="test")
    num_frames = recipe.stage1.num_frames
    at = [round(share * num_frames) for share in _SHOWN]
    times = torch.tensor(at).expand(len(clips.video), -1) / num_frames
    real, x0 = clips.video[:, at], clips.video[:, :1]
    predicted, path = None, _path(clips, recipe, at)
    probe = next(training_loader(_plain(recipe), dataset, _PROBED, seed=1))
    probe_path = _path(probe, recipe, at).flatten(1)
    if model is None:
        made, predicted = x0.expand_as(real), torch.zeros_like(path)
        read_off = probe_path.mean(dim=0).expand(len(path), -1)
    else:
        z, probe_z = (
            torch.cat([model.encode(v) for v in b.video.split(16)]) for b in (clips, probe)
        )
        made = torch.cat(
            [
                model.at(model.scene(x[:, 0]), *rest).frames.clamp(-1, 1)
                for x, *rest in zip(x0.split(16), z.split(16), times.split(16), strict=True)
            ]
        )
        if model.config.landmarks:
            predicted = model.path(z, times)
        # A linear probe with regularisation chosen on held-out windows, the same for every row.
        reader = LinearGaussianPrior.fit(probe_path, probe_z)
        read_off = reader.sample(z, temperature=0.0)
    moved = ((real - x0).abs().mean(dim=2) > _MOVED).float()
    error = (made - real).abs().mean(dim=2)
    scores = {
        "lpips": pairs(_lpips(made, real)),
        "moved": pairs((error * moved).sum(dim=(1, 2, 3)), moved.sum(dim=(1, 2, 3))),
        "predicted": (
            [None] * len(path) if predicted is None else pairs(_mean_error(predicted, path))
        ),
        "probed": pairs(_mean_error(read_off.view_as(path), path)),
    }
    return {"clips": [f"clip {i}" for i in clips.index.tolist()], "scores": scores}


def _plain(recipe: KeypointRecipe) -> KeypointRecipe:
    return _without_augmentation(recipe)


def _path(clips: VideoBatch, recipe: KeypointRecipe, at: Sequence[int]) -> Tensor:
    places = sort_symmetric(clips.track, recipe.motion.symmetric_keypoints)
    return places[:, at] - places[:, :1]


def _mean_error(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean(dim=(1, 2))


def _lpips(made: Tensor, real: Tensor) -> Tensor:
    network = LPIPS.load("alex")

    def enlarged(frames: Tensor) -> Tensor:
        if frames.shape[-1] >= _LPIPS_SIZE:
            return frames
        return functional.interpolate(frames, (_LPIPS_SIZE, _LPIPS_SIZE), mode="bilinear")

    pairs = zip(made.split(16), real.split(16), strict=True)
    distances = [
        network(enlarged(a.flatten(0, 1)), enlarged(b.flatten(0, 1))).view(len(a), -1)
        for a, b in pairs
    ]
    return torch.cat(distances).mean(dim=1)
