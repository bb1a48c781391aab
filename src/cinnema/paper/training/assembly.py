"""From a recipe of the paper and packed clips to a model: three trainings, one weights file."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.weights import load_weights, save_weights
from cinnema.data.dataset import PackedDataset, open_dataset
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.models.files import save_model
from cinnema.paper.control import END_POINT_DIM
from cinnema.paper.model import PaperModel
from cinnema.paper.recipes import PaperRecipe
from cinnema.paper.training.autoencoding import (
    AutoencodingNetworks,
    AutoencodingStep,
    AutoencodingTraining,
)
from cinnema.paper.training.conditioning import (
    ConditioningNetworks,
    ConditioningStep,
    ConditioningTraining,
)
from cinnema.paper.training.flow import FlowStep, FlowTraining, new_flow
from cinnema.training.cost import CostEstimate, estimate
from cinnema.training.loop import Schedule, Step, Validate, fit
from cinnema.training.metrics_log import plot_metrics

_Training: TypeAlias = AutoencodingTraining | ConditioningTraining | FlowTraining

_SAVE_EVERY = 300.0  # seconds; a checkpoint of the largest recipe has 3 GB
_NUM_HELD_OUT = 32  # clips


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
    """Train stage 1, the conditioning encoder and the cINN, or resume the run.

    Each training has a sub-folder in that of the run, and leaves its weights beside it; one whose
    weights exist is not repeated.

    Args:
        recipe: The recipe.
        data: Packed data set, or folder of videos.
        run: Folder of the run.
        device: Where to compute.
        num_workers: Processes that prepare batches; with 0, training does it itself.
        ranks: The processes that train together; one by default.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        The weights file, in the folder of the run.

    Raises:
        UserError: The data are missing, damaged, too short or without the control of the recipe;
            the device is slow in the recipe's precision; the folder holds another run or cannot be
            written to; a loss is not finite.
    """
    work = _Work(recipe, data=data, run=run, device=device, num_workers=num_workers, ranks=ranks)
    for part in work.parts():
        work.complete(part, tensorboard=tensorboard)
    model = PaperModel.of_networks(
        recipe.name,
        decoder=work.stage1.decoder,
        video_encoder=work.stage1.encoder,
        image_encoder=work.conditioner.encoder,
        flow=work.flow,
    )
    path = run / f"{recipe.name}.safetensors"
    if work.ranks.is_first:
        save_model(path, model, overwrite=True)
    return path


def estimate_paper(
    recipe: PaperRecipe, *, data: Path, run: Path, device: torch.device
) -> list[CostEstimate]:
    """Estimate the cost of the three trainings; what `train_paper` refuses is refused.

    Args:
        recipe: The recipe.
        data: Packed data set, or folder of videos.
        run: Folder of the run, in which nothing is written.
        device: Where to compute.

    Raises:
        UserError: As `train_paper`.
    """
    work = _Work(recipe, data=data, run=run, device=device, num_workers=0)
    return [work.estimate(part) for part in work.parts()]


@dataclass(frozen=True)
class _Part:
    """One of the trainings.

    Attributes:
        name: Name of the training.
        config: Its configuration.
        networks: Trained in place.
        start: Returns its step and, where there are held-out clips, its validation.
        after: Trainings whose weights it depends on.
    """

    name: str
    config: _Training
    networks: nn.Module
    start: Callable[[], tuple[Step[VideoBatch], Validate | None]]
    after: tuple[str, ...] = ()


class _Work:
    """The networks of a recipe, and where its trainings are kept."""

    def __init__(
        self,
        recipe: PaperRecipe,
        *,
        data: Path,
        run: Path,
        device: torch.device,
        num_workers: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.recipe, self.run, self.device = recipe, run, device
        self.num_workers, self.ranks = num_workers, ranks or Ranks()
        self.dataset = open_dataset(data)
        _require_control(recipe, self.dataset)
        self.held_out = held_out_clips(
            self.dataset, num_frames=recipe.num_frames + 1, size=recipe.size, device=device
        )
        self.stage1 = AutoencodingNetworks(recipe.stage1, seed=recipe.autoencoding.seed).to(device)
        self.conditioner = ConditioningNetworks(
            recipe.conditioner, seed=recipe.conditioning.seed
        ).to(device)
        self.flow = new_flow(recipe.flow, seed=recipe.flow_training.seed).to(device)

    def parts(self) -> Iterator[_Part]:
        """Yield the trainings in order; each has to be completed before the next."""
        recipe = self.recipe
        yield _Part("stage1", recipe.autoencoding, self.stage1, self._autoencoding)
        yield _Part("conditioning", recipe.conditioning, self.conditioner, self._conditioning)
        after = ("stage1", "conditioning")
        yield _Part("flow", recipe.flow_training, self.flow, self._flow, after)

    def complete(self, part: _Part, *, tensorboard: bool) -> None:
        """Train the networks, unless their file was written by this recipe and these data."""
        path = self.run / f"{part.name}.safetensors"
        about = {
            "recipe": self.recipe.about(),
            "data": self.dataset.manifest.name,
            "num_clips": len(self.dataset),
            "after": [load_weights(self.run / f"{name}.safetensors").sha256 for name in part.after],
        }
        if not _load(path, part.networks, about):
            folder, batches = self.run / part.name, self._loader(part.config)
            step, validate = part.start()
            schedule = schedule_of(part.config, len(batches.sequence))
            fit(step, batches, schedule, folder=folder, validate=validate, tensorboard=tensorboard)
            if self.ranks.is_first:
                plot_metrics(folder)  # before the weights, without which this is done again
                state = part.networks.state_dict()
                save_weights(path, state, about, dtype=torch.float32, overwrite=True)
            self.ranks.gather(part.name)  # from here on the file exists for the other ranks
        part.networks.eval()

    def estimate(self, part: _Part) -> CostEstimate:
        """Take a few steps on a batch of the data, with discriminators."""
        with closing(self._loader(part.config)) as batches:
            step, _ = part.start()
            return estimate(
                part.name,
                step,
                next(batches),
                schedule_of(part.config, len(batches.sequence)),
                folder=self.run / part.name,
                device=self.device,
                epoch=part.config.epochs,
            )

    def _autoencoding(self) -> tuple[Step[VideoBatch], Validate | None]:
        config = self.recipe.autoencoding
        lpips = LPIPS.load(config.network).to(self.device)
        step = AutoencodingStep(
            self.stage1,
            config,
            perceptual=lpips,
            ranks=self.ranks,
            precision=self.recipe.precision,
            recompute_activations=self.recipe.recompute_activations,
        )
        if not self.held_out:
            return step, None
        return step, partial(score_reconstruction, self.stage1, lpips, self.held_out)

    def _conditioning(self) -> tuple[Step[VideoBatch], Validate | None]:
        config = self.recipe.conditioning
        step = ConditioningStep(
            self.conditioner,
            config,
            perceptual=LPIPS.load(config.network).to(self.device),
            ranks=self.ranks,
            precision=self.recipe.precision,
        )
        return step, None

    def _flow(self) -> tuple[Step[VideoBatch], Validate | None]:
        step = FlowStep(
            self.flow,
            self.recipe.flow_training,
            video_encoder=self.stage1.encoder,
            image_encoder=self.conditioner.encoder,
            ranks=self.ranks,
            precision=self.recipe.precision,
        )
        return step, partial(score_likelihood, step, self.held_out) if self.held_out else None

    def _loader(self, config: _Training) -> ClipLoader:
        # The image auto-encoder needs one frame, but the shortest window has two.
        is_image = isinstance(config, ConditioningTraining)
        share = self.ranks.share(config.batch_size)
        return ClipLoader(
            self.dataset,
            batch_size=share.stop - share.start,
            rank=self.ranks.rank,
            num_ranks=self.ranks.size,
            num_frames=2 if is_image else self.recipe.num_frames + 1,
            size=self.recipe.size,
            augmentation=config.augmentation,
            seed=config.seed,
            num_workers=self.num_workers,
            device=self.device,
        )


def held_out_clips(
    dataset: PackedDataset, *, num_frames: int, size: int, device: torch.device
) -> tuple[VideoBatch, ...]:
    """Return up to 32 validation clips, one window of each, not augmented.

    Args:
        dataset: The packed clips.
        num_frames: Frames of a window, x0 included.
        size: Width and height of the frames, in pixels.
        device: Where the clips are returned.

    Returns:
        Batches of one clip each; none if no validation clip is long enough.
    """
    try:
        loader = ClipLoader(
            dataset,
            split="validation",
            batch_size=1,
            num_frames=num_frames,
            size=size,
            seed=0,
            num_workers=0,
            device=device,
        )
    except UserError:  # the split is empty, or its clips are too short
        return ()
    return tuple(next(loader) for _ in range(min(_NUM_HELD_OUT, len(loader.sequence))))


@torch.no_grad()
def score_reconstruction(
    networks: AutoencodingNetworks, lpips: LPIPS, clips: tuple[VideoBatch, ...]
) -> dict[str, float]:
    """Return the mean LPIPS of reconstructed clips, and of x0 repeated.

    Args:
        networks: Networks of stage 1; set to evaluation mode.
        lpips: On the same device.
        clips: Held-out clips, on that device.
    """
    networks.eval()
    distances = torch.stack([_distances(networks, lpips, batch) for batch in clips])
    model, frozen = distances.mean(dim=0).tolist()
    return {"held_out_lpips": model, "held_out_lpips_frozen": frozen}


@torch.no_grad()
def score_likelihood(step: FlowStep, clips: tuple[VideoBatch, ...]) -> dict[str, float]:
    """Return the mean negative log-likelihood of the latents of clips, in nats per dimension.

    Args:
        step: The step of the cINN, which is set to evaluation mode.
        clips: Held-out clips, on its device.
    """
    flow = step.networks.eval()
    nll = [
        -flow.log_prob(*step.latents(batch, number=number)).mean()
        for number, batch in enumerate(clips)
    ]
    return {"held_out_nll": float(torch.stack(nll).mean()) / flow.config.in_channels}


def _distances(networks: AutoencodingNetworks, lpips: LPIPS, batch: VideoBatch) -> Tensor:
    """Return LPIPS of the reconstructed clip, and of x0 repeated."""
    x0, real = batch.video[:, 0], batch.video[:, 1:]
    mu, _ = networks.encoder(real.transpose(1, 2))
    features = lpips.features(real.flatten(0, 1))
    decoded = lpips.features(networks.decoder(x0, mu).flatten(0, 1))
    frozen = lpips.features(x0[:, None].expand_as(real).flatten(0, 1))
    return torch.stack(
        [lpips.distance(features, decoded).mean(), lpips.distance(features, frozen).mean()]
    )


def schedule_of(config: _Training, num_clips: int) -> Schedule:
    """Return the schedule of a training on a number of clips; it validates after each epoch."""
    epoch = config.windows * num_clips
    return Schedule(
        clips=config.epochs * epoch,
        batch_size=config.batch_size,
        validate_every=epoch,
        epoch=epoch,
        save_every=_SAVE_EVERY,
    )


def _load(path: Path, network: nn.Module, about: Mapping[str, Any]) -> bool:
    """Load a network if its file exists and belongs to this run; return whether it does."""
    if not path.exists():
        return False
    file = load_weights(path)
    if file.config != about:
        return False  # the training then reports what differs in its folder
    network.load_state_dict(file.state)
    return True


def _require_control(recipe: PaperRecipe, dataset: PackedDataset) -> None:
    control = dataset.manifest.control
    if not recipe.flow.control:
        return
    if control is None or len(control.labels) != END_POINT_DIM or control.unit != "m":
        has = "no control" if control is None else f"the control {control.name}"
        raise UserError(
            f"{recipe.name} is conditioned on the end point of the robot's arm, x, y and z in "
            f"metres, but {dataset.folder} has {has}: pack BAIR with it, or train without --control"
        )
