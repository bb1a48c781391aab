"""`cinnema finetune`: adapts weights to the user's videos."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.options import Device, Weights
from cinnema.cli.ranges import Range, Seed, Threads
from cinnema.cli.train import warping_validation
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_folder

if TYPE_CHECKING:
    import torch

    from cinnema.evaluation.before_after import BeforeAfter
    from cinnema.models.warping.model import WarpingModelConfig
    from cinnema.training.finetune import Finetuning


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Adapt weights to a few videos of your own, and compare them with the original weights.

    Part of the videos is held out and measured on; a stage that does not improve there is not
    changed. The same command resumes after an interruption.
    """

    weights: Annotated[Weights, tyro.conf.Positional] = "drift"
    """Weights to start from: the name of bundled ones or a file."""
    data: Path
    """Folder of videos, or a packed data set; videos from a still camera are best."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="MINE.safetensors")]
    """The weights file to write, with numbers (.json), pictures (.png) and a card (.md) in the same
    folder."""
    minutes: Annotated[float, Range(0.001, 1e6)] = 20.0
    """Minutes of training; preparing the clips and measuring before and after come on top."""
    slow_motion: Annotated[float, Range(0.25, 1000)] = 1.0
    """Factor by which videos are slowed down: 1 as filmed, 4 for fast motion such as flames."""
    sky_share: Annotated[float, Range(0, 0.999)] = 0.25
    """Share of synthetic skies in each batch, to prevent forgetting, from 0 to below 1."""
    clips_seen: Annotated[int | None, Range(1, 10**12)] = None
    """Clips seen in training, instead of --minutes, for reproducible runs."""
    config: Path | None = None
    """JSON or YAML file of fields of `Finetuning` to change; nested fields are options as well,
    such as --motion.learning-rate 1e-4."""
    fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Options that are fields of `Finetuning`."""
    seed: Seed = 0
    """Seed of the positions of the clips, and of what is measured."""
    run_folder: Annotated[
        Path | None, tyro.conf.arg(name="run", aliases=["--run-folder"], metavar="DIR")
    ] = None
    """Folder of checkpoints and numbers; defaults to the output's name with .run. It can be removed
    afterwards."""
    overwrite: bool = False
    """Replace existing files."""
    device: Device = "auto"
    """Device to compute on; auto takes a GPU if there is one."""
    threads: Threads = None
    """Threads on the CPU; by default as many as there are cores."""

    renamed: ClassVar[dict[str, str]] = {
        "--clips": "--data",
        "--held-out": "decided when the videos are packed",
        "--speed": "--slow-motion, with 4 for a speed of 0.25",
    }

    def run(self) -> int:
        """Fine-tune, write the files, and print the table and the paths."""
        if self.output.suffix != ".safetensors":
            raise UserError(f"--output must end in .safetensors, got {self.output}: rename it")
        check_input_folder(self.data, kind="videos")
        find_weights(self.weights)
        from cinnema.core.allocator import keep_freed_memory
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.evaluation.before_after import draw_grid
        from cinnema.models.files import load_model, load_warping_model
        from cinnema.recipes.clips import UserClips
        from cinnema.training.finetune import (
            finetune,
            finetuned_files,
            refuse_files,
            save_finetuned,
        )

        refuse_files(finetuned_files(self.output), overwrite=self.overwrite)
        use_threads(self.threads)
        keep_freed_memory()
        config, device = self._config(), choose_device(self.device)
        base = load_warping_model(self.weights, purpose="`cinnema finetune`")
        run = self.run_folder or self.output.with_suffix(".run")
        with Progress(total=0) as bar:
            clips = UserClips.of_finetuning(base.config, self.data, config, progress=bar.report)
        result = finetune(
            base,
            clips,
            config,
            measuring=lambda held_out: measuring_of(
                held_out, base.config, seed=config.seed, device=device
            ),
            validation=lambda held_out: warping_validation(held_out, seed=config.seed),
            run=run,
            device=device,
            name=f"{base.name}+{self.output.stem}",
            base_sha256=load_model(self.weights).sha256,
            report=_report,
        )
        files = save_finetuned(result, self.output, draw=draw_grid, overwrite=self.overwrite)
        print(result.comparison.to_table())
        for path in files:
            print(path, flush=True)
        return DONE

    def _config(self) -> "Finetuning":
        from cinnema.cli.fields import read_fields, with_fields
        from cinnema.core.config import config_from_dict
        from cinnema.training.finetune import Finetuning

        values = {
            "minutes": self.minutes,
            "slow_motion": self.slow_motion,
            "sky_share": self.sky_share,
            "clips_seen": self.clips_seen,
            "seed": self.seed,
        }
        config = config_from_dict(Finetuning, values, source="the options")
        file = None if self.config is None else read_fields(self.config)
        return with_fields(config, self.fields, values=file)


_NUM_SKIES = 32


def measuring_of(
    held_out: Sequence[Any],
    base: "WarpingModelConfig",
    *,
    seed: int,
    device: "torch.device",
    num_skies: int = _NUM_SKIES,
    network: Literal["vgg", "alex"] = "vgg",
) -> "BeforeAfter":
    """Return the measurement of base and tuned model on held-out clips and synthetic skies.

    Args:
        held_out: Held-out clips by video.
        base: Configuration of the models.
        seed: Seed of samples and noise.
        device: Device of the models.
        num_skies: Number of synthetic skies.
        network: Network of LPIPS.
    """
    from cinnema.backbones.lpips import LPIPS
    from cinnema.evaluation.before_after import BeforeAfter
    from cinnema.recipes.clips import simulated_skies

    shape = base.stage1
    _report(f"drawing {num_skies} synthetic skies to measure on")
    # The seed differs from those of the skies that are trained on.
    skies = simulated_skies(
        num=num_skies, size=shape.size, num_frames=shape.num_frames, seed=seed + 10_007
    )
    quarters = {max(1, round(shape.num_frames * k / 4)) for k in range(1, 5)}
    return BeforeAfter(
        held_out=held_out,
        skies=[skies],
        lpips=LPIPS.load(network).to(device),
        times=tuple(sorted(quarters)),
        seed=seed,
    )


def _report(text: str) -> None:
    print(f"cinnema: {' '.join(text.split())}", file=sys.stderr, flush=True)
