"""Clips, and steps of the three trainings."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from cinnema.core.distributed import Ranks
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.recipes import PaperRecipe
from cinnema.paper.training.autoencoding import AutoencodingNetworks, AutoencodingStep
from cinnema.paper.training.conditioning import ConditioningNetworks, ConditioningStep
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.training.precision import Precision
from cinnema.paper.video_encoder import VideoEncoder
from paper.training.moving_squares import ARM, pack
from paper.training.small_networks import RECIPE, STAGE1, batch_of, distance


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    return pack(tmp_path_factory.mktemp("packed") / "squares", control=ARM)


@pytest.fixture
def loader(squares: PackedDataset) -> Callable[..., ClipLoader]:
    def make(**options: Any) -> ClipLoader:
        defaults = {"batch_size": 2, "num_frames": RECIPE.num_frames + 1, "num_workers": 0}
        return ClipLoader(squares, **{**defaults, **options})

    return make


@pytest.fixture
def batch() -> VideoBatch:
    """Two smooth clips that darken."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 8, 8, generator=generator) * 1.6 - 0.8
    x0 = nn.functional.interpolate(x0, (64, 64), mode="bilinear")
    fade = torch.linspace(1, 0.2, RECIPE.num_frames + 1).view(1, -1, 1, 1, 1)
    control = torch.tensor([[0.6, -0.1, 0.25], [0.5, 0.0, 0.22]])
    return batch_of(x0[:, None] * fade, control=control)


@pytest.fixture
def small_batch(batch: VideoBatch) -> VideoBatch:
    """The same clips at 32 px."""
    video = nn.functional.avg_pool2d(batch.video.flatten(0, 1), 2)
    return replace(batch, video=video.unflatten(0, batch.video.shape[:2]))


@pytest.fixture
def autoencoding() -> Callable[..., AutoencodingStep]:
    """Make the step of stage 1 at 32 px; options are fields of its configuration."""

    def make(
        *,
        seed: int = 0,
        ranks: Ranks | None = None,
        precision: Precision = "float32",
        recompute_activations: bool = False,
        **options: Any,
    ) -> AutoencodingStep:
        config = replace(RECIPE.autoencoding, **{"adversarial_from": 0, **options})
        networks = AutoencodingNetworks(STAGE1, seed=seed)
        return AutoencodingStep(
            networks,
            config,
            perceptual=distance,
            ranks=ranks,
            precision=precision,
            recompute_activations=recompute_activations,
        )

    return make


@pytest.fixture
def conditioning() -> Callable[..., ConditioningStep]:
    """Make the step of the image auto-encoder; options are fields of its configuration."""

    def make(
        *, seed: int = 0, precision: Precision = "float32", **options: Any
    ) -> ConditioningStep:
        config = replace(RECIPE.conditioning, **{"adversarial_from": 0, **options})
        networks = ConditioningNetworks(RECIPE.conditioner, seed=seed)
        return ConditioningStep(networks, config, perceptual=distance, precision=precision)

    return make


@pytest.fixture
def flow() -> Callable[..., FlowStep]:
    """Make the step of the cINN; options are fields of its configuration."""

    def make(
        *,
        seed: int = 0,
        recipe: PaperRecipe = RECIPE,
        ranks: Ranks | None = None,
        precision: Precision = "float32",
        **options: Any,
    ) -> FlowStep:
        torch.manual_seed(7)  # of the encoders, which are the same whatever the flow's seed
        return FlowStep(
            new_flow(recipe.flow, seed=seed),
            replace(recipe.flow_training, **{"windows": 1, "batch_size": 2, **options}),
            video_encoder=VideoEncoder(recipe.stage1.encoder),
            image_encoder=ImageEncoder(recipe.conditioner.encoder),
            ranks=ranks,
            precision=precision,
        )

    return make
