"""Training of stage 1: first the motion, then the picture.

Phase "motion" needs no frames but x0: flow volumes go through z and come back, and the mask learns
what moves. Phase "picture" renders one later frame of each clip as well and compares pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.config import config_to_dict
from cinnema.core.precision import MasterWeights, MovingAverage, fast_dtype
from cinnema.core.running import TrainingRun, warmup_cosine
from cinnema.data.clips import ClipBatch
from cinnema.stage1.losses import (
    PerceptualDistance,
    mask_loss,
    motion_loss,
    random_windows,
    roughness,
)
from cinnema.stage1.model import Stage1
from cinnema.stage1.rendering import cut

Validate = Callable[[Stage1], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Stage1Training:
    """How stage 1 is trained.

    Attributes:
        phase: "motion" trains flow, z and mask; "picture" adds rendered frames.
        clips: Clips seen before the run ends.
        batch_size: Clips in a step.
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
        seed: Of every draw.
    """

    phase: Literal["motion", "picture"] = "motion"
    clips: int = Field(150_000, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    roughness: float = Field(0.3, ge=0)
    mask: float = Field(0.3, ge=0)
    pixels: float = Field(4.0, ge=0)
    perceptual: float = Field(3.0, ge=0)
    network: Literal["vgg", "alex"] = "vgg"
    window: int = Field(64, ge=32)
    train_encoder: bool = False
    seed: int = 0


def train(
    model: Stage1,
    batches: Iterator[ClipBatch],
    config: Stage1Training,
    *,
    folder: Path,
    device: torch.device,
    perceptual: PerceptualDistance | None = None,
    validate: Validate | None = None,
) -> Stage1:
    """Train `model` in place, resuming what `folder` holds, and return it with averaged weights.

    Args:
        model: Stage 1; for phase "picture", one that phase "motion" has trained.
        batches: Endless batches of clips.
        config: How.
        folder: Of the run.
        device: Where to compute.
        perceptual: LPIPS on that device, needed in phase "picture".
        validate: Called with the averaged model now and then; its numbers are recorded.
    """
    step = _Step(model, config, device=device, perceptual=perceptual)
    about = {"model": config_to_dict(model.config), "training": config_to_dict(config)}
    with TrainingRun(folder, config=about, parts=step.parts(), total=config.clips) as run:
        while not run.is_done:
            rate = config.learning_rate * warmup_cosine(run.progress)
            numbers = step(next(batches), rate)
            number = run.clips // config.batch_size
            run.advance(config.batch_size)
            if number % 50 == 0:
                run.record(**{name: float(value) for name, value in numbers.items()})
            if validate is not None and (number % 1000 == 999 or run.is_done):
                with step.averaged():
                    run.record(**validate(model))
    step.average.exchange()
    step.master.publish()
    return model.float()


class _Step:
    """One step of the optimiser, with everything that it changes."""

    def __init__(
        self,
        model: Stage1,
        config: Stage1Training,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None,
    ) -> None:
        self.config, self.device, self.perceptual = config, device, perceptual
        self.dtype = fast_dtype(device)
        self.model = model.to(device, self.dtype, memory_format=torch.channels_last)
        if config.phase == "picture" and not config.train_encoder:
            # Stage 2 reads both: frozen, it can be trained beside this phase.
            model.encoder.requires_grad_(requires_grad=False)
            model.scene.join.requires_grad_(requires_grad=False)
        self.master = MasterWeights(model)
        self.average = MovingAverage(self.master.parameters, decay=config.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.master.parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
        )
        self.generator = torch.Generator().manual_seed(config.seed)

    def parts(self) -> dict[str, "Stage1 | torch.optim.Optimizer | MovingAverage"]:
        return {"model": self.model, "optimiser": self.optimiser, "average": self.average}

    def __call__(self, batch: ClipBatch, learning_rate: float) -> dict[str, Tensor]:
        self.model.train()
        batch = batch.to(self.device)
        losses = self.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        self.master.take_gradients()
        torch.nn.utils.clip_grad_norm_(self.master.parameters, 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update()
        self.master.publish()
        return {name: value.detach() for name, value in losses.items()}

    def losses(self, batch: ClipBatch) -> dict[str, Tensor]:
        model, config = self.model, self.config
        x0 = batch.x0.to(self.dtype, memory_format=torch.channels_last)
        flow = batch.flow.to(self.dtype)
        z = model.encode(flow)
        noise = torch.randn(z.shape, generator=self.generator).to(z)
        features = model.scene(x0)
        coefficients = model.motion(z + model.config.noise * noise, features.joint)
        logits = model.mask(features.joint, features.fine)
        moves = torch.sigmoid(logits)
        predicted = model.basis.clip(coefficients)
        seen = predicted * functional.adaptive_avg_pool2d(moves, flow.shape[-2:])[:, :, None]
        out = {
            "flow": motion_loss(seen.float(), batch.flow),
            "mask": config.mask * mask_loss(logits.float(), batch.moving, batch.known),
            "rough": config.roughness * roughness(coefficients.float()) / 0.02,
        }
        if config.phase == "picture":
            out |= self._picture_losses(batch, x0, moves, coefficients)
        return out

    def _picture_losses(
        self,
        batch: ClipBatch,
        x0: Float[Tensor, "b 3 h w"],
        moves: Float[Tensor, "b 1 _ _"],
        coefficients: Float[Tensor, "b k 2 g g"],
    ) -> dict[str, Tensor]:
        frame = self.model.frame(
            cut(x0, moves), self.model.basis.at(coefficients, batch.times[:, 0])
        ).float()
        target = batch.frames[:, 0]
        out = {"pixels": self.config.pixels * (frame - target).abs().mean()}
        if self.perceptual is not None and self.config.perceptual:
            a, b = random_windows(
                frame, target, size=self.config.window, generator=self.generator
            )
            out["lpips"] = self.config.perceptual * self.perceptual(a, b).mean()
        return out

    def averaged(self) -> "_Averaged":
        return _Averaged(self)


class _Averaged:
    """The model with its averaged weights, for the time of a `with` block."""

    def __init__(self, step: _Step) -> None:
        self.step = step

    def __enter__(self) -> None:
        self.step.average.exchange()
        self.step.master.publish()
        self.step.model.eval()

    def __exit__(self, *_: object) -> None:
        self.step.average.exchange()
        self.step.master.publish()
        self.step.model.train()
