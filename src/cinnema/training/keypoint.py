"""Training of the keypoint stage 1.

Both phases render frames at a few times of each clip, and compare pixels and landmarks; phase
"picture" adds a perceptual distance and, if configured, discriminators.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.augmentation import Augmentation
from cinnema.data.loader import VideoBatch
from cinnema.models.flow.conditioning import ConditionerConfig, pool_features
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.decoder import SceneFeatures
from cinnema.models.keypoint.encoder import PointClipEncoder, Seen
from cinnema.models.keypoint.keypoints import SymmetricLimbs, map_distance, sort_symmetric
from cinnema.models.keypoint.model import EndPointRange, KeypointModel, KeypointModelConfig
from cinnema.models.keypoint.stage1 import (
    LANDMARK_UNIT,
    KeypointConfig,
    KeypointStage1,
    Moments,
    Posterior,
)
from cinnema.training.latent_pool import LatentPool
from cinnema.training.losses import PerceptualDistance
from cinnema.training.recipe import Recipe
from cinnema.training.stage2 import Stage2Training
from cinnema.training.video_step import Rendered, VideoStep, VideoTraining, Weight

# Scales a divergence in nats to the size of distances in tenths of an image width.
_MAP_WEIGHT = 0.1
# Smallest change of a colour, which ranges from -1 to 1, by which a pixel counts as moved.
_MOVED = 0.1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointTraining(VideoTraining):
    """The training of one phase of a keypoint stage 1.

    Attributes:
        phase: "motion" trains on pixels and landmarks; "picture" adds LPIPS.
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


