"""`cinnema train paper`: trains the model of 2021 with a published recipe."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from cinnema.cli.console import DONE
from cinnema.cli.options import Device
from cinnema.cli.ranges import Range, Threads
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_folder

if TYPE_CHECKING:
    from cinnema.paper.recipes import PaperRecipe


@dataclass(frozen=True, kw_only=True)
class TrainPaper:
    """Train the paper's model: stage 1, the conditioning encoder, the cINN; then one weights file.

    The same command resumes the run in its folder.
    """

    recipe: Annotated[Literal["bair", "iper", "landscape", "dtdb"], tyro.conf.Positional]
    """Name of the published recipe. Its fields are options too, such as --flow-training.epochs
    3."""
    data: Path
    """Folder of packed clips, as `cinnema data prepare` writes it."""
    # torchrun interprets an option --run itself.
    run_folder: Annotated[Path, tyro.conf.arg(name="run", aliases=["--run-folder"])]
    """Folder of the run, with checkpoints, numbers and the weights; an existing run is resumed."""
    texture: Literal["clouds", "fire", "vegetation", "waterfall"] | None = None
    """dtdb only: the texture."""
    control: bool = False
    """Of bair only: condition the cINN on the position of the arm at the last frame."""
    tiny: bool = False
    """Narrow networks at 64 px, and two epochs: a quick test."""
    config: Path | None = None
    """JSON or YAML file of fields to change, as --dry-run prints them."""
    fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Options that are fields of the recipe."""
    precision: Literal["float32", "fast", "compiled"] | None = None
    """float32: as published, the default; fast: bf16 with float32 weights, on devices that multiply
    bf16 in hardware; compiled: fast, with the largest networks compiled, which takes minutes."""
    recompute_activations: bool = False
    """Compute the activations of stage 1 again in the backward pass: about half of the memory, more
    time, the same results. A run may go on with or without."""
    dry_run: bool = False
    """Train nothing: check everything, and print the recipe and its estimated cost on this
    device."""
    tensorboard: bool = False
    """Write the numbers for TensorBoard as well, into each training's folder."""
    workers: Annotated[int, Range(0, 1024)] = 1
    """Number of processes that prepare batches."""
    device: Device = "auto"
    """Device to compute on; auto takes a GPU if there is one. Under torchrun each process gets a
    separate GPU."""
    threads: Threads = None
    """Threads on the CPU; by default as many as there are cores."""

    recipe_class: ClassVar[str] = "cinnema.paper.recipes:PaperRecipe"

    def run(self) -> int:
        """Train, and print the path of the weights file."""
        check_input_folder(self.data, kind="packed clips")
        recipe = self.chosen()
        from cinnema.core.allocator import keep_freed_memory
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.core.distributed import joined_ranks

        use_threads(self.threads)
        keep_freed_memory()
        device = choose_device(self.device)
        if self.dry_run:
            from cinnema.cli.costs import print_costs
            from cinnema.paper.training.assembly import estimate_paper

            costs = estimate_paper(recipe, data=self.data, run=self.run_folder, device=device)
            print_costs(recipe, costs)
            return DONE
        from cinnema.paper.training.assembly import train_paper

        with joined_ranks(device) as ranks:
            path = train_paper(
                recipe,
                data=self.data,
                run=self.run_folder,
                device=device,
                num_workers=self.workers,
                ranks=ranks,
                tensorboard=self.tensorboard,
            )
            if ranks.is_first:
                print(path, flush=True)
        return DONE

    def chosen(self) -> "PaperRecipe":
        """Return the recipe that the options name, with its changes.

        Raises:
            UserError: An option belongs to another recipe, or a field or value is not valid.
        """
        from cinnema.cli.fields import read_fields, with_fields

        values = None if self.config is None else read_fields(self.config)
        recipe = with_fields(self._published(), self.fields, values=values)
        if self.recompute_activations:
            recipe = replace(recipe, recompute_activations=True)
        return recipe if self.precision is None else replace(recipe, precision=self.precision)

    def _published(self) -> "PaperRecipe":
        if self.control and self.recipe != "bair":
            raise UserError(f"--control is an option of bair, not of {self.recipe}: leave it out")
        if self.recipe == "dtdb" and self.texture is None:
            raise UserError("dtdb has a recipe for each texture: give one, as --texture fire")
        if self.recipe != "dtdb" and self.texture is not None:
            raise UserError(f"--texture is an option of dtdb, not of {self.recipe}: leave it out")
        from cinnema.paper import recipes as paper

        if self.texture is not None:
            recipe = paper.dtdb(self.texture)
        elif self.recipe == "bair":
            recipe = paper.bair(control=self.control)
        else:
            recipe = paper.iper() if self.recipe == "iper" else paper.landscape()
        return paper.tiny(recipe) if self.tiny else recipe
