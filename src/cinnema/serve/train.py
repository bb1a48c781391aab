"""`cinnema train`: both stages, and their weights in one file.

The same command run again resumes where the folder of the run stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cinnema.core.errors import UserError
from cinnema.serve.console import DONE

if TYPE_CHECKING:
    import torch

    from cinnema.recipes.landscape import Recipe


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What the training of either stage is told."""

    data: Path
    """Folder of the training clips, with its manifest.json."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder of the run: checkpoints and numbers. A run that is there already goes on."""
    foregrounds: Path | None = None
    """Folder of photographs in which nothing moves: the ground of synthetic skies."""
    recipe: str = "landscape"
    """Name of the recipe: data, sizes and schedule."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    threads: int | None = None
    """Threads on the CPU; all cores unless given."""

    def train_with(
        self, train: "Callable[..., Path]", *, recipe: "Recipe", device: "torch.device"
    ) -> int:
        """Train, and say where the run lies."""
        path = train(
            recipe,
            data=self.data,
            run=self.run_folder,
            device=device,
            foregrounds=self.foregrounds,
        )
        print(path, flush=True)
        return DONE


@dataclass(frozen=True, kw_only=True)
class TrainStage1(_Training):
    """Train the video encoder and the warping decoder."""

    def run(self) -> int:
        """Train stage 1 and print the path of what came of it."""
        recipe, device = prepare(self.recipe, device=self.device, threads=self.threads)
        from cinnema.recipes.assembly import train_stage1

        return self.train_with(train_stage1, recipe=recipe, device=device)


@dataclass(frozen=True, kw_only=True)
class TrainStage2(_Training):
    """Train the conditional flow on the latents of a trained stage 1, in the same run folder."""

    def run(self) -> int:
        """Train stage 2 and print the path of what came of it."""
        recipe, device = prepare(self.recipe, device=self.device, threads=self.threads)
        from cinnema.recipes.assembly import train_stage2

        return self.train_with(train_stage2, recipe=recipe, device=device)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Put both trained stages of a run into one weights file."""

    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder of the run, with both stages trained."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The weights file to write (.safetensors)."""
    recipe: str = "landscape"
    """Name of the recipe that the run followed."""
    overwrite: bool = False
    """Replace a file that is there already."""

    def run(self) -> int:
        """Write the weights file and print its path."""
        recipe = find_recipe(self.recipe)
        from cinnema.recipes.assembly import bundle

        path = bundle(recipe, run=self.run_folder, output=self.output, overwrite=self.overwrite)
        print(path, flush=True)
        return DONE


def find_recipe(name: str) -> "Recipe":
    """Return a recipe by its name.

    Args:
        name: one of `cinnema.recipes.RECIPES`.

    Returns:
        The recipe's full configuration.

    Raises:
        UserError: there is none of that name.
    """
    from cinnema.recipes import RECIPES

    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}: use one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()


def prepare(recipe: str, *, device: str, threads: int | None) -> "tuple[Recipe, torch.device]":
    """Look the recipe and the device up, and set the number of threads.

    Args:
        recipe: its name.
        device: as the option --device has it.
        threads: threads on the CPU, at least 1; None leaves torch its choice.

    Returns:
        The recipe and the device.

    Raises:
        UserError: one of them does not exist, or `threads` is below 1.
    """
    from cinnema.serve.devices import choose_device, use_threads

    found = find_recipe(recipe)
    use_threads(threads)
    return found, choose_device(device)
