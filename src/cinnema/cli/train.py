"""`cinnema train`: both stages, and their weights in one file.

The same command run again resumes where the folder of the run stopped; under torchrun, several
processes train together.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.cli.console import DONE
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.recipes.families import AnyRecipe, Family


@dataclass(frozen=True, kw_only=True)
class _RecipeChoice:
    """Which recipe, and what is changed of it."""

    recipe: str = "landscape"
    """Name of the recipe: data, sizes and schedule."""
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
        tyro.conf.UseAppendAction,
    ] = ()
    """Change a field of the recipe, as motion.clips=2000; may be given several times."""
    config: Path | None = None
    """JSON file of fields to change, as --dry-run prints them; --set counts more."""

    def chosen(self) -> "AnyRecipe":
        """Return the recipe with its changes."""
        from cinnema.core.overrides import override

        return override(find_recipe(self.recipe), self.settings, file=self.config)


@dataclass(frozen=True, kw_only=True)
class _Training(_RecipeChoice):
    """What the training of either stage is told."""

    data: Path
    """Folder of the training clips, with its manifest.json: for robot and person a packed one, as
    `cinnema data simulate push` or `walk` makes."""
    # torchrun takes a --run, wherever it stands, for one of its own.
    run_folder: Annotated[Path, tyro.conf.arg(name="run", aliases=["--run-folder"])]
    """Folder of the run: checkpoints and numbers. A run that is there already goes on."""
    foregrounds: Path | None = None
    """landscape: folder of photographs in which nothing moves, the ground of synthetic skies."""
    dry_run: bool = False
    """Train nothing: print the resolved recipe, and what it will cost on this device."""
    tensorboard: bool = False
    """Write the numbers for TensorBoard as well, into each training's folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps. Under torchrun, cuda is each process's own."""
    threads: int | None = None
    """Threads on the CPU; all cores unless given."""

    def train_stage(self, stage: Literal["stage1", "stage2"]) -> int:
        """Train, or rehearse; say where the run lies, or what it will cost."""
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.core.distributed import joined_ranks
        from cinnema.recipes.families import family_of

        recipe = self.chosen()
        family = family_of(recipe, foregrounds=self.foregrounds)
        train, rehearse = _of_stage(family, stage)
        use_threads(self.threads)
        device = choose_device(self.device)
        if self.dry_run:
            from cinnema.cli.costs import print_rehearsal

            print_rehearsal(recipe, rehearse(recipe, device=device))
            return DONE
        with joined_ranks(device) as ranks:
            path = train(
                recipe,
                data=self.data,
                run=self.run_folder,
                device=device,
                ranks=ranks,
                tensorboard=self.tensorboard,
            )
            if ranks.is_first:
                print(path, flush=True)
        return DONE


@dataclass(frozen=True, kw_only=True)
class TrainStage1(_Training):
    """Train the video encoder and the decoder."""

    def run(self) -> int:
        """Train stage 1 and print the path of what came of it."""
        return self.train_stage("stage1")


@dataclass(frozen=True, kw_only=True)
class TrainStage2(_Training):
    """Train the conditional flow on the latents of a trained stage 1, in the same run folder."""

    def run(self) -> int:
        """Train stage 2 and print the path of what came of it."""
        return self.train_stage("stage2")


@dataclass(frozen=True, kw_only=True)
class Bundle(_RecipeChoice):
    """Put both trained stages of a run into one weights file, by the recipe that the run keeps."""

    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder of the run, with both stages trained."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The weights file to write (.safetensors)."""
    overwrite: bool = False
    """Replace a file that is there already."""

    def run(self) -> int:
        """Write the weights file and print its path."""
        from cinnema.recipes.families import family_of
        from cinnema.recipes.parts import RECIPE_FILE

        choice, kept = self, self.run_folder / RECIPE_FILE
        if self.config is None and kept.exists():
            choice = replace(self, config=kept, recipe=_name_of(kept, otherwise=self.recipe))
        recipe = choice.chosen()
        path = family_of(recipe).bundle(
            recipe, run=self.run_folder, output=self.output, overwrite=self.overwrite
        )
        print(path, flush=True)
        return DONE


def _name_of(kept: Path, *, otherwise: str) -> str:
    """Which recipe a run's own is a change of, as far as it still has its name."""
    from cinnema.recipes import RECIPES

    try:
        name = json.loads(kept.read_text(encoding="utf-8"))["name"]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # what is wrong with it is told when it is used
        return otherwise
    return str(name) if name in RECIPES else otherwise


def _of_stage(
    family: "Family", stage: Literal["stage1", "stage2"]
) -> tuple[Callable[..., Path], Callable[..., Any]]:
    if stage == "stage1":
        return family.train_stage1, family.estimate_stage1
    return family.train_stage2, family.estimate_stage2


def find_recipe(name: str) -> "AnyRecipe":
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
