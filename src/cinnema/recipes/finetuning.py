"""One's own footage: trained weights adapted to a handful of clips, in minutes.

Stage 1 goes on first (motion, then picture and mask), then stage 2 on what that makes of the clips.
Each stage is kept only if it does better than the base on clips held out; else the base's stays.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from dataclasses import dataclass as plain_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cinnema.backbones.lpips import LPIPS
from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.data.crop_batches import ClipBatch
from cinnema.data.crops import Scene, SceneCrops, SplitCrops, find_scenes, load_crops
from cinnema.data.dataset import OpenProgress, PackedDataset, open_dataset
from cinnema.data.loader import BatchLoader
from cinnema.evaluation.before_after import BeforeAfter, ClipScore, Comparison, draw_strips
from cinnema.evaluation.held_out import latent_validation, stage1_validation
from cinnema.media.pictures import to_pixels
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.recipes.assembly import training_stream
from cinnema.recipes.cost import measure
from cinnema.recipes.finetuning_plan import Plan
from cinnema.recipes.landscape import DataConfig, Recipe
from cinnema.simulators.sky.pool import SkyPool
from cinnema.training.latent_pool import encode_drifting
from cinnema.training.stage2 import Stage2Training
from cinnema.training.stage2 import train as run_stage2
from cinnema.training.stage2 import trial as stage2_trial
from cinnema.training.warping import Stage1Training
from cinnema.training.warping import train as run_phase
from cinnema.training.warping import trial as stage1_trial

Tell = Callable[[str], None]
Scores = dict[str, list[ClipScore]]
Kept = Literal["tuned", "motion", "base"]
Share = Annotated[float, Field(ge=0)]
_Network = TypeVar("_Network", bound=nn.Module)

# Of stage 2's time, what may go into encoding clips.
_ENCODING = 0.5
# A step of stage 2 costs so much less than one of stage 1 that this many times the clips fit.
_STAGE2_FACTOR = 8
# Looks at the held-out clips in the planned run of stage 2, and those without a gain that end it.
_LOOKS, _PATIENCE = 40, 10
# Between two of them, as each writes a checkpoint.
_LEAST_STEPS = 8
_NUM_SKIES = 32


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Finetuning:
    """How weights are adapted.

    Attributes:
        minutes: Of adapting, by the clock. Cutting the clips and measuring come on top.
        clips_seen: Clips seen in all phases together instead, for runs that can be repeated on any
            machine; stage 2, whose steps are cheap, sees 8 times its share. None goes by the clock.
        shares: Of the time, for motion, for picture and mask, and for stage 2; the first two may
            be 0, which leaves those parts of the base as they are.
        sky_share: Share of synthetic skies in each batch, against forgetting, from 0 to 1.
        speed: How fast the clips are to be seen: 1 as filmed, 0.25 four times slower, as for flames
            that optical flow could not follow otherwise.
        num_train: Clips cut to train on, of all videos together.
        num_held_out: Clips cut to measure on, likewise.
        motion: Phase "motion", its number of clips apart.
        picture: Phase "picture", likewise.
        stage2: Stage 2, likewise; its `pool` is the most clips that are encoded.
        seed: Of the clips' places and of everything that is measured.

    Raises:
        UserError: All shares are 0, stage 2 has none, or a phase is not what its name says.
    """

    minutes: float = Field(default=20.0, gt=0)
    clips_seen: int | None = Field(default=None, ge=1)
    shares: tuple[Share, Share, Share] = (0.35, 0.4, 0.25)
    sky_share: float = Field(default=0.25, ge=0, lt=1)
    speed: float = Field(default=1.0, gt=0, le=4)
    num_train: int = Field(default=400, ge=8)
    num_held_out: int = Field(default=24, ge=2)
    motion: Stage1Training = Field(
        default_factory=lambda: Stage1Training(
            phase="motion", batch_size=16, learning_rate=3e-4, ema_decay=0.99
        )
    )
    picture: Stage1Training = Field(
        default_factory=lambda: Stage1Training(
            phase="picture",
            batch_size=8,
            mask=1.0,
            learning_rate=3e-4,
            ema_decay=0.99,
            network="alex",
            window=128,
        )
    )
    stage2: Stage2Training = Field(
        default_factory=lambda: Stage2Training(
            pool=4000, learning_rate=3e-4, weight_decay=0.05, ema_decay=0.99, keep="best"
        )
    )
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if not self.shares[2] > 0:
            raise UserError(
                f"shares: stage 2 has to follow stage 1, so the last must be above 0, got "
                f"{self.shares}: give it some"
            )
        for name, training in (("motion", self.motion), ("picture", self.picture)):
            if training.phase != name:
                raise UserError(f"{name}.phase must be {name}, got {training.phase}: change it")
        if self.stage2.keep != "best":
            raise UserError("stage2.keep must be best, as the base is one of the candidates")


@plain_dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came of it.

    Attributes:
        model: The adapted model, in evaluation mode, float32, on the CPU.
        comparison: The base and it, on the clips held out.
        kept: Of "stage1" and "stage2", whether the tuned or the base's is in the model; "motion"
            says that stage 1's phase "picture" was left out again.
        about: All else that there is to tell, as JSON values.
        base: The weights that it began with.
        held_out: The clips that it was measured on.
    """

    model: WarpingModel
    comparison: Comparison
    kept: dict[str, Kept]
    about: dict[str, Any]
    base: WarpingModel
    held_out: list[SceneCrops]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**self.about, "kept": self.kept, "numbers": self.comparison.to_dict()}


