"""`cinnema train stage1`, `stage2` and `bundle`: the training of keypoint models.

The same command resumes the run in its folder; under torchrun, several processes train together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.options import Device
from cinnema.cli.ranges import Threads
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_folder

if TYPE_CHECKING:
    import torch

    from cinnema.recipes.clips import KeypointClips
    from cinnema.training.assembly import Validation
    from cinnema.training.cost import CostEstimate
    from cinnema.training.recipe import KeypointRecipe

_RECIPES = ("person", "robot")  # the names of `recipes.RECIPES`, which imports torch


@dataclass(frozen=True, kw_only=True)
class RecipeChoice:
    """A recipe, and changes of its fields."""

    recipe: Annotated[str, tyro.conf.Positional] = "robot"
    """Name of the recipe, robot or person; landscape has cinnema train kinds, constants and flow.
    Its fields are options too, such as --motion.clips 1000."""
    config: Path | None = None
    """JSON or YAML file of fields to change, as --dry-run prints them."""
    fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Options that are fields of the recipe."""

    recipe_class: ClassVar[str] = "cinnema.training.recipe:KeypointRecipe"
    renamed: ClassVar[dict[str, str]] = {"--recipe": "the first argument, without a name"}

    def chosen(self) -> "KeypointRecipe":
        """Return the recipe with its changes."""
        from cinnema.cli.fields import read_fields

        return _recipe(
            self.recipe, self.fields, None if self.config is None else read_fields(self.config)
        )


@dataclass(frozen=True, kw_only=True)
class _Training(RecipeChoice):
    """The options of both stages."""

    data: Path
    """A packed data set, or a folder of videos: the output of `cinnema data simulate push` for
    robot, of `walk` for person."""
    # torchrun interprets an option --run itself.
    run_folder: Annotated[Path, tyro.conf.arg(name="run", aliases=["--run-folder"])]
    """Folder of the run, with checkpoints and numbers; an existing run is resumed."""
    dry_run: bool = False
    """Train nothing: check everything, and print the recipe and its estimated cost on this
    device."""
    tensorboard: bool = False
    """Write the numbers for TensorBoard as well, into each training's folder."""
    device: Device = "auto"
    """Device to compute on; auto takes a GPU if there is one. Under torchrun each process gets a
    separate GPU."""
    threads: Threads = None
    """Threads on the CPU; by default as many as there are cores."""

    def run(self) -> int:
        """Train, or estimate the cost; print the path of the weights."""
        check_input_folder(self.data, kind="clips")
        recipe = self.chosen()
        from cinnema.core.allocator import keep_freed_memory
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.core.distributed import joined_ranks

        use_threads(self.threads)
        keep_freed_memory()
        device = choose_device(self.device)
        with joined_ranks(device) as ranks:
            clips = self._clips(recipe)
            train, estimate = self.functions()
            if self.dry_run:
                from cinnema.cli.costs import print_costs

                print_costs(recipe, estimate(recipe, clips, run=self.run_folder, device=device))
                return DONE
            path = train(
                recipe,
                clips,
                run=self.run_folder,
                device=device,
                validation=validation_of(clips),
                ranks=ranks,
                tensorboard=self.tensorboard,
            )
            if ranks.is_first:
                print(path, flush=True)
        return DONE

    def functions(self) -> "tuple[Callable[..., Path], Callable[..., list[CostEstimate]]]":
        """Return the functions that train the stage of the command, and that estimate its cost."""
        raise NotImplementedError

    def _clips(self, recipe: "KeypointRecipe") -> "KeypointClips":
        from cinnema.recipes.clips import KeypointClips

        with Progress(total=0) as bar:
            return KeypointClips.open(recipe, self.data, progress=bar.report)


@dataclass(frozen=True, kw_only=True)
class TrainStage1(_Training):
    """Train the video encoder and the decoder."""

    def functions(self) -> "tuple[Callable[..., Path], Callable[..., list[CostEstimate]]]":
        """Return the functions of stage 1."""
        from cinnema.training.assembly import train_stage1
        from cinnema.training.cost import estimate_stage1

        return train_stage1, estimate_stage1


@dataclass(frozen=True, kw_only=True)
class TrainStage2(_Training):
    """Train the conditional flow on the latents of a trained stage 1, in the same run folder."""

    def functions(self) -> "tuple[Callable[..., Path], Callable[..., list[CostEstimate]]]":
        """Return the functions of stage 2."""
        from cinnema.training.assembly import train_stage2
        from cinnema.training.cost import estimate_stage2

        def estimate(
            recipe: "KeypointRecipe", _clips: object, *, run: Path, device: "torch.device"
        ) -> "list[CostEstimate]":
            return [estimate_stage2(recipe, run=run, device=device)]  # on random latents

        return train_stage2, estimate


@dataclass(frozen=True, kw_only=True)
class Bundle(RecipeChoice):
    """Put both trained stages of a run into one weights file, by the recipe that the run keeps."""

    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder of the run, with both stages trained."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The weights file to write (.safetensors)."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> int:
        """Write the weights file and print its path."""
        from cinnema.cli.fields import read_fields
        from cinnema.training.assembly import RECIPE_FILE, bundle

        kept = self.run_folder / RECIPE_FILE
        if self.config is None and kept.exists():
            values = read_fields(kept)
            recipe = _recipe(str(values.get("name")), self.fields, values, otherwise=self.recipe)
        else:
            recipe = self.chosen()
        path = bundle(recipe, run=self.run_folder, output=self.output, overwrite=self.overwrite)
        print(path, flush=True)
        return DONE


def _recipe(
    name: str,
    fields: tuple[str, ...],
    values: Mapping[str, Any] | None,
    *,
    otherwise: str | None = None,
) -> "KeypointRecipe":
    """Return a recipe with changes; `otherwise` is its name if `name` is not a recipe's."""
    if name not in _RECIPES:
        if otherwise is None:
            raise UserError(
                f"there is no recipe {name!r}: use one of {', '.join(_RECIPES)}; models of nature, "
                "as landscape, are trained by cinnema train kinds, constants and flow"
            )
        name = otherwise
    from cinnema.cli.fields import with_fields
    from cinnema.recipes import RECIPES
    from cinnema.training.recipe import with_present_names

    changes = None if values is None else with_present_names(values)
    return with_fields(RECIPES[name](), fields, values=changes)


def validation_of(clips: "KeypointClips") -> "Validation":
    """Return the functions that score a recipe on its held-out clips during training."""
    from cinnema.backbones.lpips import LPIPS
    from cinnema.evaluation.held_out import keypoint_latent_validation, keypoint_validation
    from cinnema.training.assembly import Validation

    alex, recipe = LPIPS.load("alex"), clips.recipe
    scores = {
        training.phase: keypoint_validation(
            clips.held_out, lpips=alex, symmetric=training.symmetric_keypoints
        )
        for training in recipe.phases
    }
    return Validation(
        stage1=lambda stage1, training: scores[training.phase](stage1),
        latents=lambda stage1: keypoint_latent_validation(
            recipe.encode(stage1, clips.held_out), noise=recipe.stage1.noise
        ),
    )