class KeypointStep(VideoStep[KeypointStage1, VideoBatch, KeypointTraining]):
    """A step on frames and landmarks at some times of each clip; see `VideoStep`."""

    def choose_trained(self) -> None:
        """In phase "picture", freeze what stage 2 depends on, unless the encoder is trained."""
        model, config = self.networks, self.config
        if config.in_a_row and config.moments > model.config.num_frames:
            raise UserError(
                f"moments must be at most the model's num_frames, {model.config.num_frames}, for a "
                f"temporal discriminator, got {config.moments}: render fewer"
            )
        model.requires_grad_(requires_grad=True)
        # Stage 2 depends on these parts; while they are frozen, it can be trained in parallel.
        moves_latents = config.phase == "motion" or config.train_encoder
        for part in model.latent_parts().values():
            part.requires_grad_(requires_grad=moves_latents)

    def last_layer(self) -> Tensor:
        """Return the weight of the layer that outputs the frames."""
        return self.networks.decoder.last

    def losses(
        self, batch: VideoBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered]:
        """Return the losses of the rendered frames and of the landmarks."""
        model, config, batch = self.networks, self.config, batch.to(self.device)
        draws = self._draw(generator)
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

    def _draw(self, generator: torch.Generator) -> "_Draws":
        """Make the random draws of the whole batch, and return this rank's part."""
        config, shape = self.config, self.networks.config
        shown = draw_moments(config, num_frames=shape.num_frames, generator=generator)
        noise = torch.randn((config.batch_size, shape.z_dim), generator=generator)
        chance = torch.zeros(config.batch_size)
        if shape.points:
            chance = torch.rand(config.batch_size, generator=generator)
        parts = (shown, noise, chance < config.teacher_forcing)
        return _Draws(*(part[self.share].to(self.device) for part in parts))

    def _rendered_by_z(
        self, scene: SceneFeatures, code: Posterior, draws: "_Draws", places: Float[Tensor, "b t l"]
    ) -> tuple[Moments, dict[str, Tensor]]:
        """Render frames from z of the pixels, which also has to decode to the landmarks' path."""
        model = self.networks
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
        model, weight = self.networks, self.config.landmarks
        num_frames = model.config.num_frames
        true = model.encode_path(places)
        known = Posterior(true, None, code.noise).sample(draws.noise)
        every = torch.arange(1, num_frames + 1, device=self.device) / num_frames
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
        model, weight = self.networks, self.config.landmarks
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
        if config.warped and self.networks.config.decoder == "warp and paint":
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


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointData:
    """The data of a keypoint model, from a packed data set.

    Attributes:
        landmarks: Name of the track with the landmarks, of the length of stage 1's; None for none.
        augmentation: Augmentation of the clips.
        validation_clips: Windows of held-out clips that are scored.
    """

    landmarks: str | None = None
    augmentation: Augmentation = Augmentation()
    validation_clips: int = Field(default=64, ge=2)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointRecipe(Recipe):
    """The recipe of a keypoint model.

    Attributes:
        name: Name of the weights.
        data: The training data.
        stage1: Configuration of stage 1.
        motion: Training of stage 1, first phase.
        picture: Training of stage 1, second phase.
        conditioner: Configuration of the conditioner of the flow.
        flow: Configuration of the flow.
        stage2: Training of conditioner and flow.
        end_point: Range of the end points that can be requested; None for a model without control.

    Raises:
        UserError: A training has the phase of another field, or sizes do not fit each other.
    """

    name: str
    data: KeypointData
    stage1: KeypointConfig
    motion: KeypointTraining
    picture: KeypointTraining
    conditioner: ConditionerConfig
    flow: FlowConfig
    stage2: Stage2Training
    end_point: EndPointRange | None = None

    def __post_init__(self) -> None:
        self.require_phases("motion", "picture")
        if bool(self.data.landmarks) != bool(self.stage1.landmarks):
            raise UserError(
                f"data.landmarks is {self.data.landmarks} and stage1.landmarks "
                f"{self.stage1.landmarks}: name a track and its length, or neither"
            )
        self.model_config()

    @property
    def phases(self) -> tuple[KeypointTraining, ...]:
        """The trainings of stage 1, in order."""
        return (self.motion, self.picture)

    def new_stage1(self, *, seed: int = 0) -> KeypointStage1:
        """Build stage 1 with random weights.

        Args:
            seed: Seed of the weights; torch's global random state is not changed.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return KeypointStage1(self.stage1)

    def new_step(
        self,
        stage1: KeypointStage1,
        training: KeypointTraining,
        *,
        device: torch.device,
        perceptual: PerceptualDistance | None = None,
        ranks: Ranks | None = None,
    ) -> KeypointStep:
        """Return the step of one phase."""
        return KeypointStep(stage1, training, device=device, perceptual=perceptual, ranks=ranks)

    @torch.no_grad()
    def encode(self, stage1: KeypointStage1, batch: VideoBatch) -> LatentPool:
        """Encode a batch of clips for stage 2; the control is the end point, centred in its range.

        For landmarks that are points of the image, z is that of the true points instead of the
        pixels, so that errors of the clip encoder do not enter the distribution of motion.
        """
        video = batch.video.to(next(stage1.parameters()))
        joint = stage1.features(stage1.scene(video[:, 0]))
        has_control = self.end_point is not None
        centre = torch.tensor(() if self.end_point is None else self.end_point.centre)
        return LatentPool(
            joint=pool_features(joint).half().contiguous(),
            z=self._latent(stage1, video, batch).float(),
            eta=batch.control - centre if has_control else batch.control[:, :0],
            known=batch.confidence * float(has_control),
        )

    def _latent(
        self, stage1: KeypointStage1, video: Float[Tensor, "b t 3 h w"], batch: VideoBatch
    ) -> Float[Tensor, "b z"]:
        if stage1.config.points:
            track = batch.track.to(video.device)
            return stage1.encode_path(sort_symmetric(track, self.motion.symmetric_keypoints))
        return stage1.encode(video)

    def model_config(self) -> KeypointModelConfig:
        """Return the configuration of the model of both stages."""
        return KeypointModelConfig(
            name=self.name,
            stage1=self.stage1,
            conditioner=self.conditioner,
            flow=self.flow,
            end_point=self.end_point,
        )

    def new_model(self) -> KeypointModel:
        """Build the model of both stages, with random weights."""
        return KeypointModel(self.model_config())
