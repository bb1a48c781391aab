"""Trains both stages of a recipe in a run folder, and bundles them into a weights file.

The folder contains a sub-folder per training, with checkpoints, metrics, their plot and sample
grids; the final weights of each training; and `recipe.json`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.core.state_dicts import load_state
from cinnema.core.weights import load_weights, save_weights
from cinnema.models.files import save_model
from cinnema.training.keypoint_losses import KeypointTraining
from cinnema.training.loop import Batches, fit
from cinnema.training.metrics_log import plot_metrics
from cinnema.training.recipe import KeypointRecipe
from cinnema.training.stage2 import FlowNetworks, fit_latents
from cinnema.training.stage2 import Validate as ValidateLatents

RECIPE_FILE = "recipe.json"
"""File in the run folder with the recipe of the training that ended last."""


@runtime_checkable
class Clips(Protocol):
    """Source of the clips that a recipe is trained on."""

    def batches(self, training: Any, *, seed: int, ranks: Ranks) -> Batches[Any]:  # noqa: ANN401
        """Return endless batches for a phase of stage 1, this rank's part of each."""
        ...

    def pool_batches(self, *, seed: int) -> Iterator[Any]:
        """Return endless batches of the clips that stage 2 is trained on."""
        ...

    def show(self, stage1: Any, path: Path) -> object:  # noqa: ANN401 - of the recipe's kind
        """Draw held-out clips and their reconstruction into a PNG file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Functions that score networks on held-out clips during training.

    Attributes:
        stage1: Maps stage 1 and the training of a phase to scores by name.
        latents: Maps stage 1 to a function that scores conditioner and flow.
    """

    stage1: Callable[[Any, Any], dict[str, float]]
    latents: Callable[[Any], ValidateLatents]


def train_stage1(
    recipe: KeypointRecipe,
    clips: Clips,
    *,
    run: Path,
    device: torch.device,
    validation: Validation | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the phases of stage 1, or resume the run.

    Args:
        recipe: The recipe.
        clips: The recipe's clips.
        run: Folder of the run; created if missing.
        device: Device to compute on.
        validation: Scores on held-out clips; None for none.
        ranks: The processes that train together; one by default.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        The file with the weights of stage 1, in the folder of the run.

    Raises:
        UserError: The folder cannot be written to or holds a run of another recipe; the ranks
            cannot share a batch evenly; the data are damaged; a loss is not finite.
    """
    ranks = ranks or Ranks()
    model = recipe.new_stage1()
    for training in recipe.phases:
        folder = run / training.phase
        step = recipe.new_step(
            model, training, device=device, perceptual=lpips_of(training, device), ranks=ranks
        )
        fit(
            step,
            clips.batches(training, seed=training.seed, ranks=ranks),
            training.schedule(),
            folder=folder,
            validate=_validate_stage1(validation, model, training),
            show=lambda path: clips.show(model, path),
            tensorboard=tensorboard,
        )
        if ranks.is_first:
            _save(stage1_file(recipe, run, training), model, recipe.stage1)
            plot_metrics(folder)
    if ranks.is_first:
        _keep_recipe(run, recipe)
    return stage1_file(recipe, run, recipe.phases[-1])


def train_stage2(
    recipe: KeypointRecipe,
    clips: Clips,
    *,
    run: Path,
    device: torch.device,
    validation: Validation | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train conditioner and flow on the stage 1 of the same run, or resume the run.

    Unless phase "picture" trains the encoder, only phase "motion" has to be finished, and later
    phases can be trained in parallel.

    Args:
        recipe: The recipe.
        clips: The recipe's clips.
        run: Folder of the run.
        device: Device to compute on.
        validation: Scores on held-out clips; None for none.
        ranks: The processes that train together; one by default. The first encodes the clips.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Returns:
        The file with the weights of stage 2, in the folder of the run.

    Raises:
        UserError: Stage 1 has not been trained in that folder; and as `train_stage1`.
    """
    ranks = ranks or Ranks()
    stage1 = load_stage1(recipe, run)
    networks = FlowNetworks(*recipe.new_flow())
    fit_latents(
        stage1,
        networks.conditioner,
        networks.flow,
        clips.pool_batches(seed=recipe.stage2.seed + 1),
        recipe.stage2,
        folder=run / "stage2",
        device=device,
        encode_batch=recipe.encode,
        validate=None if validation is None else validation.latents(stage1),
        ranks=ranks,
        tensorboard=tensorboard,
    )
    path = _stage2_file(run)
    if ranks.is_first:
        _save(path, networks, recipe.flow)
        plot_metrics(run / "stage2")
        _keep_recipe(run, recipe)
    return path


def bundle(recipe: KeypointRecipe, *, run: Path, output: Path, overwrite: bool = False) -> Path:
    """Write both trained stages of a run into one weights file.

    Args:
        recipe: The recipe of the run.
        run: Folder of the run.
        output: The weights file.
        overwrite: Whether an existing file may be replaced.

    Returns:
        `output`.

    Raises:
        UserError: A stage has not been trained, or `output` exists.
    """
    model = recipe.new_model()
    _load(stage1_file(recipe, run, recipe.phases[-1]), model.stage1)
    _load(_stage2_file(run), FlowNetworks(model.conditioner, model.flow))
    save_model(output, model, overwrite=overwrite)
    return output


def load_stage1(recipe: KeypointRecipe, run: Path) -> Any:  # noqa: ANN401 - of the recipe's kind
    """Return the stage 1 that stage 2 of a run is trained on, in evaluation mode.

    Raises:
        UserError: It has not been trained, or was trained with another recipe.
    """
    with torch.random.fork_rng():
        stage1 = recipe.new_model().stage1
    _load(stage1_file(recipe, run, recipe.latent_phase), stage1)
    return stage1.eval()


def stage1_file(recipe: KeypointRecipe, run: Path, training: KeypointTraining) -> Path:
    """Return the file with the weights of stage 1 after a phase."""
    is_last = training.phase == recipe.phases[-1].phase
    return run / ("stage1.safetensors" if is_last else f"{training.phase}.safetensors")


def lpips_of(training: KeypointTraining, device: torch.device) -> LPIPS | None:
    """Return the LPIPS of a training on a device; None if frames are not compared by it.

    Raises:
        UserError: The package with its weights is not installed.
    """
    if not training.uses_lpips:
        return None
    with torch.random.fork_rng():  # building the network draws weights, which are then replaced
        return LPIPS.load(training.network).to(device)


def _validate_stage1(
    validation: Validation | None, model: nn.Module, training: KeypointTraining
) -> Callable[[], dict[str, float]] | None:
    return None if validation is None else lambda: validation.stage1(model, training)


def _stage2_file(run: Path) -> Path:
    return run / "stage2.safetensors"


def _keep_recipe(run: Path, recipe: KeypointRecipe) -> None:
    with atomic_path(run / RECIPE_FILE, overwrite=True) as part:
        part.write_text(json.dumps(config_to_dict(recipe), indent=2) + "\n", encoding="utf-8")


def _save(path: Path, network: nn.Module, config: object) -> None:
    """Write the weights of a stage in float32, replacing an earlier file."""
    values = config_to_dict(config)
    save_weights(path, network.state_dict(), values, dtype=torch.float32, overwrite=True)


def _load(path: Path, network: nn.Module) -> None:
    """Load the weights of a stage into a network of the same recipe."""
    if not path.exists():
        raise UserError(f"{path} does not exist: train the stage that writes it first")
    load_state(
        network,
        load_weights(path).state,
        otherwise=f"{path} was trained with another recipe: give that recipe, or train it again",
    )
