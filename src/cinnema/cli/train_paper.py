"""`cinnema train paper`: the model of 2021 by its published recipe, all of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cinnema.cli.console import DONE
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.paper.recipes import PaperRecipe


@dataclass(frozen=True, kw_only=True)
class TrainPaper:
    """Train the paper's model: stage 1, the conditioning encoder, the cINN; then one weights file.

    The same command run again goes on where the run stopped.
    """

    recipe: Annotated[Literal["bair", "iper", "landscape", "dtdb"], tyro.conf.Positional]
    """Whose published recipe."""
    data: Path
    """Folder of packed clips, as `cinnema data prepare` writes it."""
    # torchrun takes a --run, wherever it stands, for one of its own.
    run_folder: Annotated[Path, tyro.conf.arg(name="run", aliases=["--run-folder"])]
    """Folder of the run: checkpoints, numbers, and in the end the weights."""
    texture: Literal["clouds", "fire", "vegetation", "waterfall"] | None = None
    """Of dtdb: which of its textures."""
    control: bool = False
    """Of bair: let the cINN hear where the arm shall be at the last frame."""
    tiny: bool = False
    """Narrow networks at 64 px, and two epochs: to see that all works."""
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
        tyro.conf.UseAppendAction,
    ] = ()
    """Change a field of the recipe, as autoencoding.epochs=10; may be given several times."""
    config: Path | None = None
    """JSON file of fields to change, as --dry-run prints them; --set counts more."""
    precision: Literal["float32", "fast", "compiled"] | None = None
    """float32 as published, unless the recipe's file says another; fast: bf16 beside float32
    weights, where the device multiplies it in hardware; compiled: and the largest networks
    compiled, which takes minutes at first."""
    dry_run: bool = False
    """Train nothing: print the resolved recipe, and what it will cost on this device."""
    tensorboard: bool = False
    """Write the numbers for TensorBoard as well, into each training's folder."""
    workers: int = 1
    """Processes that prepare batches."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps. Under torchrun, cuda is each process's own."""
    threads: int | None = None
    """Threads on the CPU; all cores unless given."""

    def run(self) -> int:
        """Train, and print the path of the weights file."""
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.core.distributed import joined_ranks
        from cinnema.core.overrides import override
        from cinnema.paper.training.assembly import train_paper

        recipe = override(self.find_recipe(), self.settings, file=self.config)
        if self.precision is not None:
            recipe = replace(recipe, precision=self.precision)
        use_threads(self.threads)
        device = choose_device(self.device)
        if self.dry_run:
            from cinnema.cli.costs import print_rehearsal
            from cinnema.paper.training.cost import estimate_paper

            print_rehearsal(recipe, estimate_paper(recipe, data=self.data, device=device))
            return DONE
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

    def find_recipe(self) -> "PaperRecipe":
        """Return the recipe that the options name.

        Raises:
            UserError: An option belongs to another recipe, or dtdb's texture is missing.
        """
        from cinnema.paper import recipes as paper

        if self.control and self.recipe != "bair":
            raise UserError(f"--control is bair's, got {self.recipe}: leave it out")
        if self.recipe == "dtdb":
            if self.texture is None:
                raise UserError("dtdb has a recipe for each texture: give one, --texture fire")
            recipe = paper.dtdb(self.texture)
        elif self.texture is not None:
            raise UserError(f"--texture is dtdb's, got {self.recipe}: leave it out")
        elif self.recipe == "bair":
            recipe = paper.bair(control=self.control)
        else:
            recipe = {"iper": paper.iper, "landscape": paper.landscape}[self.recipe]()
        return paper.tiny(recipe) if self.tiny else recipe
