"""`cinnema finetune`: adapts weights of nature to the user's videos."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.options import Device, Weights
from cinnema.cli.outputs import all_or_none
from cinnema.cli.ranges import Range, Seed, Threads
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_folder, write_json
from cinnema.core.text import plural

if TYPE_CHECKING:
    from cinnema.data.windows import SceneWindows
    from cinnema.evaluation.results import Evaluation
    from cinnema.models.files import LoadedModel
    from cinnema.models.nature.model import NatureModel
    from cinnema.recipes.nature_clips import NatureClips
    from cinnema.training.finetune import FinetuneResult, Finetuning

_SHOWN_CLIPS, _SHOWN_FRAMES = 3, 5


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Adapt weights of nature to the motion of a few videos of your own.

    Part of the videos is held out, and the likelihood of their motion is measured before and after,
    as cinnema evaluate MINE FOLDER --only latents --against WEIGHTS does. The same command resumes
    after an interruption.
    """

    weights: Annotated[Weights, tyro.conf.Positional] = "landscape"
    """Weights to start from: the name of bundled ones or a file."""
    data: Path
    """Folder of videos, or a packed data set; videos from a still camera are best."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="MINE.safetensors")]
    """The weights file to write, with numbers (.json), pictures (.png) and a card (.md) in the same
    folder."""
    minutes: Annotated[float, Range(0.001, 1e6)] = 20.0
    """Minutes of training, at most; measuring the motion of the clips comes on top."""
    splits: Path | None = None
    """JSON file {"train": [...], "validation": [...]} of video names; others are left out. By
    default every third video is held out, or the end of one where there are few."""
    config: Path | None = None
    """JSON or YAML file of fields of `Finetuning` to change; they are options too, such as
    --flow.learning-rate 1e-4."""
    fields: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Options that are fields of `Finetuning`."""
    seed: Seed = 0
    """Seed of all random draws."""
    run_folder: Annotated[
        Path | None, tyro.conf.arg(name="run", aliases=["--run-folder"], metavar="DIR")
    ] = None
    """Folder of measured motion, checkpoints and numbers; defaults to the output's name with .run.
    It can be removed afterwards."""
    overwrite: bool = False
    """Replace existing files."""
    device: Device = "auto"
    """Device to measure motion on; auto takes a GPU if there is one."""
    threads: Threads = None
    """Threads on the CPU; by default as many as there are cores."""

    recipe_class: ClassVar[str] = "cinnema.training.finetune:Finetuning"
    renamed: ClassVar[dict[str, str]] = {
        "--clips": "--data",
        "--clips-seen": "--flow.clips",
        "--held-out": "--splits",
    }

    def run(self) -> int:
        """Fine-tune, write the files, and print the table and the paths."""
        if self.output.suffix != ".safetensors":
            raise UserError(f"--output must end in .safetensors, got {self.output}: rename it")
        check_input_folder(self.data, kind="videos")
        find_weights(self.weights)
        for path in self._files():
            if path.exists() and not self.overwrite:
                raise UserError(f"{path} exists already: choose another --output, or --overwrite")
        from cinnema.core.allocator import keep_freed_memory
        from cinnema.core.devices import use_threads
        from cinnema.models.files import load_model
        from cinnema.recipes.nature_clips import NatureClips

        use_threads(self.threads)
        keep_freed_memory()
        config, loaded = self._config(), load_model(self.weights)
        base = _require_nature(loaded)
        with Progress(total=0) as bar:
            clips = NatureClips.open(
                base.config,
                [self.data],
                starts=config.starts,
                splits=self.splits,
                progress=bar.report,
            )
        result = self._tuned(loaded, base, clips, config)
        evaluation = self._compared(base, result.model, clips)
        self._write(base, result, clips, evaluation)
        return DONE

    def _files(self) -> tuple[Path, ...]:
        """Return the files to write: weights, numbers, pictures and card."""
        suffixes = (".json", ".png", ".md")
        return (self.output, *(self.output.with_suffix(suffix) for suffix in suffixes))

    def _config(self) -> "Finetuning":
        from dataclasses import replace

        from cinnema.cli.fields import read_fields, with_fields
        from cinnema.core.config import config_from_dict
        from cinnema.training.finetune import Finetuning

        config = config_from_dict(Finetuning, {"minutes": self.minutes}, source="the options")
        config = replace(config, flow=replace(config.flow, seed=self.seed))
        file = None if self.config is None else read_fields(self.config)
        return with_fields(config, self.fields, values=file)

    def _tuned(
        self,
        loaded: "LoadedModel",
        base: "NatureModel",
        clips: "NatureClips",
        config: "Finetuning",
    ) -> "FinetuneResult":
        from cinnema.core.devices import choose_device
        from cinnema.training.finetune import finetune
        from cinnema.training.motion_pool import POOL_FILE, load_or_measure

        run = self.run_folder or self.output.with_suffix(".run")
        sides = {
            side: [part.scene.name for part in clips.on_side(held_out=side == "held out")]
            for side in ("trained on", "held out")
        }
        _report(f"held out: {', '.join(sides['held out'])}")
        pool = load_or_measure(
            run / POOL_FILE,
            base,
            clips.windows,
            clips.held_out,
            device=choose_device(self.device),
        )
        return finetune(
            base.cpu(),
            pool,
            config,
            run=run,
            name=f"{base.name}+{self.output.stem}",
            about={"sha256": loaded.sha256, "videos": sides},
            report=_report,
        )

    def _compared(
        self, base: "NatureModel", tuned: "NatureModel", clips: "NatureClips"
    ) -> "Evaluation":
        from cinnema.evaluation.protocol import WindowClips
        from cinnema.evaluation.runner import compare_likelihood

        held_out = WindowClips(
            clips.on_side(held_out=True), num_frames=base.num_frames, name=self.data.name
        )
        with Progress(total=0) as bar:
            return compare_likelihood(tuned, base, held_out, seed=self.seed, progress=bar.report)

    def _write(
        self,
        base: "NatureModel",
        result: "FinetuneResult",
        clips: "NatureClips",
        evaluation: "Evaluation",
    ) -> None:
        from cinnema.evaluation.results import as_text
        from cinnema.models.files import save_model

        weights, numbers, pictures, card = self._files()
        table, verdict = as_text(evaluation), verdict_of(evaluation, base.name)
        about = {**result.about, "numbers": evaluation.to_dict()}
        shown, again = clips.on_side(held_out=True), self.overwrite
        with all_or_none(weights.parent) as written:
            written.append(write_json(numbers, about, overwrite=again))
            _draw(pictures, base, result.model, shown, overwrite=again)
            written.append(pictures)
            with atomic_path(card, overwrite=again) as part:
                part.write_text(_card(result, table, verdict), encoding="utf-8")
            written.append(card)
            save_model(weights, result.model, overwrite=again)
        print(table)
        print(verdict)
        for path in self._files():
            print(path, flush=True)