def finetune(
    base: WarpingModel,
    clips: Path,
    config: Finetuning,
    *,
    run: Path,
    device: torch.device,
    name: str = "mine",
    base_sha256: str = "",
    tell: Tell = print,
    progress: OpenProgress | None = None,
) -> FinetuneResult:
    """Adapt a model to a folder of clips, or go on where the run stopped.

    Args:
        base: Trained; it is left as it is.
        clips: Packed data set or folder of videos.
        config: How.
        run: Folder of the run: clips, checkpoints, numbers. The same call goes on.
        device: Where to compute.
        name: What the weights are to be called.
        base_sha256: Of the base's file, to know it by.
        tell: Called with a sentence now and then.
        progress: Called now and then while videos are packed and clips are cut.

    Returns:
        The adapted model and how it compares. Its weights are rounded as a file holds them.

    Raises:
        UserError: The folder has no clip that can be used, or nothing can be held out; `run` holds
            something else, or cannot be written to; a loss is no number any more.

    Example:
        >>> base = load_warping_model("landscape", purpose="this")
        >>> finetune(base, Path("fires"), Finetuning(minutes=5), run=Path("fires.run"),
        ...          device=torch.device("cpu")).kept
        {'stage1': 'tuned', 'stage2': 'tuned'}
    """
    work = _Work(
        base, clips, config, run=run, device=device, base_sha256=base_sha256, tell=tell,
        progress=progress,
    )  # fmt: skip
    before = work.before()
    stage1, scores1, kept1 = work.stage1(before)
    model, kept2 = work.stage2(stage1, name=name)
    after = scores1 | _kept_scores(run / "after.json", lambda: work.measuring.stage2(model))
    return FinetuneResult(
        model=model.to("cpu"),
        comparison=work.measuring.compared((base.name, name), before, after),
        kept={"stage1": kept1, "stage2": kept2},
        about=work.about(name),
        base=base,
        held_out=work.footage.held_out,
    )


