"""Training of stage 1: first the motion, then the picture, last the mask.

Phase "motion" needs no frames but x0: flow volumes go through z and come back, and the mask learns
what moves. Phase "picture" renders a later frame of each clip as well, or some in a row, compares
pixels, and may set discriminators on them.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.config import config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.randomness import generator_for
from cinnema.core.ranks import Ranks
from cinnema.core.running import Stateful, TrainingRun, warmup_cosine
from cinnema.data.clips import ClipBatch, ClipBatches
from cinnema.stage1.adversaries.adversaries import Adversaries, AdversariesConfig
from cinnema.stage1.losses import (
    PerceptualDistance,
    mask_loss,
    motion_loss,
    random_windows,
    roughness,
)
from cinnema.stage1.model import Stage1
from cinnema.stage1.motion import GRID
from cinnema.stage1.rendering import Layers, cut

Validate = Callable[[Stage1], dict[str, float]]
"""Scores the model on held-out scenes; it comes in float32, on the device of training."""

Show = Callable[[Stage1, Path], object]
"""Draws what the model makes of held-out scenes into a PNG file."""

# Steps between two records of the losses, and between two validations.
_RECORD_EVERY, _VALIDATE_EVERY = 50, 1000
# Second differences of the flow are counted in this many picture widths.
_ROUGHNESS_UNIT = 0.02


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Stage1Training:
    """How stage 1 is trained.

    Attributes:
        phase: "motion" trains flow, z and mask; "picture" adds rendered frames; "mask" trains
            nothing but what says "this may move", which is cheap.
        clips: Clips seen before the run ends.
        batch_size: Clips in a step, of all ranks together.
        learning_rate: Of AdamW at its peak.
        weight_decay: Of AdamW.
        ema_decay: Of the weights that are kept.
        roughness: Weight of the flow's second differences.
        mask: Weight of the mask's cross-entropy.
        pixels: Weight of the L1 distance of frames (phase "picture").
        perceptual: Weight of LPIPS (phase "picture").
        network: Of LPIPS: "vgg" is what is reported, "alex" costs a twentieth of it.
        window: Side of the window on which LPIPS is computed, in pixels.
        train_encoder: Whether phase "picture" still moves what stage 2 stands on: the encoder of z
            and the features of x0.
        frames: Frames in a row that are rendered of each clip (phase "picture"); what the batches
            must have.
        adversaries: Discriminators of those frames, or None.
        seed: Of every draw.

    Raises:
        ValueError: Adversaries are of a phase without frames, or need more of them.
    """

    phase: Literal["motion", "picture", "mask"] = "motion"
    clips: int = Field(default=150_000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    roughness: float = Field(default=0.3, ge=0)
    mask: float = Field(default=0.3, ge=0)
    pixels: float = Field(default=4.0, ge=0)
    perceptual: float = Field(default=3.0, ge=0)
    network: Literal["vgg", "alex"] = "vgg"
    window: int = Field(default=64, ge=32)
    train_encoder: bool = False
    frames: int = Field(default=1, ge=1)
    adversaries: AdversariesConfig | None = None
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if self.adversaries is None:
            return
        if self.phase != "picture":
            raise UserError(
                f'adversaries need phase "picture", which renders frames, got "{self.phase}": '
                "leave them out"
            )
        if self.adversaries.needs_motion and self.frames < 2:
            raise UserError(
                "frames must be at least 2 for a temporal adversary, got 1: render more, or leave "
                "it out"
            )


def train(
    model: Stage1,
    batches: ClipBatches,
    config: Stage1Training,
    *,
    folder: Path,
    device: torch.device,
    perceptual: PerceptualDistance | None = None,
    validate: Validate | None = None,
    show: Show | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> Stage1:
    """Train `model` in place, resuming what `folder` holds, and return it with averaged weights.

    The random draws of a step depend on the seed and its number only, and the batches go on from
    the clip where the run was: on a CPU, a resumed run is an unbroken one to the bit.

    Args:
        model: Stage 1; for phase "picture", one that phase "motion" has trained.
        batches: Of clips; under several ranks, this rank's share of each batch.
        config: How.
        folder: Of the run.
        device: Where to compute.
        perceptual: LPIPS on that device, in float32; without it phase "picture" compares pixels
            only.
        validate: Called with the averaged model now and then; its numbers are recorded.
        show: Called then, too, with a file in `strips`, in the folder of the run.
        ranks: The processes that train.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        `model`, in float32 and on `device`.

    Raises:
        UserError: `folder` holds another run, or cannot be written to; the ranks cannot share a
            batch evenly; the loss is no number any more (the last checkpoint is from before that).
    """
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks or Ranks())
    about = {"model": config_to_dict(model.config), "training": _told(config)}
    with TrainingRun(
        folder,
        config=about,
        parts=step.parts(),
        total=config.clips,
        ranks=step.ranks,
        tensorboard=tensorboard,
    ) as run:
        batches.load_state_dict({"clips": run.clips})
        step.ranks.broadcast(step.tensors())
        _fit(run, step, batches, validate, show)
    step.average.exchange()
    step.master.restore()
    return model


def _told(config: Stage1Training) -> dict[str, Any]:
    """Return what a run is known by, without later options where they change nothing.

    So that runs that were begun before there were those go on.
    """
    values, defaults = config_to_dict(config), config_to_dict(Stage1Training())
    later = ("frames", "adversaries")
    return {n: v for n, v in values.items() if n not in later or v != defaults[n]}


def trial(
    model: Stage1,
    batch: ClipBatch,
    config: Stage1Training,
    *,
    device: torch.device,
    perceptual: PerceptualDistance | None = None,
    ranks: Ranks | None = None,
) -> Callable[[int], dict[str, float]]:
    """Return a function that takes the step of a number on a batch, to see what it costs.

    Adversaries take part from the first step on, whenever they would begin.

    Args:
        model: Stage 1; trained.
        batch: This rank's share of a batch as large as the config says.
        config: How.
        device: Where to compute.
        perceptual: LPIPS on that device.
        ranks: The processes that train.
    """
    if config.adversaries is not None:
        config = replace(config, adversaries=replace(config.adversaries, start=0))
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks or Ranks())

    def take(number: int) -> dict[str, float]:
        losses = step.backward(batch, number=number)
        step.update(config.learning_rate)
        return losses

    return take


def _fit(
    run: TrainingRun,
    step: "_Step",
    batches: ClipBatches,
    validate: Validate | None,
    show: Show | None,
) -> None:
    config = step.config
    while not run.is_done:
        number = run.clips // config.batch_size
        batch = next(batches)
        losses = step.backward(batch, number=number)
        run.require_finite(losses, step=number, ids=batch.ids)
        step.update(config.learning_rate * warmup_cosine(run.progress))
        run.advance(config.batch_size)
        if number % _RECORD_EVERY == 0:
            run.record(**losses)
        if number % _VALIDATE_EVERY == _VALIDATE_EVERY - 1 or run.is_done:
            _look(run, step, validate, show)
        run.save_if_due()


def _look(run: TrainingRun, step: "_Step", validate: Validate | None, show: Show | None) -> None:
    """Score and show the averaged model, on the first rank; the others wait at their next step."""
    if not step.ranks.is_first:
        return
    with step.averaged():
        numbers = {} if validate is None else validate(step.model)
        if show is not None:
            show(step.model, run.folder / "strips" / f"{run.clips:09d}.png")
    if numbers:
        run.record(**numbers)


class _Step:
    """One step of the optimiser, with everything that it changes."""

    def __init__(
        self,
        model: Stage1,
        config: Stage1Training,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None,
        ranks: Ranks,
    ) -> None:
        _require_frames(model, config)
        self.config, self.device, self.perceptual = config, device, perceptual
        self.ranks, self.share = ranks, ranks.share(config.batch_size)
        self.dtype = fast_dtype(device)
        self.model = model.to(device)
        _choose_trained(model, config)
        self.master = MasterWeights(model, dtype=self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = MovingAverage(self.master.parameters, decay=config.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )
        self.adversaries = self._new_adversaries()

    def _new_adversaries(self) -> Adversaries | None:
        if self.config.adversaries is None:
            return None
        return Adversaries(
            self.config.adversaries,
            batch_size=self.config.batch_size,
            device=self.device,
            seed=self.config.seed,
            ranks=self.ranks,
        )

    def parts(self) -> dict[str, Stateful]:
        own: dict[str, Stateful] = {
            "model": self.master,
            "optimiser": self.optimiser,
            "average": self.average,
        }
        return own | ({} if self.adversaries is None else self.adversaries.parts())

    def tensors(self) -> Iterator[Tensor]:
        """All that has to be the same on all ranks before the first step."""
        yield from self.model.parameters()
        yield from self.model.buffers()
        yield from self.master.parameters
        yield from self.average.values
        if self.adversaries is not None:
            yield from self.adversaries.tensors()

    def backward(self, batch: ClipBatch, *, number: int) -> dict[str, float]:
        """Leave the gradient on the whole batch in the master weights; return losses and norm.

        Adversaries, if there are any, learn from what was rendered, unless a number is not finite.
        """
        self.model.train()
        batch = batch.to(self.device)
        losses, fake = self.losses(batch, generator_for(self.config.seed, number))
        if fake is not None:
            losses |= self._adversarial_losses(batch, fake, losses, number=number)
        torch.stack(list(losses.values())).sum().backward()
        self.master.take_gradients()
        self.ranks.average_gradients(self.master.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.master.parameters, 1.0)
        values = torch.stack([*losses.values(), norm]).detach()
        self.ranks.average([values])
        numbers = dict(zip([*losses, "gradient"], values.tolist(), strict=True))
        if (
            self.adversaries is None
            or fake is None
            or not all(map(math.isfinite, numbers.values()))
        ):
            return numbers
        real = batch.frames[:, : fake.shape[1]]
        return numbers | self.adversaries.update(real, fake.detach(), batch.x0, number=number)

    def update(self, learning_rate: float) -> None:
        """Move the weights down the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update()
        self.master.publish()

    def losses(
        self, batch: ClipBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Float[Tensor, "b n 3 h w"] | None]:
        """Return weighted losses, and the frames that were rendered if any were.

        The losses' means over all ranks are those of the whole batch; adversaries' are not there.
        """
        model, config = self.model, self.config
        x0 = batch.x0.to(self.dtype, memory_format=torch.channels_last)
        if config.phase == "mask":
            features = model.scene(x0)
            logits = model.mask(features.joint, features.fine)
            return {"mask": self._mask_loss(logits, batch)}, None
        flow = batch.flow.to(self.dtype)
        z = model.encode(flow)
        noise = torch.randn((config.batch_size, z.shape[1]), generator=generator)[self.share].to(z)
        features = model.scene(x0)
        coefficients = model.motion(z + model.config.noise * noise, features.joint)
        logits = model.mask(features.joint, features.fine)
        moves = torch.sigmoid(logits)
        seen = model.basis.clip(coefficients) * _on_grid(moves)[:, :, None]
        bends = roughness(coefficients.float()) / _ROUGHNESS_UNIT
        out = {
            "flow": motion_loss(seen.float(), batch.flow),
            "mask": self._mask_loss(logits, batch),
            "rough": config.roughness * bends,
        }
        if config.phase == "motion":
            return out, None
        frames = self._rendered(cut(x0, moves), coefficients, batch.times)
        return out | self._picture_losses(batch, frames, generator), torch.stack(frames, dim=1)

    def _mask_loss(self, logits: Tensor, batch: ClipBatch) -> Tensor:
        total = batch.known.sum()
        self.ranks.average([total])
        loss = mask_loss(logits.float(), batch.moving, batch.known, total=total)
        return self.config.mask * loss

    def _rendered(
        self,
        layers: Layers,
        coefficients: Float[Tensor, "b k 2 g g"],
        times: Float[Tensor, "b n"],
    ) -> list[Float[Tensor, "b 3 h w"]]:
        """Render the first frames that the batch has, as many as the config says."""
        flows = (self.model.basis.at(coefficients, t) for t in times.T[: self.config.frames])
        return [self.model.frame(layers, flow).float() for flow in flows]

    def _picture_losses(
        self,
        batch: ClipBatch,
        frames: Sequence[Float[Tensor, "b 3 h w"]],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        fake = torch.cat(list(frames))
        real = batch.frames[:, : len(frames)].transpose(0, 1).flatten(0, 1)
        out = {"pixels": self.config.pixels * (fake - real).abs().mean()}
        if self.perceptual is not None and self.config.perceptual:
            a, b = random_windows(fake, real, size=self.config.window, generator=generator)
            out["lpips"] = self.config.perceptual * self.perceptual(a, b).mean()
        return out

    def _adversarial_losses(
        self,
        batch: ClipBatch,
        fake: Float[Tensor, "b n 3 h w"],
        losses: Mapping[str, Tensor],
        *,
        number: int,
    ) -> dict[str, Tensor]:
        if self.adversaries is None:
            return {}
        pictures = [losses[name] for name in ("pixels", "lpips") if name in losses]
        return self.adversaries.generator_losses(
            batch.frames[:, : fake.shape[1]],
            fake,
            batch.x0,
            reconstruction=torch.stack(pictures).sum(),
            last=self.model.painter.leave.weight,
            number=number,
        )

    def averaged(self) -> "_Averaged":
        return _Averaged(self)


def _require_frames(model: Stage1, config: Stage1Training) -> None:
    if config.frames > model.config.num_frames:
        raise UserError(
            f"frames must be at most the model's num_frames, {model.config.num_frames}, got "
            f"{config.frames}: render fewer"
        )


def _choose_trained(model: Stage1, config: Stage1Training) -> None:
    """Set which parameters a phase trains."""
    model.requires_grad_(requires_grad=config.phase != "mask")
    model.scene.backbone.requires_grad_(requires_grad=False)
    model.mask.requires_grad_(requires_grad=True)
    # Stage 2 reads both: frozen, it can be trained beside the later phases.
    moves_latents = config.phase == "motion" or (config.phase == "picture" and config.train_encoder)
    model.encoder.requires_grad_(requires_grad=moves_latents)
    model.scene.join.requires_grad_(requires_grad=moves_latents)


def _on_grid(mask: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(mask, GRID)


class _Averaged:
    """The model with its averaged weights, in float32, for the time of a `with` block."""

    def __init__(self, step: _Step) -> None:
        self.step = step

    def __enter__(self) -> None:
        self.step.average.exchange()
        self.step.master.restore()
        self.step.model.eval()

    def __exit__(self, *_: object) -> None:
        self.step.average.exchange()
        self.step.model.to(self.step.dtype).train()
        self.step.master.publish()
