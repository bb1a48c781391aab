"""Training of the warping stage 1 in three phases: motion, picture and mask.

Phase "motion" auto-encodes flow volumes through z, and trains the mask of moving regions; the only
frame it reads is x0. Phase "picture" also renders later frames of each clip, and compares them with
the real ones. Phase "mask" trains the mask alone.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.efficientnet import EfficientNetLite0
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.crop_batches import ClipBatch
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.model import WarpingModel, WarpingModelConfig
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.rendering import Layers, cut
from cinnema.models.warping.stage1 import Stage1, Stage1Config
from cinnema.training.latent_pool import LatentPool, encode_drifting
from cinnema.training.losses import (
    PerceptualDistance,
    mask_loss,
    motion_loss,
    random_windows,
    roughness,
)
from cinnema.training.recipe import Recipe
from cinnema.training.stage2 import Stage2Training
from cinnema.training.video_step import Rendered, VideoStep, VideoTraining, Weight

# Unit of the second differences of the flow, in image widths.
_ROUGHNESS_UNIT = 0.02


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class WarpingTraining(VideoTraining):
    """The training of one phase of a warping stage 1.

    Attributes:
        phase: "motion" trains flow, z and mask; "picture" adds rendered frames; "mask" trains only
            the mask.
        roughness: Weight of the flow's second differences.
        mask: Weight of the mask's cross-entropy.
        window: Side of the window on which LPIPS is computed, in pixels.
        frames: Consecutive frames rendered of each clip in phase "picture"; batches must have them.

    Raises:
        ValueError: There are discriminators in a phase without frames, or they need more frames.
    """

    phase: Literal["motion", "picture", "mask"] = "motion"
    clips: int = Field(default=150_000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    roughness: Weight = 0.3
    mask: Weight = 0.3
    perceptual: Weight = 3.0
    network: Literal["vgg", "alex"] = "vgg"
    window: int = Field(default=64, ge=32)
    frames: int = Field(default=1, ge=1)

    def __post_init__(self) -> None:
        if self.discriminators is None:
            return
        if self.phase != "picture":
            raise UserError(
                f'discriminators need phase "picture", which renders frames, got "{self.phase}": '
                "leave them out"
            )
        if self.discriminators.needs_motion and self.frames < 2:
            raise UserError(
                "frames must be at least 2 for a temporal discriminator, got 1: render more, or "
                "leave it out"
            )

    @property
    def uses_lpips(self) -> bool:
        """Whether frames are compared by LPIPS."""
        return self.phase == "picture" and self.perceptual > 0

    @property
    def num_rendered(self) -> int:
        """Frames after x0 that the phase needs of each clip."""
        return self.frames if self.phase == "picture" else 0


class WarpingStep(VideoStep[Stage1, ClipBatch, WarpingTraining]):
    """A step on flow, mask and frames, depending on the phase; see `VideoStep`."""

    def choose_trained(self) -> None:
        """Freeze the backbone, in phase "mask" all but the mask, and latents once they are done."""
        model, config = self.networks, self.config
        if config.frames > model.config.num_frames:
            raise UserError(
                f"frames must be at most the model's num_frames, {model.config.num_frames}, got "
                f"{config.frames}: render fewer"
            )
        model.requires_grad_(requires_grad=config.phase != "mask")
        model.scene.backbone.requires_grad_(requires_grad=False)
        model.mask.requires_grad_(requires_grad=True)
        # Stage 2 depends on both; while they are frozen, it can be trained in parallel.
        is_picture = config.phase == "picture"
        moves_latents = config.phase == "motion" or (is_picture and config.train_encoder)
        model.encoder.requires_grad_(requires_grad=moves_latents)
        model.scene.join.requires_grad_(requires_grad=moves_latents)

    def last_layer(self) -> Tensor:
        """Return the weight of the layer that outputs the corrections of warped frames."""
        return self.networks.painter.leave.weight

    def losses(
        self, batch: ClipBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered | None]:
        """Return the losses of flow, mask and frames, as the phase requires."""
        model, config, batch = self.networks, self.config, batch.to(self.device)
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
        """Render the first `config.frames` of the frames that the batch has."""
        flows = (self.networks.basis.at(coefficients, t) for t in times.T[: self.config.frames])
        return [self.networks.frame(layers, flow).float() for flow in flows]

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


def _on_grid(mask: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(mask, GRID)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CropData:
    """The training data of a warping model: crops of real scenes, and synthetic skies.

    Attributes:
        textures: Textures of the real scenes, and the weight with which each is drawn.
        excluded: Names of scenes that are left out, because their camera moves.
        crops: Clips cut from each training scene.
        validation_crops: Clips cut from each validation scene.
        sky_share: Share of synthetic skies in a batch, from 0 to 1.
    """

    textures: dict[str, Annotated[float, Field(ge=0)]]
    excluded: tuple[str, ...] = ()
    crops: int = Field(default=200, ge=1)
    validation_crops: int = Field(default=48, ge=1)
    sky_share: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class WarpingRecipe(Recipe):
    """The recipe of a model that warps the photograph.

    Attributes:
        name: Name of the weights.
        data: The training data.
        stage1: Configuration of stage 1.
        motion: Training of stage 1, first phase.
        picture: Training of stage 1, second phase.
        mask: Training of stage 1, last phase.
        conditioner: Configuration of the conditioner of the flow.
        flow: Configuration of the flow.
        stage2: Training of conditioner and flow.

    Raises:
        UserError: A training has the phase of another field, or sizes do not fit each other.
    """

    name: str
    data: CropData
    stage1: Stage1Config
    motion: WarpingTraining
    picture: WarpingTraining
    mask: WarpingTraining
    conditioner: ConditionerConfig
    flow: FlowConfig
    stage2: Stage2Training

    def __post_init__(self) -> None:
        self.require_phases("motion", "picture", "mask")
        for name, value, other, wanted in (
            ("flow.z_dim", self.flow.z_dim, "stage1.z_dim", self.stage1.z_dim),
            (
                "flow.condition_dim",
                self.flow.condition_dim,
                "the length of the conditioner's output",
                self.conditioner.out_dim,
            ),
            (
                "conditioner.feature_dim",
                self.conditioner.feature_dim,
                "stage1.feature_dim",
                self.stage1.feature_dim,
            ),
        ):
            if value != wanted:
                raise UserError(f"{name} must be {other}, {wanted}, got {value}: change both")

    @property
    def phases(self) -> tuple[WarpingTraining, ...]:
        """The trainings of stage 1, in order."""
        return (self.motion, self.picture, self.mask)

    def new_stage1(self, *, seed: int = 0) -> Stage1:
        """Build stage 1 with initial weights, on a backbone trained on ImageNet.

        Args:
            seed: Seed of the weights; torch's global random state is not changed.

        Raises:
            UserError: The package with the backbone's weights is not installed.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Stage1(self.stage1)
            backbone = EfficientNetLite0.imagenet().fold_batch_norm()
        model.scene.backbone.load_state_dict(backbone.state_dict())
        return model

    def new_step(
        self,
        stage1: Stage1,
        training: WarpingTraining,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        ranks: Ranks | None = None,
    ) -> WarpingStep:
        """Return the step of one phase."""
        return WarpingStep(stage1, training, device=device, perceptual=perceptual, ranks=ranks)

    def encode(self, stage1: Stage1, batch: ClipBatch) -> LatentPool:
        """Encode a batch of clips for stage 2; the control is the drift."""
        return encode_drifting(stage1, batch)

    def new_model(self) -> WarpingModel:
        """Build the model of both stages, with random weights."""
        return WarpingModel(
            WarpingModelConfig(
                name=self.name, stage1=self.stage1, conditioner=self.conditioner, flow=self.flow
            )
        )
