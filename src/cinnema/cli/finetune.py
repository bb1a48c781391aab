"""`cinnema finetune`: weights adapted to one's own footage."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.recipes.finetuning import Finetuning


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Adapt weights to a handful of clips of your own, and compare them with what they were.

    Part of the clips is held out: numbers before and after are from there, and what does no better
    than before is left as it was. The same command run again goes on where it stopped.
    """

    weights: Annotated[str, tyro.conf.Positional] = "landscape"
    """Name of bundled weights, or a weights file, to begin with."""
    clips: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of videos, in folders of its own if you like; cameras that stand still do best."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="MINE.safetensors")]
    """The weights file to write; numbers (.json), pictures (.png) and a card (.md) lie beside."""
    minutes: float = 20.0
    """Of adapting, by the clock; cutting the clips and measuring before and after come on top."""
    speed: float = 1.0
    """How fast the clips are to be seen: 1 as filmed, 0.25 four times slower, as for flames."""
    sky_share: float = 0.25
    """Share of synthetic skies in each batch, against forgetting, from 0 to below 1."""
    clips_seen: int | None = None
    """Clips seen in training, whatever the clock says: for runs that can be repeated."""
    settings: Annotated[
        tuple[str, ...],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
        tyro.conf.UseAppendAction,
    ] = ()
    """Change a field of `Finetuning`, as motion.learning_rate=1e-4; may be given several times."""
    seed: int = 0
    """Of the clips' places and of what is measured."""
    run_folder: Annotated[
        Path | None, tyro.conf.arg(name="run", aliases=["--run-folder"], metavar="DIR")
    ] = None
    """Folder of clips, checkpoints and numbers; beside the output, named after it with .run, unless
    given. It can be removed afterwards."""
    overwrite: bool = False
    """Replace files that are there already."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    threads: int | None = None
    """Threads on the CPU; all cores unless given."""

    def run(self) -> int:
        """Adapt, write, and print the table and the paths."""
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.models.files import load_model, load_warping_model
        from cinnema.recipes.finetuning import (
            finetune,
            finetuned_files,
            refuse_files,
            save_finetuned,
        )

        refuse_files(finetuned_files(self.output), overwrite=self.overwrite)
        if self.output.suffix != ".safetensors":
            raise UserError(f"--output must end in .safetensors, got {self.output}: rename it")
        use_threads(self.threads)
        config = self._config()
        base = load_warping_model(self.weights, purpose="`cinnema finetune`")
        with Progress(total=0) as bar:
            result = finetune(
                base,
                self.clips,
                config,
                run=self.run_folder or self.output.with_suffix(".run"),
                device=choose_device(self.device),
                name=f"{base.name}+{self.output.stem}",
                base_sha256=load_model(self.weights).sha256,
                tell=_tell,
                progress=bar.report,
            )
        files = save_finetuned(result, self.output, overwrite=self.overwrite)
        print(result.comparison.to_table())
        for path in files:
            print(path, flush=True)
        return DONE

    def _config(self) -> "Finetuning":
        from cinnema.core.config import config_from_dict
        from cinnema.core.overrides import override
        from cinnema.recipes.finetuning import Finetuning

        values = {
            "minutes": self.minutes,
            "speed": self.speed,
            "sky_share": self.sky_share,
            "clips_seen": self.clips_seen,
            "seed": self.seed,
        }
        return override(config_from_dict(Finetuning, values, source="the options"), self.settings)


def _tell(text: str) -> None:
    print(f"cinnema: {' '.join(text.split())}", file=sys.stderr, flush=True)
