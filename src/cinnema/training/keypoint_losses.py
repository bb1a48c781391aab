"""The losses of a keypoint stage 1, and their configuration.

Both phases render frames at a few times of each clip, and compare pixels and landmarks; phase
"picture" adds a perceptual distance and, if configured, discriminators.
"""

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.data.loader import VideoBatch
from cinnema.models.keypoint.decoder import SceneFeatures
from cinnema.models.keypoint.encoder import PointClipEncoder, Seen
from cinnema.models.keypoint.keypoints import SymmetricLimbs, map_distance, sort_symmetric
from cinnema.models.keypoint.stage1 import (
    LANDMARK_UNIT,
    KeypointStage1,
    Moments,
    Posterior,
)
from cinnema.training.adversarial import DiscriminatorsConfig
from cinnema.training.loop import Schedule
from cinnema.training.losses import PerceptualDistance

# Scales a divergence in nats to the size of distances in tenths of an image width.
_MAP_WEIGHT = 0.1
# Smallest change of a colour, which ranges from -1 to 1, by which a pixel counts as moved.
_MOVED = 0.1
_VALIDATE_EVERY = 1000  # steps

Weight = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointTraining:
    """The training of one phase of a keypoint stage 1.

    Attributes:
        phase: "motion" trains on pixels and landmarks; "picture" adds LPIPS.
        clips: Clips seen before the training ends.
        batch_size: Clips per step, over all ranks.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        ema_decay: Decay of the moving average of the weights, which is what is kept.
        pixels: Weight of the L1 distance of frames.
        perceptual: Weight of LPIPS.
        network: Network of LPIPS: "vgg", which evaluations report, or "alex", 20 times cheaper.
        train_encoder: Whether phase "picture" also trains the networks that stage 2 depends on: the
            encoder of z and the features of x0.
        discriminators: Discriminators of the rendered frames; None for none.
        seed: Seed of all random draws.
        moments: Frames rendered of each clip, at random times spread over the clip; consecutive
            with a temporal discriminator.
        moved: Additional weight of pixels that differ from x0.
        warped: Weight of the L1 distance of warped frames, before the gate mixes in the decoder's
            own pixels.
        landmarks: Weight of the distances of the landmarks' paths and of their positions in x0, in
            tenths of their unit.
        symmetric_keypoints: Pairs of limbs that look alike, such as the arms, each limb given by
            the indices of its points: the limb further left in x0 counts as first. For landmarks
            that are points of the image, x and y in turn.
        teacher_forcing: Share of clips that are rendered with their true points instead of the
            decoded ones, so that the decoder does not wait for the encoder; for landmarks that are
            points.
        kl: Weight of KL(q(z | X) || N(0, I)), summed over z, for models that learn the variance
            of q.

    Raises:
        UserError: Discriminators need more frames.
    """

    phase: Literal["motion", "picture"] = "motion"
    clips: int = Field(default=60_000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: Weight = 0.02
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    pixels: Weight = 4.0
    perceptual: Weight = 0.0
    network: Literal["vgg", "alex"] = "alex"
    train_encoder: bool = False
    discriminators: DiscriminatorsConfig | None = None
    seed: int = Field(default=0, ge=0)
    moments: int = Field(default=3, ge=1)
    moved: Weight = 4.0
    warped: Weight = 0.5
    landmarks: Weight = 1.0
    symmetric_keypoints: SymmetricLimbs = ()
    teacher_forcing: float = Field(default=0.0, ge=0, le=1)
    kl: Weight = 1e-4

    def __post_init__(self) -> None:
        if self.in_a_row and self.moments < 2:
            raise UserError(
                "moments must be at least 2 for a temporal discriminator, got 1: render more, or "
                "leave it out"
            )

    @property
    def in_a_row(self) -> bool:
        """Whether the rendered frames of a clip are consecutive."""
        return self.discriminators is not None and self.discriminators.needs_motion

    @property
    def uses_lpips(self) -> bool:
        """Whether frames are compared by LPIPS."""
        return self.perceptual > 0

    def schedule(self) -> Schedule:
        """Return the schedule of the training."""
        return Schedule(
            clips=self.clips,
            batch_size=self.batch_size,
            validate_every=_VALIDATE_EVERY * self.batch_size,
        )


class Rendered(NamedTuple):
    """Rendered frames and the real ones.

    Attributes:
        real: Real frames in [-1, 1]; consecutive where a discriminator is temporal.
        fake: The rendered frames in float32, with their graph.
        x0: The first frames of their clips.
    """

    real: Float[Tensor, "b n 3 h w"]
    fake: Float[Tensor, "b n 3 h w"]
    x0: Float[Tensor, "b 3 h w"]


class KeypointLosses:
    """The losses of a batch of clips.

    Args:
        model: The stage 1 that is trained.
        config: Weights of the losses, and the frames that are rendered.
        share: This rank's part of a batch.
        dtype: Floating-point format of the model's weights while it is trained.
        perceptual: LPIPS in float32, on the model's device; None for no perceptual loss.
    """

    def __init__(
        self,
        model: KeypointStage1,
        config: KeypointTraining,
        *,
        share: slice,
        dtype: torch.dtype,
        perceptual: PerceptualDistance | None = None,
    ) -> None:
        self.model, self.config = model, config
        self.share, self.dtype, self.perceptual = share, dtype, perceptual

    def __call__(
        self, batch: VideoBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered]:
        """Return the weighted losses of the rendered frames and of the landmarks, and the frames.

        Args:
            batch: This rank's clips, on the model's device, float32.
            generator: Draws for the whole batch, of which the rank takes its `share`.

        Returns:
            Losses by name, whose means over the ranks are those of the whole batch; and the frames
            that were rendered for them.
        """
        model, config = self.model, self.config
        draws = self._draw(generator, batch.video.device)
        video = batch.video.to(self.dtype)
        seen = model.look(video)
        code = model.posterior(seen.vectors)
        scene = model.scene(video[:, 0].contiguous(memory_format=torch.channels_last))
        places = sort_symmetric(batch.track, config.symmetric_keypoints)
        render = self._rendered_by_points if model.config.points else self._rendered_by_z
        made, losses = render(scene, code, draws, places)
        real = _rows(batch.video, draws.shown)
        losses |= self._pixel_losses(made, real, batch.video[:, :1], generator)
        if code.log_variance is not None:
            losses["kl"] = config.kl * code.divergence().mean()
        if model.config.landmarks:
            losses |= self._sight_losses(seen, scene, places)
        return losses, Rendered(real, made.frames.float(), batch.video[:, 0])

    def _draw(self, generator: torch.Generator, device: torch.device) -> "_Draws":
        """Make the random draws of the whole batch, and return this rank's part."""
        config, shape = self.config, self.model.config
        shown = draw_moments(config, num_frames=shape.num_frames, generator=generator)
        noise = torch.randn((config.batch_size, shape.z_dim), generator=generator)
        chance = torch.zeros(config.batch_size)
        if shape.points:
            chance = torch.rand(config.batch_size, generator=generator)
        parts = (shown, noise, chance < config.teacher_forcing)
        return _Draws(*(part[self.share].to(device) for part in parts))

    def _rendered_by_z(
        self, scene: SceneFeatures, code: Posterior, draws: "_Draws", places: Float[Tensor, "b t l"]
    ) -> tuple[Moments, dict[str, Tensor]]:
        """Render frames from z of the pixels, which also has to decode to the landmarks' path."""
        model = self.model
        made = model.at(scene, code.sample(draws.noise), draws.shown / model.config.num_frames)
        if not model.config.landmarks:
            return made, {}
        error = _landmark_distance(made.landmarks, _rows(places - places[:, :1], draws.shown))
        return made, {"landmarks": self.config.landmarks * error}

    def _rendered_by_points(
        self, scene: SceneFeatures, code: Posterior, draws: "_Draws", places: Float[Tensor, "b t l"]
    ) -> tuple[Moments, dict[str, Tensor]]:
        """Render frames, of some clips with their true points; and train both encoders.

        z of the true path is trained to decode to that path, and z of the pixels to equal it.
        """
        model, weight = self.model, self.config.landmarks
        num_frames = model.config.num_frames
        true = model.encode_path(places)
        known = Posterior(true, None, code.noise).sample(draws.noise)
        every = torch.arange(1, num_frames + 1, device=places.device) / num_frames
        path = model.path(known, every.expand(len(true), -1))
        apart = (code.mean.float() - true.detach().float()).square().mean()
        losses = {
            "landmarks": weight * _landmark_distance(path, places[:, 1:] - places[:, :1]),
            "latent": weight * apart,
        }
        times, forced = draws.shown / num_frames, draws.forced[:, None]
        z = torch.where(forced, known, code.sample(draws.noise))
        decoded = model.landmarks(scene, model.path(z, times))
        real = torch.cat([places[:, :1], _rows(places, draws.shown)], dim=1).to(decoded)
        return model.at(scene, z, times, torch.where(forced[..., None], real, decoded)), losses

    def _sight_losses(
        self, seen: Seen, scene: SceneFeatures, places: Float[Tensor, "b t l"]
    ) -> dict[str, Tensor]:
        """Return the errors of the landmarks found in single frames, and in x0 by the decoder."""
        model, weight = self.model, self.config.landmarks
        if seen.maps is None:
            path = places - places[:, :1]
            paths = _landmark_distance(model.seen_path(seen.vectors), path[:, 1:])
            start = _landmark_distance(model.places(scene), places[:, 0])
        else:
            points = places.unflatten(2, (-1, 2))
            assert isinstance(model.encoder, PointClipEncoder)
            looked_at = points[:, list(model.encoder.looked_at)]
            paths = _MAP_WEIGHT * map_distance(seen.maps, looked_at)
            start = _MAP_WEIGHT * map_distance(model.place_maps(scene), points[:, 0])
        return {"seen": weight * paths, "places": weight * start}

    def _pixel_losses(
        self,
        made: Moments,
        true: Float[Tensor, "b n 3 h w"],
        x0: Float[Tensor, "b 1 3 h w"],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        config = self.config
        moved = ((true - x0).abs().mean(dim=2, keepdim=True) > _MOVED).float()
        weight = 1 + config.moved * moved
        frames = made.frames.float()
        out = {"pixels": config.pixels * ((frames - true).abs() * weight).mean()}
        if config.warped and self.model.config.decoder == "warp and paint":
            out["warped"] = config.warped * ((made.warped.float() - true).abs() * weight).mean()
        if config.perceptual and self.perceptual is not None:
            one = int(torch.randint(frames.shape[1], (), generator=generator))
            distance = self.perceptual(frames[:, one], true[:, one])
            out["lpips"] = config.perceptual * distance.mean()
        return out


class _Draws(NamedTuple):
    """The random draws of a step, one row for each clip.

    Attributes:
        shown: Numbers of the frames to render, from 1 to T.
        noise: Standard normal noise for z.
        forced: Whether a clip is rendered with its true points.
    """

    shown: Int64[Tensor, "b n"]
    noise: Float[Tensor, "b z"]
    forced: Bool[Tensor, " b"]


def _rows(x: Shaped[Tensor, "b t ..."], shown: Int64[Tensor, "b n"]) -> Shaped[Tensor, "b n ..."]:
    """Return the rows `shown` of each clip."""
    return x[torch.arange(len(x), device=x.device)[:, None], shown]


def draw_moments(
    config: KeypointTraining, *, num_frames: int, generator: torch.Generator
) -> Int64[Tensor, "b n"]:
    """Draw which frames of each clip to render, from 1 to T.

    Each clip is divided into n equal parts, and a frame is drawn from each; for a temporal
    discriminator they are n consecutive frames instead.

    Args:
        config: Number of clips in a batch, and of frames per clip.
        num_frames: T, the frames after x0.
        generator: Draws the frames.
    """
    if config.in_a_row:
        starts = num_frames - config.moments + 1
        first = torch.randint(starts, (config.batch_size, 1), generator=generator)
        shown: Tensor = first + torch.arange(config.moments) + 1
        return shown
    place = torch.rand((config.batch_size, config.moments), generator=generator)
    share = (torch.arange(config.moments) + place) / config.moments
    return (share * num_frames).long().clamp(max=num_frames - 1) + 1


def _landmark_distance(predicted: Tensor, true: Tensor) -> Tensor:
    a, b = predicted.float() / LANDMARK_UNIT, true / LANDMARK_UNIT
    return functional.smooth_l1_loss(a, b, beta=0.1)
