"""Training of the articulated stage 1: first the shape of motion, then the look of frames.

Phase "motion" compares pixels and landmarks of a few moments of each clip; phase "picture" goes on
with a perceptual distance and, where asked for, adversaries.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.models.keypoint.decoder import Scene
from cinnema.models.keypoint.encoder import PointClipEncoder, Seen
from cinnema.models.keypoint.keypoints import Twins, map_distance, sides_apart
from cinnema.models.keypoint.stage1 import (
    LANDMARK_UNIT,
    KeypointConfig,
    KeypointStage1,
    Moments,
    Posterior,
)
from cinnema.training.adversarial import DiscriminatorsConfig
from cinnema.training.loop import Rendered, Step, fit, from_the_start, known_by, trial_of
from cinnema.training.losses import PerceptualDistance

Validate = Callable[[KeypointStage1], dict[str, float]]
"""Scores the model on held-out clips; it comes in float32, on the device of training."""

Show = Callable[[KeypointStage1, Path], object]
"""Draws what the model makes of held-out clips into a PNG file."""

# Of a divergence in nats beside a distance in tenths of a picture.
_MAP_WEIGHT = 0.1
# Change of a level, of 2 from black to white, from which a pixel is said to have moved.
_MOVED = 0.1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointTraining:
    """How a phase is trained.

    Attributes:
        phase: "motion" trains everything on pixels and landmarks; "picture" compares how frames
            look as well.
        clips: Clips seen before the run ends.
        batch_size: Clips in a step, of all ranks together.
        moments: Frames rendered of each clip, at random moments spread over the clip; in a row
            where a temporal adversary looks at them.
        learning_rate: Of AdamW at its peak.
        weight_decay: Of AdamW.
        ema_decay: Of the weights that are kept.
        pixels: Weight of the L1 distance of frames.
        moved: How much more a pixel counts that is not what it was in x0.
        warped: Weight of the L1 distance of what is warped only, where the gate leaves it.
        landmarks: Weight of the distance of the landmarks' paths, and of where they are in x0, in
            tenths of their unit.
        twins: Pairs of limbs that look alike, as a left and a right arm do, each the numbers of its
            points: the one further left in x0 is taken for the first. Such landmarks are points
            in the picture, x and y in turn.
        guided: Share of clips whose points are drawn where they truly are, so that the decoder
            need not wait for an encoder that finds them; of landmarks that are points.
        perceptual: Weight of LPIPS, of one moment of each clip.
        train_encoder: Whether phase "picture" still moves what stage 2 stands on: the encoder of z
            and the features of x0.
        network: Of LPIPS.
        kl: Weight of KL(q(z | X) || N(0, I)), summed over z, where the spread of q is learned.
        adversaries: Discriminators of the rendered frames, or None.
        seed: Of every draw.

    Raises:
        UserError: Discriminators need more moments.
    """

    phase: Literal["motion", "picture"] = "motion"
    clips: int = Field(default=60_000, ge=1)
    batch_size: int = Field(default=16, ge=1)
    moments: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    pixels: float = Field(default=4.0, ge=0)
    moved: float = Field(default=4.0, ge=0)
    warped: float = Field(default=0.5, ge=0)
    landmarks: float = Field(default=1.0, ge=0)
    twins: Twins = ()
    guided: float = Field(default=0.0, ge=0, le=1)
    perceptual: float = Field(default=0.0, ge=0)
    network: Literal["vgg", "alex"] = "alex"
    train_encoder: bool = False
    kl: float = Field(default=1e-4, ge=0)
    adversaries: DiscriminatorsConfig | None = None
    seed: int = Field(default=0, ge=0)

    def __post_init__(self) -> None:
        if self.in_a_row and self.moments < 2:
            raise UserError(
                "moments must be at least 2 for a temporal adversary, got 1: render more, or leave "
                "it out"
            )

    @property
    def in_a_row(self) -> bool:
        """Whether the moments of a clip follow one another."""
        return self.adversaries is not None and self.adversaries.needs_motion


def train(
    model: KeypointStage1,
    batches: ClipLoader,
    config: KeypointTraining,
    *,
    folder: Path,
    device: torch.device,
    perceptual: PerceptualDistance | None = None,
    validate: Validate | None = None,
    show: Show | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
) -> KeypointStage1:
    """Train `model` in place, resuming what `folder` holds, and return it with averaged weights.

    As with the warping stage 1, the draws of a step depend on the seed and its number only, and the
    clips go on from where the run was.

    Args:
        model: Stage 1; for phase "picture", one that phase "motion" has trained.
        batches: Windows of clips, with the landmarks' track if the model tells any; under several
            ranks, this rank's share.
        config: How.
        folder: Of the run.
        device: Where to compute.
        perceptual: LPIPS on that device, in float32; without it no perceptual distance counts.
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
    _require_moments(model, config)
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks)
    about = {
        "model": known_by(model.config, KeypointConfig(), later=("spread", "decoder", "points")),
        "training": known_by(
            config, KeypointTraining(), later=("kl", "adversaries", "train_encoder", "guided")
        ),
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
    batches.close()
    return model


def trial(
    model: KeypointStage1,
    batch: VideoBatch,
    config: KeypointTraining,
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
    _require_moments(model, config)
    config = replace(config, adversaries=from_the_start(config.adversaries))
    step = _Step(model, config, device=device, perceptual=perceptual, ranks=ranks)
    return trial_of(step, batch)


class _Step(Step[KeypointStage1, VideoBatch, KeypointTraining]):
    """Frames of clips at some moments, and where the landmarks are in them."""

    def choose_trained(self) -> None:
        self.model.requires_grad_(requires_grad=True)
        # Stage 2 reads both: held still, it can be trained beside the second phase.
        moves_latents = self.config.phase == "motion" or self.config.train_encoder
        for part in self.model.latent_parts().values():
            part.requires_grad_(requires_grad=moves_latents)

    def last_layer(self) -> Tensor:
        return self.model.decoder.last

    def names(self, batch: VideoBatch) -> list[str]:
        return [f"clip {number}" for number in batch.number.tolist()]

    def losses(
        self, batch: VideoBatch, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Rendered]:
        model, config, batch = self.model, self.config, batch.to(self.device)
        draws = self._draw(generator)
        video = batch.video.to(self.dtype)
        seen = model.look(video)
        code = model.posterior(seen.vectors)
        scene = model.scene(video[:, 0].contiguous(memory_format=torch.channels_last))
        places = sides_apart(batch.track, config.twins)
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
        """Draw for the whole batch; a rank takes its share."""
        config, shape = self.config, self.model.config
        shown = draw_moments(config, num_frames=shape.num_frames, generator=generator)
        noise = torch.randn((config.batch_size, shape.z_dim), generator=generator)
        chance = torch.zeros(config.batch_size)
        if shape.points:
            chance = torch.rand(config.batch_size, generator=generator)
        parts = (shown, noise, chance < config.guided)
        return _Draws(*(part[self.share].to(self.device) for part in parts))

    def _rendered_by_z(
        self, scene: Scene, code: Posterior, draws: "_Draws", places: Float[Tensor, "b t l"]
    ) -> tuple[Moments, dict[str, Tensor]]:
        """Render moments as z of the pixels says, which has to tell the landmarks' path."""
        model = self.model
        made = model.at(scene, code.drawn(draws.noise), draws.shown / model.config.num_frames)
        if not model.config.landmarks:
            return made, {}
        told = _landmark_distance(made.landmarks, _rows(places - places[:, :1], draws.shown))
        return made, {"landmarks": self.config.landmarks * told}

    def _rendered_by_points(
        self, scene: Scene, code: Posterior, draws: "_Draws", places: Float[Tensor, "b t l"]
    ) -> tuple[Moments, dict[str, Tensor]]:
        """Render moments, some clips by where their points truly are; and teach both encoders.

        z of the true path learns to tell that path, and z of the pixels to be z of the true path.
        """
        model, weight, num_frames = self.model, self.config.landmarks, self.model.config.num_frames
        true = model.encode_path(places)
        known = Posterior(true, None, code.noise).drawn(draws.noise)
        every = torch.arange(1, num_frames + 1, device=self.device) / num_frames
        path = model.path(known, every.expand(len(true), -1))
        apart = (code.mean.float() - true.detach().float()).square().mean()
        losses = {
            "landmarks": weight * _landmark_distance(path, places[:, 1:] - places[:, :1]),
            "latent": weight * apart,
        }
        times, guided = draws.shown / num_frames, draws.guided[:, None]
        z = torch.where(guided, known, code.drawn(draws.noise))
        told = model.told(scene, model.path(z, times))
        drawn = torch.cat([places[:, :1], _rows(places, draws.shown)], dim=1).to(told)
        return model.at(scene, z, times, torch.where(guided[..., None], drawn, told)), losses

    def _sight_losses(
        self, seen: Seen, scene: Scene, places: Float[Tensor, "b t l"]
    ) -> dict[str, Tensor]:
        """How well single frames, and x0 for the decoder, show where the landmarks are."""
        model, weight = self.model, self.config.landmarks
        if seen.maps is None:
            path = places - places[:, :1]
            told = _landmark_distance(model.seen_path(seen.vectors), path[:, 1:])
            start = _landmark_distance(model.places(scene), places[:, 0])
        else:
            points = places.unflatten(2, (-1, 2))
            assert isinstance(model.encoder, PointClipEncoder)
            looked_at = points[:, list(model.encoder.looked_at)]
            told = _MAP_WEIGHT * map_distance(seen.maps, looked_at)
            start = _MAP_WEIGHT * map_distance(model.place_maps(scene), points[:, 0])
        return {"seen": weight * told, "places": weight * start}

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
    """What chance decides of the clips of a step.

    Attributes:
        shown: Frames to be rendered, from 1 to T.
        noise: Standard normal, for z.
        guided: Whether a clip is rendered by where its points truly are.
    """

    shown: Int64[Tensor, "b n"]
    noise: Float[Tensor, "b z"]
    guided: Bool[Tensor, " b"]


def _rows(x: Shaped[Tensor, "b t ..."], shown: Int64[Tensor, "b n"]) -> Shaped[Tensor, "b n ..."]:
    """Return some moments of each clip."""
    return x[torch.arange(len(x), device=x.device)[:, None], shown]


def _require_moments(model: KeypointStage1, config: KeypointTraining) -> None:
    if config.in_a_row and config.moments > model.config.num_frames:
        raise UserError(
            f"moments must be at most the model's num_frames, {model.config.num_frames}, for a "
            f"temporal adversary, got {config.moments}: render fewer"
        )


def draw_moments(
    config: KeypointTraining, *, num_frames: int, generator: torch.Generator
) -> Int64[Tensor, "b n"]:
    """Draw the frames to render of each clip: one in each of n stretches of it, from 1 to T.

    Where they have to follow one another, n in a row from anywhere.

    Args:
        config: Of how many clips, how many frames.
        num_frames: T.
        generator: Of the draw.
    """
    if config.in_a_row:
        starts = num_frames - config.moments + 1
        first = torch.randint(starts, (config.batch_size, 1), generator=generator)
        shown: Tensor = first + torch.arange(config.moments) + 1
        return shown
    place = torch.rand((config.batch_size, config.moments), generator=generator)
    share = (torch.arange(config.moments) + place) / config.moments
    return (share * num_frames).long().clamp(max=num_frames - 1) + 1


def _landmark_distance(told: Tensor, true: Tensor) -> Tensor:
    return functional.smooth_l1_loss(told.float() / LANDMARK_UNIT, true / LANDMARK_UNIT, beta=0.1)
