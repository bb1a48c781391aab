"""From a recipe of the paper and packed clips to a model: three trainings, one weights file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.weights import load_weights, save_weights
from cinnema.data.dataset import PackedDataset
from cinnema.data.loader import ClipLoader
from cinnema.models.files import save_model
from cinnema.paper.control import END_POINT_DIM
from cinnema.paper.flow import PaperFlow
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.model import PaperModel
from cinnema.paper.recipes import PaperRecipe
from cinnema.paper.training.autoencoding import (
    AutoencodingNetworks,
    AutoencodingStep,
    AutoencodingTraining,
    train_autoencoder,
)
from cinnema.paper.training.conditioning import (
    ConditioningNetworks,
    ConditioningStep,
    ConditioningTraining,
    train_conditioning,
)
from cinnema.paper.training.flow import FlowStep, FlowTraining, new_flow, train_flow
from cinnema.paper.training.validation import HeldOut
from cinnema.paper.video_encoder import VideoEncoder
from cinnema.recipes.summary import draw_summary

_Training: TypeAlias = AutoencodingTraining | ConditioningTraining | FlowTraining


def train_paper(
    recipe: PaperRecipe,
    *,
    data: Path,
    run: Path,
    device: torch.device,
    num_workers: int = 1,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train stage 1, the conditioning encoder and the cINN, or go on where the run stopped.

    Each training has a folder of its own in that of the run, with checkpoints and numbers, and
    leaves its weights beside it; what has been trained is not trained again.

    Args:
        recipe: What to train and how.
        data: Folder of packed clips, as `cinnema data prepare` writes it.
        run: Folder of the run.
        device: Where to compute.
        num_workers: Processes that prepare batches; 0 does it between two steps.
        ranks: The processes that train together; one alone if None.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The weights file, in the run's folder.

    Raises:
        UserError: The data are missing, damaged, too short or without the control that the recipe
            wants; the device is slow in the recipe's precision; the folder holds another run or
            cannot be written to; a loss is no number.
    """
    dataset = PackedDataset(data)
    _require_control(recipe, dataset)
    place = _Workplace(
        recipe,
        dataset,
        run=run,
        device=device,
        num_workers=num_workers,
        ranks=ranks or Ranks(),
        tensorboard=tensorboard,
    )
    held_out = HeldOut.of(
        dataset, num_frames=recipe.num_frames + 1, size=recipe.size, device=device
    )
    stage1 = _stage1(place, held_out)
    encoder = _image_encoder(place)
    flow = _flow(place, held_out, video_encoder=stage1.encoder, image_encoder=encoder)
    model = PaperModel.of_networks(
        recipe.name,
        decoder=stage1.decoder,
        video_encoder=stage1.encoder,
        image_encoder=encoder,
        flow=flow,
    )
    path = run / f"{recipe.name}.safetensors"
    if place.ranks.is_first:
        save_model(path, model, overwrite=True)
    return path


def _stage1(place: "_Workplace", held_out: HeldOut | None) -> AutoencodingNetworks:
    config = place.recipe.autoencoding
    networks = AutoencodingNetworks(place.recipe.stage1, seed=config.seed).to(place.device)

    def train(batches: ClipLoader, folder: Path) -> object:
        lpips = LPIPS.load(config.network).to(place.device)
        validate = None if held_out is None else held_out.reconstruction(networks, lpips)
        step = AutoencodingStep(
            networks,
            config,
            perceptual=lpips,
            ranks=place.ranks,
            precision=place.recipe.precision,
        )
        return train_autoencoder(
            step, batches, folder=folder, validate=validate, tensorboard=place.tensorboard
        )

    place.complete("stage1", networks, config, train)
    return networks


