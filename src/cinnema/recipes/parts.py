"""What a run leaves in its folder for `train bundle`: the weights of its stages, and its recipe."""

import json
from pathlib import Path

import torch
from torch import nn

from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.core.weights import load_weights, save_weights

RECIPE_FILE = "recipe.json"
"""In the folder of a run: what the stage that was done last was trained by."""


def save_part(path: Path, network: nn.Module, config: object) -> None:
    """Write the weights of a stage, in float32, in place of what is there.

    Args:
        path: The file.
        network: Of the stage.
        config: What it is made of.
    """
    values = config_to_dict(config)
    save_weights(path, network.state_dict(), values, dtype=torch.float32, overwrite=True)


def load_part(path: Path, network: nn.Module) -> None:
    """Load the weights of a stage.

    Args:
        path: A file that `save_part` wrote.
        network: Made by the same recipe.

    Raises:
        UserError: The file is not there, or is of another recipe.
    """
    if not path.exists():
        raise UserError(f"{path} is not there: train the stage that makes it first")
    try:
        network.load_state_dict(load_weights(path).state)
    except RuntimeError as error:
        raise UserError(
            f"{path} was trained with another recipe: name that recipe, or train it again"
        ) from error


def keep_recipe(run: Path, recipe: object) -> None:
    """Write down what a stage was trained by, now that it is done.

    Args:
        run: Folder of the run.
        recipe: A full configuration.
    """
    with atomic_path(run / RECIPE_FILE, overwrite=True) as part:
        part.write_text(json.dumps(config_to_dict(recipe), indent=2) + "\n", encoding="utf-8")