def save_finetuned(
    result: FinetuneResult, output: Path, *, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write the weights, and beside them numbers (.json), pictures (.png) and a card (.md).

    Args:
        result: What `finetune` returned.
        output: The weights file.
        overwrite: Whether files that are there already may be replaced.

    Returns:
        The files.

    Raises:
        UserError: One of them exists, or cannot be written.
    """
    files = finetuned_files(output)
    refuse_files(files, overwrite=overwrite)
    numbers, strips, card = files[1:]
    draw_strips(strips, {"base": result.base, "tuned": result.model}, result.held_out)
    with atomic_path(numbers, overwrite=overwrite) as part:
        part.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    with atomic_path(card, overwrite=overwrite) as part:
        part.write_text(_card(result), encoding="utf-8")
    save_model(output, result.model, overwrite=overwrite)
    return files


def finetuned_files(output: Path) -> tuple[Path, ...]:
    """Return what `save_finetuned` writes: weights, numbers, pictures and card."""
    return (output, *(output.with_suffix(suffix) for suffix in (".json", ".png", ".md")))


def refuse_files(files: tuple[Path, ...], *, overwrite: bool) -> None:
    """Raise a UserError for the first file that is there, unless it may be replaced."""
    for path in files:
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists already: choose another --output, or add --overwrite")


class _Work:
    """The steps of a fine-tuning, each of which goes on where it was."""

    def __init__(
        self,
        base: WarpingModel,
        clips: Path,
        config: Finetuning,
        *,
        run: Path,
        device: torch.device,
        base_sha256: str,
        tell: Tell,
        progress: OpenProgress | None,
    ) -> None:
        self.config, self.run, self.device, self.tell = config, run, device, tell
        self.base = copy.deepcopy(base).to(device).float().eval()
        self.recipe = _recipe(base.config, config)
        shape = base.config.stage1
        dataset = open_dataset(clips, progress=progress)
        for note in dataset.manifest.notes:
            tell(note)
        self.footage = _cut(dataset, shape, config, progress=progress)
        for note in self.footage.skipped:
            tell(note)
        crops = (*self.footage.train, *self.footage.held_out)
        used = {dataset.manifest.clips[c.scene.clips[0]].source for c in crops}
        self.source = {
            "base": {"name": base.name, "sha256": base_sha256, "weights": _digest(base)},
            "clips": sorted(used),
            "skipped": [*dataset.manifest.notes, *self.footage.skipped],
            "digest": dataset.digest,
            "settings": config_to_dict(config),
        }
        self.plan = Plan(
            run / "plan.json",
            about=self.source,
            shares=dict(zip(("motion", "picture", "stage2"), config.shares, strict=True)),
            minutes=config.minutes,
            clips=config.clips_seen,
        )
        self.plan.begin()  # not before: who adds clips where there were too few may go on
        self.rule = f"held out: {', '.join(c.scene.name for c in self.footage.held_out)}"
        tell(self.rule)
        self.measuring = _measuring(self.footage.held_out, shape, seed=config.seed, device=device)

    def before(self) -> Scores:
        """Measure the base."""
        self.tell(f"measuring {self.base.name} on the clips held out")
        return _kept_scores(
            self.run / "before.json",
            lambda: self.measuring.stage1(self.base.stage1) | self.measuring.stage2(self.base),
        )

    def stage1(self, before: Scores) -> tuple[Stage1, Scores, Kept]:
        """Adapt stage 1; return what gives held-out clips back best: base, motion alone, or all."""
        tuned = copy.deepcopy(self.base.stage1)
        best: tuple[Stage1, Scores, Kept] = (_rounded(tuned), _stage1_part(before), "base")
        least = 0.0
        phases = [t for t in (self.recipe.motion, self.recipe.picture) if self.plan.shares[t.phase]]
        for training in phases:
            tuned = self._phase(tuned, training)
            stored = _rounded(tuned)
            after = _kept_scores(
                self.run / f"{training.phase}.json", partial(self.measuring.stage1, stored)
            )
            change = self.measuring.compared(("", ""), before, after).row("LPIPS, recon").change
            self.tell(f"{training.phase}: LPIPS of held-out clips changed by {change.value:+.4f}")
            if change.value < least:
                kept: Kept = "tuned" if training is phases[-1] else "motion"
                best, least = (stored, after, kept), change.value
        if phases and best[2] == "base":
            self.tell(f"stage 1 came out no better, so that of {self.base.name} is kept")
        return best

    def stage2(self, stage1: Stage1, *, name: str) -> tuple[WarpingModel, Kept]:
        """Adapt stage 2 to a stage 1; return the model with it or with the base's."""
        validate = latent_validation(stage1, self.footage.held_out, seed=self.config.seed)
        conditioner = copy.deepcopy(self.base.conditioner).requires_grad_(requires_grad=True)
        flow = copy.deepcopy(self.base.flow).requires_grad_(requires_grad=True)
        old = validate(self.base.conditioner, self.base.flow)["nll"]
        training = self._planned_stage2(stage1, conditioner, flow)
        self.tell(f"stage 2: {training.clips} clips of {training.pool}, at most")
        folder = self.run / "stage2"
        result = run_stage2(
            stage1,
            conditioner,
            flow,
            self._stream(self.recipe.motion, seed=self.config.seed + 1),
            training,
            folder=folder,
            device=self.device,
            encode_batch=encode_drifting,
            validate=validate,
        )
        self.plan.finish("stage2", folder)
        new = float("inf") if result.nll is None else result.nll
        kept: Kept = "tuned" if new < old else "base"
        self.tell(
            f"stage 2: {old:.3f} nats a dimension before, {new:.3f} after {result.clips} clips"
            + ("" if kept == "tuned" else f", so that of {self.base.name} is kept")
        )
        best = (result.conditioner, result.flow)
        parts = best if kept == "tuned" else (self.base.conditioner, self.base.flow)
        return _assembled(self.base.config, name, stage1, *parts), kept

    def about(self, name: str) -> dict[str, Any]:
        """Return what there is to tell of the run."""
        return {
            "name": name,
            **self.source,
            "held_out": self.rule,
            "seen": self.plan.numbers(),
            "seconds": self.plan.spent(),
        }

    def _phase(self, model: Stage1, training: Stage1Training) -> Stage1:
        phase, folder = training.phase, self.run / training.phase
        lpips = LPIPS.load(training.network).to(self.device) if phase == "picture" else None
        seconds = self.plan.seconds_for(phase)
        clips = self.plan.clips_of(phase, lambda s: self._clips_in(s, model, training, lpips))
        by = "" if self.config.clips_seen else f", about {seconds / 60:.1f} minutes"
        self.tell(f"{phase}: {clips} clips{by}")
        tuned = run_phase(
            model,
            self._stream(training, seed=training.seed),
            replace(training, clips=clips),
            folder=folder,
            device=self.device,
            perceptual=lpips,
            validate=stage1_validation(self.footage.held_out),
        )
        self.plan.finish(phase, folder)
        return tuned

    def _clips_in(
        self, seconds: float, model: Stage1, training: Stage1Training, lpips: LPIPS | None
    ) -> float:
        """Return how many clips a phase sees in a time, by a few steps of a copy of it."""
        began = time.monotonic()
        batch = next(self._stream(training, seed=training.seed))
        trial = copy.deepcopy(model)
        take = stage1_trial(trial, batch, training, device=self.device, perceptual=lpips)
        _, pace = measure(take, batch_size=training.batch_size, device=self.device)
        return pace * max(1.0, seconds - (time.monotonic() - began))

    def _planned_stage2(
        self, stage1: Stage1, conditioner: Conditioner, flow: ConditionalFlow
    ) -> Stage2Training:
        """Return the training of stage 2 with the clips that its time allows."""
        training = self.config.stage2
        clips = self.plan.clips_of(
            "stage2", lambda s: self._stage2_clips_in(s, stage1, conditioner, flow)
        )
        if self.config.clips_seen is not None:
            clips *= _STAGE2_FACTOR
        return replace(
            training,
            clips=clips,
            pool=self.plan.kept("stage2.pool", lambda: max(2, min(training.pool, clips))),
            validate_every=max(_LEAST_STEPS * training.batch_size, clips // _LOOKS),
            patience=_PATIENCE,
        )

    def _stage2_clips_in(
        self, seconds: float, stage1: Stage1, conditioner: Conditioner, flow: ConditionalFlow
    ) -> float:
        """Return how many clips stage 2 draws in a time; decide how many are encoded for it."""
        began, training = time.monotonic(), self.config.stage2
        stream = self._stream(self.recipe.motion, seed=self.config.seed + 2)
        pool = encode_drifting(stage1.to(self.device).eval(), next(stream))
        start = time.monotonic()  # of the second one: the first waited for the worker to start
        encode_drifting(stage1, next(stream))
        each = (time.monotonic() - start) / self.recipe.motion.batch_size
        most = max(training.batch_size, int(_ENCODING * seconds / each))
        size = self.plan.kept("stage2.pool", lambda: min(training.pool, most))
        take = stage2_trial(
            copy.deepcopy(conditioner).to(self.device),
            copy.deepcopy(flow).to(self.device),
            pool,
            training,
            noise=stage1.config.noise,
        )
        with torch.random.fork_rng():  # of dropout
            _, pace = measure(take, batch_size=training.batch_size, device=self.device)
        return pace * max(1.0, seconds - size * each - (time.monotonic() - began))

    def _stream(self, training: Stage1Training, *, seed: int) -> BatchLoader[ClipBatch]:
        return training_stream(self.recipe, training, self.footage.train, seed=seed)


def _recipe(base: WarpingModelConfig, config: Finetuning) -> Recipe:
    """Return the recipe of which the phases are, on loose clips and skies."""
    return Recipe(
        name=base.name,
        data=DataConfig(textures={}, sky_share=config.sky_share),
        stage1=base.stage1,
        motion=config.motion,
        picture=config.picture,
        mask=Stage1Training(phase="mask"),
        conditioner=base.conditioner,
        flow=base.flow,
        stage2=config.stage2,
    )


def _cut(
    dataset: PackedDataset,
    shape: Stage1Config,
    config: Finetuning,
    *,
    progress: OpenProgress | None,
) -> SplitCrops:
    scenes = find_scenes(dataset)
    num_held_out = sum(scene.held_out for scene in scenes)
    each_train = math.ceil(config.num_train / max(1, len(scenes) - num_held_out))
    return load_crops(
        dataset,
        scenes,
        num_train=max(8, min(200, each_train)),
        num_held_out=max(1, math.ceil(config.num_held_out / max(1, num_held_out))),
        size=shape.size,
        num_frames=shape.num_frames,
        grid=GRID,
        fps=shape.fps,
        speed=config.speed,
        seed=config.seed,
        progress=progress,
    )


def _measuring(
    held_out: list[SceneCrops], shape: Stage1Config, *, seed: int, device: torch.device
) -> BeforeAfter:
    # Skies of a seed that no phase draws from.
    skies = simulated_skies(
        num=_NUM_SKIES, size=shape.size, num_frames=shape.num_frames, seed=seed + 10_007
    )
    return BeforeAfter(
        held_out=held_out,
        skies=[skies],
        lpips=LPIPS.load("vgg").to(device),
        times=_times(shape.num_frames),
        seed=seed,
    )


def simulated_skies(*, num: int, size: int, num_frames: int, seed: int) -> SceneCrops:
    """Draw skies whose flow is known exactly, one clip each, as crops with x0 alone.

    Args:
        num: Number of skies.
        size: Width and height in pixels.
        num_frames: T.
        seed: Seed of the skies.
    """
    pool = SkyPool(
        size=size, num_frames=num_frames, grid=GRID, textures=None, seed=seed, rendered=0
    )
    items = [pool.sky(number) for number in range(num)]
    return SceneCrops(
        scene=Scene("skies", "skies", held_out=True),
        frames=np.stack([to_pixels(item.x0[None]) for item in items]),
        flow=torch.stack([item.flow for item in items]).numpy().astype(np.float32),
        motion=2 * torch.stack([item.moving for item in items]).numpy().astype(np.float32),
    )


def _assembled(
    config: WarpingModelConfig,
    name: str,
    stage1: Stage1,
    conditioner: Conditioner,
    flow: ConditionalFlow,
) -> WarpingModel:
    model = WarpingModel(replace(config, name=name))
    model.stage1.load_state_dict(stage1.state_dict())
    model.conditioner.load_state_dict(conditioner.state_dict())
    model.flow.load_state_dict(flow.state_dict())
    device = next(stage1.parameters()).device
    return _as_stored(model.to(device).eval()).requires_grad_(requires_grad=False)


def _rounded(stage1: Stage1) -> Stage1:
    """A copy of a stage 1 as a weights file holds it."""
    return _as_stored(copy.deepcopy(stage1).float().eval())


@torch.no_grad()
def _as_stored(network: _Network) -> _Network:
    """Round a network to what a weights file holds, so that numbers are those of the file."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.to(WarpingModel.stored_dtype).float())
    return network


def _stage1_part(scores: Scores) -> Scores:
    return {kind: scores[kind] for kind in ("flow", "reconstruction", "sky_flow")}


def _kept_scores(path: Path, find: Callable[[], Scores]) -> Scores:
    """Return scores that are measured once and kept."""
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {kind: [ClipScore(**score) for score in scores] for kind, scores in kept.items()}
    found = find()
    values = {kind: [asdict(score) for score in scores] for kind, scores in found.items()}
    with atomic_path(path, overwrite=True) as part:
        part.write_text(json.dumps(values) + "\n", encoding="utf-8")
    return found


def _times(num_frames: int) -> tuple[int, ...]:
    """Return four frames spread over a clip, the last among them."""
    return tuple(sorted({max(1, round(num_frames * k / 4)) for k in range(1, 5)}))


def _digest(model: WarpingModel) -> str:
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _card(result: FinetuneResult) -> str:
    about = result.about
    base = about["base"]
    kept = " and ".join(f"{stage[:-1]} {stage[-1]}: {of}" for stage, of in result.kept.items())
    clips = "\n".join(f"- {name}" for name in about["clips"])
    return (
        f"# {about['name']}\n\n"
        f"{base['name']} (sha256 {base['sha256'] or 'unknown'}) adapted to {len(about['clips'])} "
        f"video(s) by `cinnema finetune` ({kept}).\n\n"
        f"## Clips\n\n{clips}\n\n{about['held_out'].capitalize()}. Stage 2 was stopped by the "
        "same clips, which flatters its likelihood a little.\n\n"
        f"## Numbers\n\n```text\n{result.comparison.to_table()}\n```\n"
    )