def _image_encoder(place: "_Workplace") -> ImageEncoder:
    config = place.recipe.conditioning
    networks = ConditioningNetworks(place.recipe.conditioner, seed=config.seed).to(place.device)

    def train(batches: ClipLoader, folder: Path) -> object:
        lpips = LPIPS.load(config.network).to(place.device)
        step = ConditioningStep(
            networks,
            config,
            perceptual=lpips,
            ranks=place.ranks,
            precision=place.recipe.precision,
        )
        return train_conditioning(step, batches, folder=folder, tensorboard=place.tensorboard)

    place.complete("conditioning", networks, config, train)
    return networks.encoder


def _flow(
    place: "_Workplace",
    held_out: HeldOut | None,
    *,
    video_encoder: VideoEncoder,
    image_encoder: ImageEncoder,
) -> PaperFlow:
    config = place.recipe.flow_training
    flow = new_flow(place.recipe.flow, seed=config.seed).to(place.device)

    def train(batches: ClipLoader, folder: Path) -> object:
        step = FlowStep(
            flow,
            config,
            video_encoder=video_encoder,
            image_encoder=image_encoder,
            ranks=place.ranks,
            precision=place.recipe.precision,
        )
        validate = None if held_out is None else held_out.likelihood(step)
        return train_flow(
            step, batches, folder=folder, validate=validate, tensorboard=place.tensorboard
        )

    place.complete("flow", flow, config, train, after=("stage1", "conditioning"))
    return flow


@dataclass(frozen=True)
class _Workplace:
    """Where the trainings of a run lie, and what they have in common."""

    recipe: PaperRecipe
    dataset: PackedDataset
    run: Path
    device: torch.device
    num_workers: int
    ranks: Ranks
    tensorboard: bool

    def complete(
        self,
        name: str,
        network: nn.Module,
        config: _Training,
        train: Callable[[ClipLoader, Path], object],
        *,
        after: tuple[str, ...] = (),
    ) -> None:
        """Train a network unless its file is there, made by this recipe on these data.

        Args:
            name: Of the training.
            network: Trained or loaded in place, and left in evaluation mode.
            config: How.
            train: Trains it, with batches and in a folder.
            after: Trainings whose results go into this one.
        """
        path = self.run / f"{name}.safetensors"
        about = {
            "recipe": self.recipe.about(),
            "data": self.dataset.manifest.name,
            "num_clips": len(self.dataset),
            "after": [load_weights(self.run / f"{part}.safetensors").sha256 for part in after],
        }
        if not _load(path, network, about):
            train(self._loader(config), self.run / name)
            if self.ranks.is_first:
                save_weights(path, network.state_dict(), about, dtype=torch.float32, overwrite=True)
                draw_summary(self.run / name)
            self.ranks.gather(name)  # the others read the file, which is there from here on
        network.eval()

    def _loader(self, config: _Training) -> ClipLoader:
        # One frame is all that the image auto-encoder wants; a window has two at least.
        is_image = isinstance(config, ConditioningTraining)
        return ClipLoader(
            self.dataset,
            batch_size=len(range(config.batch_size)[self.ranks.share(config.batch_size)]),
            rank=self.ranks.rank,
            num_ranks=self.ranks.size,
            num_frames=2 if is_image else self.recipe.num_frames + 1,
            size=self.recipe.size,
            augmentation=config.augmentation,
            seed=config.seed,
            num_workers=self.num_workers,
            device=self.device,
        )


def _load(path: Path, network: nn.Module, about: Mapping[str, Any]) -> bool:
    """Load a network if the file is there and of this run; say whether."""
    if not path.exists():
        return False
    file = load_weights(path)
    if file.config != about:
        return False  # training it again finds the run's folder, which says what differs
    network.load_state_dict(file.state)
    return True


def _require_control(recipe: PaperRecipe, dataset: PackedDataset) -> None:
    control = dataset.manifest.control
    if not recipe.flow.control:
        return
    if control is None or len(control.labels) != END_POINT_DIM or control.unit != "m":
        has = "no control" if control is None else f"the control {control.name}"
        raise UserError(
            f"{recipe.name} is told the end point of the robot's arm, x, y and z in metres, but "
            f"{dataset.folder} has {has}: pack BAIR with it, or train without --control"
        )