def verdict_of(evaluation: "Evaluation", base: str) -> str:
    """Return in one sentence whether the held-out likelihood got better, in nats a dimension.

    Args:
        evaluation: Of `compare_likelihood`.
        base: Name of the weights before.
    """
    from cinnema.evaluation.metrics.latents import BITS
    from cinnema.evaluation.results import MODEL
    from cinnema.evaluation.statistics.bootstrap import Estimate

    after = next(row.cells.get(BITS) for row in evaluation.rows if row.name == MODEL)
    change = evaluation.changes.get(MODEL, {}).get(BITS)
    if not isinstance(after, Estimate) or not isinstance(change, Estimate):
        return "The held-out videos show nothing that moves: nothing was compared."
    nats = math.log(2)
    numbers = (
        f"{nats * (after.value - change.value):.3f} nats a dimension before, "
        f"{nats * after.value:.3f} after, on {plural(change.num_clips, 'clip')} of "
        f"{plural(change.num_sources, 'held-out video')}"
    )
    if change.value > 0:
        return f"WORSE than {base} on the held-out videos: {numbers}. Keep {base}."
    if change.high is None or change.high > 0:
        return f"Better than {base} on the held-out videos, but not surely: {numbers}."
    return f"Better than {base} on the held-out videos: {numbers}."


def _require_nature(loaded: "LoadedModel") -> "NatureModel":
    from cinnema.models.nature.model import NatureModel

    model = loaded.model
    if not isinstance(model, NatureModel):
        raise UserError(
            f"the weights {model.name} are not of nature, and only those can be fine-tuned: name "
            "landscape, or train your own with cinnema train stage1 and stage2"
        )
    return model


def _draw(
    path: Path,
    base: "NatureModel",
    tuned: "NatureModel",
    windows: "list[SceneWindows]",
    *,
    overwrite: bool,
) -> None:
    """Draw some held-out clips into a PNG file: real, and a sample of each model below."""
    import numpy as np
    from PIL import Image

    from cinnema.evaluation.baselines import Sampled
    from cinnema.evaluation.protocol import WindowClips
    from cinnema.media.grids import tile

    clips = WindowClips(windows, num_frames=base.num_frames, name="shown")
    step = max(1, len(clips.starts) // _SHOWN_CLIPS)
    times = np.linspace(0, base.num_frames, _SHOWN_FRAMES).round().astype(int)
    rows = []
    for start in clips.starts[::step][:_SHOWN_CLIPS]:
        clip = clips.read(start)
        made = [Sampled(model).follow([clip])[0] for model in (base, tuned)]
        videos = [clip.frames, *(np.concatenate([clip.frames[:1], frames]) for frames in made)]
        rows += [list(video[times]) for video in videos]
    with atomic_path(path, overwrite=overwrite) as part:
        Image.fromarray(tile(rows)).save(part, "PNG")


def _card(result: "FinetuneResult", table: str, verdict: str) -> str:
    about: dict[str, Any] = result.about
    seen = ", ".join(f"{kind}: {plural(n, 'scene')}" for kind, n in result.scenes.items())
    network = f"trained on {result.clips} rows" if result.clips else "left as it is"
    videos = "\n\n".join(
        f"{side.capitalize()}:\n\n" + "\n".join(f"- {name}" for name in names)
        for side, names in about["videos"].items()
    )
    return (
        f"# {about['name']}\n\n"
        f"{about['base']['name']} (sha256 {about['sha256'] or 'unknown'}) adapted by "
        f"`cinnema finetune`. {verdict}\n\n"
        f"Linear-Gaussian layers adapted to {seen}; the flow's network {network}. Settings: "
        f"`{json.dumps(about['settings'])}`.\n\n"
        f"## Videos\n\n{videos}\n\n"
        f"## Numbers\n\n```text\n{table}\n```\n\n"
        "The picture shows held-out clips in threes: the real one, a sample of the weights before, "
        "and one of these.\n"
    )


def _report(text: str) -> None:
    print(f"cinnema: {' '.join(text.split())}", file=sys.stderr, flush=True)
