"""Training of stage 1: first the motion, then the picture, last the mask.

Phase "motion" needs no frames but x0: flow volumes go through z and come back, and the mask learns
what moves. Phase "picture" renders a later frame of each clip as well, or some in a row, compares
pixels, and may set discriminators on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.crop_batches import ClipBatch, ClipBatches
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.rendering import Layers, cut
from cinnema.models.warping.stage1 import Stage1
from cinnema.training.adversarial import DiscriminatorsConfig
from cinnema.training.loop import Rendered, Step, fit, from_the_start, known_by, trial_of
from cinnema.training.losses import (
    PerceptualDistance,
    mask_loss,
    motion_loss,
    random_windows,
    roughness,
)

Validate = Callable[[Stage1], dict[str, float]]
"""Scores the model on held-out scenes; it comes in float32, on the device of training."""

Show = Callable[[Stage1, Path], object]
"""Draws what the model makes of held-out scenes into a PNG file."""

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
        ValueError: Discriminators are of a phase without frames, or need more of them.
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
    adversaries: DiscriminatorsConfig | None = None
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
    _require_frames(model, config)
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks)
    later = ("frames", "adversaries")
    about = {
        "model": config_to_dict(model.config),
        "training": known_by(config, Stage1Training(), later=later),
    }
    fit(
        step,
        batches,
        folder=folder,
        about=about,
        validate=validate,
        show=show,
        tensorboard=tensorboard,
    )
    return model


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

    Discriminators take part from the first step on, whenever they would begin.

    Args:
        model: Stage 1; trained.
        batch: This rank's share of a batch as large as the config says.
        config: How.
        device: Where to compute.
        perceptual: LPIPS on that device.
        ranks: The processes that train.
    """
    _require_frames(model, config)
    config = replace(config, adversaries=from_the_start(config.adversaries))
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks)
    return trial_of(step, batch)


class _Step(Step[Stage1, ClipBatch, Stage1Training]):
    """Flow, mask and frames of clips, by the phase."""

    def choose_trained(self) -> None:
        model, config = self.model, self.config
        model.requires_grad_(requires_grad=config.phase != "mask")
        model.scene.backbone.requires_grad_(requires_grad=False)
        model.mask.requires_grad_(requires_grad=True)
        # Stage 2 reads both: frozen, it can be trained beside the later phases.
        is_picture = config.phase == "picture"
        moves_latents = config.phase == "motion" or (is_picture and config.train_encoder)
        model.encoder.requires_grad_(requires_grad=moves_latents)
        model.scene.join.requires_grad_(requires_grad=moves_latents)

    def last_layer(self) -> Tensor:
        return self.model.painter.leave.weight

    def names(self, batch: ClipBatch) -> tuple[str, ...]:
        return batch.ids

    def losses(
        self, batch: ClipBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered | None]:
        model, config, batch = self.model, self.config, batch.to(self.device)
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
        out |= self._picture_losses(batch, frames, generator)
        real = batch.frames[:, : len(frames)]
        return out, Rendered(real, torch.stack(frames, dim=1), batch.x0)

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


def _require_frames(model: Stage1, config: Stage1Training) -> None:
    if config.frames > model.config.num_frames:
        raise UserError(
            f"frames must be at most the model's num_frames, {model.config.num_frames}, got "
            f"{config.frames}: render fewer"
        )


def _on_grid(mask: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(mask, GRID)
