"""Fine-tuning: adapts trained weights to a few videos of the user, in minutes.

Stage 1 is trained first (motion, then picture and mask), then stage 2 on the resulting latents.
Each stage is kept only if it scores better than the base on held-out clips.
"""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path
from cinnema.core.text import plural
from cinnema.models.files import save_model
from cinnema.models.flow.conditioning import Conditioner
from cinnema.models.flow.flow import ConditionalFlow
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.stage1 import Stage1
from cinnema.training.assembly import Clips, Validation, lpips_of
from cinnema.training.cost import measure
from cinnema.training.latent_pool import encode_drifting
from cinnema.training.loop import Position, fit
from cinnema.training.stage2 import (
    FlowNetworks,
    LatentStep,
    PoolBatches,
    Stage2Training,
    fit_latents,
)
from cinnema.training.time_budget import TimeBudget
from cinnema.training.warping import WarpingStep, WarpingTraining

Report = Callable[[str], None]
Scores = dict[str, Any]
Kept = Literal["tuned", "motion", "base"]
Share = Annotated[float, Field(ge=0)]
_Network = TypeVar("_Network", bound=nn.Module)

# Largest share of the time of stage 2 that is spent on encoding clips.
_ENCODING = 0.5
# Factor on the clips of stage 2, whose steps are cheap, if clips are given instead of a time.
_STAGE2_FACTOR = 8
# Validations during stage 2, and how many of them without improvement end it.
_VALIDATIONS, _PATIENCE = 40, 10
# Steps between two validations, at least.
_LEAST_STEPS = 8


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Finetuning:
    """The options of a fine-tuning.

    Attributes:
        minutes: Minutes of training. Preparing clips and measuring before and after come on top.
        clips_seen: Clips seen in all phases together, instead of `minutes`, for runs that can be
            repeated on any machine; stage 2, whose steps are cheap, sees 8 times its share.
        shares: Shares of the time for phase "motion", phase "picture" and stage 2; with 0 for one
            of the first two, that part of the base is not changed.
        sky_share: Share of synthetic skies in each batch, against forgetting, from 0 to below 1.
        slow_motion: Factor by which clips are slowed down: 1 as filmed, 4 for motion such as
            flames, which optical flow cannot follow otherwise.
        num_train: Clips cut for training, of all videos together.
        num_held_out: Clips cut for measuring, of all videos together.
        motion: Training of phase "motion"; its number of clips is not used.
        picture: Training of phase "picture"; its number of clips is not used.
        stage2: Training of stage 2; its `pool` is the largest number of clips that are encoded.
        seed: Seed of the positions of clips, and of what is measured.

    Raises:
        UserError: Stage 2 has a share of 0, or `motion` or `picture` has another phase.
    """

    minutes: float = Field(default=20.0, gt=0)
    clips_seen: int | None = Field(default=None, ge=1)
    shares: tuple[Share, Share, Share] = (0.35, 0.4, 0.25)
    sky_share: float = Field(default=0.25, ge=0, lt=1)
    slow_motion: float = Field(default=1.0, ge=0.25)
    num_train: int = Field(default=400, ge=8)
    num_held_out: int = Field(default=24, ge=2)
    motion: WarpingTraining = Field(
        default_factory=lambda: WarpingTraining(
            phase="motion", batch_size=16, learning_rate=3e-4, ema_decay=0.99
        )
    )
    picture: WarpingTraining = Field(
        default_factory=lambda: WarpingTraining(
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
                f"shares: stage 2 depends on stage 1, so the last must be above 0, got "
                f"{self.shares}: give it a share"
            )
        for name, training in (("motion", self.motion), ("picture", self.picture)):
            if training.phase != name:
                raise UserError(f"{name}.phase must be {name}, got {training.phase}: change it")
        if self.stage2.keep != "best":
            raise UserError("stage2.keep must be best, as the base is one of the candidates")


@runtime_checkable
class FinetuneClips(Clips, Protocol):
    """The clips of a fine-tuning: the user's videos, some of them held out, and synthetic skies."""

    @property
    def about(self) -> dict[str, Any]:
        """Names of the videos, why others are skipped, and a hash of the files, as JSON values."""
        ...

    @property
    def held_out(self) -> Sequence[Any]:
        """The held-out clips, by video."""
        ...


@runtime_checkable
class Comparison(Protocol):
    """The scores of two models on the same clips."""

    def row(self, name: str) -> Any:  # noqa: ANN401 - with `change.value`; lower is better
        """Return the scores of a quantity by the beginning of its name."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        ...

    def to_table(self) -> str:
        """Return the scores as a text table."""
        ...


@runtime_checkable
class Measuring(Protocol):
    """Measures base and tuned model on the held-out clips."""

    def stage1(self, stage1: Stage1) -> Scores:
        """Return scores that depend on stage 1 alone."""
        ...

    def stage2(self, model: WarpingModel) -> Scores:
        """Return scores that depend on both stages."""
        ...

    def compared(self, names: tuple[str, str], before: Scores, after: Scores) -> Comparison:
        """Compare the scores of two models that both have."""
        ...

    def dump(self, scores: Scores) -> Any:  # noqa: ANN401 - JSON values
        """Return scores as JSON values."""
        ...

    def load(self, values: Any) -> Scores:  # noqa: ANN401 - JSON values
        """Return the scores of JSON values."""
        ...


@plain_dataclass(frozen=True, eq=False)
class FinetuneResult:
    """The outcome of a fine-tuning.

    Attributes:
        model: The tuned model, in evaluation mode, float32, on the CPU.
        comparison: Scores of base and tuned model on the held-out clips.
        kept: For "stage1" and "stage2", whether the tuned one or the base's is in the model;
            "motion" if stage 1 is that of phase "motion", without phase "picture".
        about: Base, clips, settings, clips seen and times, as JSON values.
        base: The base.
        held_out: The held-out clips.
    """

    model: WarpingModel
    comparison: Comparison
    kept: dict[str, Kept]
    about: dict[str, Any]
    base: WarpingModel
    held_out: Sequence[Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return {**self.about, "kept": self.kept, "numbers": self.comparison.to_dict()}


def finetune(
    base: WarpingModel,
    clips: FinetuneClips,
    config: Finetuning,
    *,
    measuring: Callable[[Sequence[Any]], Measuring],
    validation: Callable[[Sequence[Any]], Validation],
    run: Path,
    device: torch.device,
    name: str = "mine",
    base_sha256: str = "",
    report: Report = print,
) -> FinetuneResult:
    """Adapt a model to clips, or resume the run.

    Args:
        base: The trained model; it is not changed.
        clips: The clips.
        config: The options.
        measuring: Maps held-out clips to an object that measures base and tuned model on them.
        validation: Maps held-out clips to the functions that score networks during training.
        run: Folder of the run, with checkpoints and numbers; the same call resumes.
        device: Device to compute on.
        name: Name of the tuned weights.
        base_sha256: Hash of the base's file, for the record.
        report: Called with a sentence about each part of the work, when it begins.

    Returns:
        The tuned model, rounded as in a weights file, and its comparison with the base.

    Raises:
        UserError: `run` holds another fine-tuning, or cannot be written to; a loss is not finite.
    """
    work = _Work(
        base, clips, config, run=run, device=device, base_sha256=base_sha256, report=report
    )
    work.prepare(measuring, validation)
    before = work.before()
    stage1, scores1, kept1 = work.stage1(before)
    model, kept2 = work.stage2(stage1, name=name)
    report(f"measuring {name} on the held-out clips")
    after = scores1 | work.measured("after", lambda: work.measuring.stage2(model))
    return FinetuneResult(
        model=model.to("cpu"),
        comparison=work.measuring.compared((base.name, name), before, after),
        kept={"stage1": kept1, "stage2": kept2},
        about=work.about(name),
        base=base,
        held_out=clips.held_out,
    )


def save_finetuned(
    result: FinetuneResult,
    output: Path,
    *,
    draw: Callable[[Path, dict[str, WarpingModel], Sequence[Any]], object],
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write the weights, and beside them numbers (.json), pictures (.png) and a card (.md).

    Args:
        result: Returned by `finetune`.
        output: The weights file.
        draw: Draws reconstructions and samples of models, by name, into a PNG file.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files.

    Raises:
        UserError: A file exists, or cannot be written.
    """
    files = finetuned_files(output)
    refuse_files(files, overwrite=overwrite)
    numbers, pictures, card = files[1:]
    draw(pictures, {"base": result.base, "tuned": result.model}, result.held_out)
    with atomic_path(numbers, overwrite=overwrite) as part:
        part.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    with atomic_path(card, overwrite=overwrite) as part:
        part.write_text(_card(result), encoding="utf-8")
    save_model(output, result.model, overwrite=overwrite)
    return files


def finetuned_files(output: Path) -> tuple[Path, ...]:
    """Return the files that `save_finetuned` writes: weights, numbers, pictures and card."""
    return (output, *(output.with_suffix(suffix) for suffix in (".json", ".png", ".md")))


def refuse_files(files: tuple[Path, ...], *, overwrite: bool) -> None:
    """Raise a UserError for the first file that exists, unless it may be replaced."""
    for path in files:
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists already: choose another --output, or add --overwrite")


class _Work:
    """The parts of a fine-tuning, each of which resumes."""

    measuring: Measuring
    validation: Validation

    def __init__(
        self,
        base: WarpingModel,
        clips: FinetuneClips,
        config: Finetuning,
        *,
        run: Path,
        device: torch.device,
        base_sha256: str,
        report: Report,
    ) -> None:
        self.clips, self.config, self.run = clips, config, run
        self.device, self.report = device, report
        self.base = copy.deepcopy(base).to(device).float().eval()
        self.rule = f"held out: {', '.join(c.scene.name for c in clips.held_out)}"
        self.source = {
            "base": {"name": base.name, "sha256": base_sha256, "weights": _digest(base)},
            **clips.about,
            "settings": config_to_dict(config),
        }
        self.budget = TimeBudget(
            run / "plan.json",
            about=self.source,
            shares=dict(zip(("motion", "picture", "stage2"), config.shares, strict=True)),
            minutes=config.minutes,
            clips=config.clips_seen,
        )

    def prepare(
        self,
        measuring: Callable[[Sequence[Any]], Measuring],
        validation: Callable[[Sequence[Any]], Validation],
    ) -> None:
        """Prepare measuring and validation on the held-out clips."""
        for note in self.clips.about["skipped"]:
            self.report(note)
        self.budget.begin()
        self.report(self.rule)
        self.measuring = measuring(self.clips.held_out)
        self.validation = validation(self.clips.held_out)

    def before(self) -> Scores:
        """Measure the base."""
        self.report(f"measuring {self.base.name} on the held-out clips")
        return self.measured(
            "before",
            lambda: self.measuring.stage1(self.base.stage1) | self.measuring.stage2(self.base),
        )

    def stage1(self, before: Scores) -> tuple[Stage1, Scores, Kept]:
        """Adapt stage 1; return the best of base, phase "motion" and both phases, by LPIPS."""
        tuned = copy.deepcopy(self.base.stage1)
        best: tuple[Stage1, Scores, Kept] = (_rounded(tuned), _stage1_part(before), "base")
        least = 0.0
        config = self.config
        phases = [t for t in (config.motion, config.picture) if self.budget.shares[t.phase]]
        for training in phases:
            tuned = self._phase(tuned, training)
            stored = _rounded(tuned)
            self.report(f"{training.phase}: measuring on the held-out clips")
            after = self.measured(training.phase, partial(self.measuring.stage1, stored))
            change = self.measuring.compared(("", ""), before, after).row("LPIPS, recon").change
            self.report(f"{training.phase}: LPIPS of held-out clips changed by {change.value:+.4f}")
            if change.value < least:
                kept: Kept = "tuned" if training is phases[-1] else "motion"
                best, least = (stored, after, kept), change.value
        if phases and best[2] == "base":
            self.report(f"stage 1 did not improve, so that of {self.base.name} is kept")
        return best

    def stage2(self, stage1: Stage1, *, name: str) -> tuple[WarpingModel, Kept]:
        """Adapt stage 2 to a stage 1; return the model with it, or with the base's."""
        self.report("stage 2: encoding the held-out clips")
        validate = self.validation.latents(stage1)
        conditioner = copy.deepcopy(self.base.conditioner).requires_grad_(requires_grad=True)
        flow = copy.deepcopy(self.base.flow).requires_grad_(requires_grad=True)
        old = validate(self.base.conditioner, self.base.flow)["nll"]
        training = self._planned_stage2(stage1, conditioner, flow)
        self.report(f"stage 2: training on {training.clips} clips of {training.pool}, at most")
        folder = self.run / "stage2"
        result = fit_latents(
            stage1,
            conditioner,
            flow,
            self.clips.pool_batches(seed=self.config.seed + 1),
            training,
            folder=folder,
            device=self.device,
            encode_batch=encode_drifting,
            validate=validate,
        )
        self.budget.finish("stage2", folder)
        new = float("inf") if result.nll is None else result.nll
        kept: Kept = "tuned" if new < old else "base"
        self.report(
            f"stage 2: {old:.3f} nats per dimension before, {new:.3f} after {result.clips} clips"
            + ("" if kept == "tuned" else f", so that of {self.base.name} is kept")
        )
        best = (conditioner, flow)
        parts = best if kept == "tuned" else (self.base.conditioner, self.base.flow)
        return _assembled(self.base.config, name, stage1, *parts), kept

    def about(self, name: str) -> dict[str, Any]:
        """Return a description of the run as JSON values."""
        return {
            "name": name,
            **self.source,
            "held_out": self.rule,
            "seen": self.budget.numbers(),
            "seconds": self.budget.spent(),
        }

    def measured(self, name: str, find: Callable[[], Scores]) -> Scores:
        """Return scores, computed at the first call and cached in a file."""
        path = self.run / f"{name}.json"
        if path.exists():
            return self.measuring.load(json.loads(path.read_text(encoding="utf-8")))
        found = find()
        with atomic_path(path, overwrite=True) as part:
            part.write_text(json.dumps(self.measuring.dump(found)) + "\n", encoding="utf-8")
        return found

    def _phase(self, model: Stage1, training: WarpingTraining) -> Stage1:
        phase, folder = training.phase, self.run / training.phase
        lpips = lpips_of(training, self.device)
        seconds = self.budget.seconds_for(phase)
        clips = self.budget.clips_of(phase, lambda s: self._clips_in(s, model, training))
        by = "" if self.config.clips_seen else f", about {seconds / 60:.1f} minutes"
        self.report(f"{phase}: training on {clips} clips{by}")
        training = replace(training, clips=clips)
        step = WarpingStep(model, training, device=self.device, perceptual=lpips)
        fit(
            step,
            self.clips.batches(training, seed=training.seed, ranks=Ranks()),
            training.schedule(),
            folder=folder,
            validate=lambda: self.validation.stage1(model, training),
        )
        self.budget.finish(phase, folder)
        return model

    def _clips_in(self, seconds: float, model: Stage1, training: WarpingTraining) -> float:
        """Return how many clips a phase processes in a time, measured by steps of a copy."""
        self.report(f"{training.phase}: measuring the speed of a step")
        began = time.monotonic()
        batches = self.clips.batches(training, seed=training.seed, ranks=Ranks())
        batch = next(batches)
        lpips = lpips_of(training, self.device)
        step = WarpingStep(copy.deepcopy(model), training, device=self.device, perceptual=lpips)
        pace = self._pace(lambda number: step.take(batch, Position(number)), training.batch_size)
        batches.close()
        return pace * max(1.0, seconds - (time.monotonic() - began))

    def _planned_stage2(
        self, stage1: Stage1, conditioner: Conditioner, flow: ConditionalFlow
    ) -> Stage2Training:
        """Return the training of stage 2 with the clips that fit its time."""
        training = self.config.stage2
        clips = self.budget.clips_of(
            "stage2", lambda s: self._stage2_clips_in(s, stage1, conditioner, flow)
        )
        if self.config.clips_seen is not None:
            clips *= _STAGE2_FACTOR
        return replace(
            training,
            clips=clips,
            pool=self.budget.kept("stage2.pool", lambda: max(2, min(training.pool, clips))),
            validate_every=max(_LEAST_STEPS * training.batch_size, clips // _VALIDATIONS),
            patience=_PATIENCE,
        )

    def _stage2_clips_in(
        self, seconds: float, stage1: Stage1, conditioner: Conditioner, flow: ConditionalFlow
    ) -> float:
        """Return how many clips stage 2 processes in a time, and set the number to encode."""
        self.report("stage 2: measuring the speed of a step")
        began, training = time.monotonic(), self.config.stage2
        batches = self.clips.pool_batches(seed=self.config.seed + 2)
        pool = encode_drifting(stage1.to(self.device).eval(), next(batches))
        start = time.monotonic()  # of the second batch: the first waits for its worker to start
        encode_drifting(stage1, next(batches))
        each = (time.monotonic() - start) / self.config.motion.batch_size
        most = max(training.batch_size, int(_ENCODING * seconds / each))
        size = self.budget.kept("stage2.pool", lambda: min(training.pool, most))
        drawn = PoolBatches(pool, training, noise=stage1.config.noise)
        networks = FlowNetworks(copy.deepcopy(conditioner), copy.deepcopy(flow)).to(self.device)
        step = LatentStep(networks, training, first=drawn.first())
        pace = self._pace(
            lambda number: step.take(next(drawn), Position(number)), training.batch_size
        )
        return pace * max(1.0, seconds - size * each - (time.monotonic() - began))

    def _pace(self, take: Callable[[int], object], batch_size: int) -> float:
        _, pace = measure(take, batch_size=batch_size, device=self.device)
        return pace


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
    """Return a copy of stage 1 as a weights file stores it."""
    return _as_stored(copy.deepcopy(stage1).float().eval())


@torch.no_grad()
def _as_stored(network: _Network) -> _Network:
    """Round a network to what a weights file stores, so that scores are those of the file."""
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.to(WarpingModel.stored_dtype).float())
    return network


def _stage1_part(scores: Scores) -> Scores:
    return {kind: scores[kind] for kind in ("flow", "reconstruction", "sky_flow")}


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
        f"{base['name']} (sha256 {base['sha256'] or 'unknown'}) adapted to "
        f"{plural(len(about['clips']), 'video')} by `cinnema finetune` ({kept}).\n\n"
        f"## Clips\n\n{clips}\n\n{about['held_out'].capitalize()}. The same clips decided when "
        "the training of stage 2 ended, which flatters its likelihood a little.\n\n"
        f"## Numbers\n\n```text\n{result.comparison.to_table()}\n```\n"
    )
