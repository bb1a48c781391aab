"""Training of stage 1 as published: a video VAE-GAN.

A step encodes the frames after x0, draws z, decodes, and runs three phases on what came: the
discriminator of motion on a part of the clip, that of pictures on some of all frames of the batch,
and last encoder and decoder, against what the two have become.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_class
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.augmentation import Augmentation
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.discriminators import (
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.paper.training.loop import Validate, fit
from cinnema.paper.training.losses import draw_latent, gradient_penalty, kl_to_standard_normal
from cinnema.paper.training.patches import initialise_once
from cinnema.paper.training.phases import AdamConfig, Phase
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.paper.video_encoder import VideoEncoder, VideoEncoderConfig
from cinnema.training.adversarial_losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
)
from cinnema.training.discriminators import resting
from cinnema.training.losses import PerceptualDistance
from cinnema.training.run import Stateful


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AutoencodingConfig:
    """The networks of stage 1.

    Attributes:
        encoder: q(z | x1 ... xT).
        decoder: p(x0, z).
        temporal: The discriminator of motion.
        patch: The discriminator of pictures.

    Raises:
        ValueError: Encoder and decoder have latents of different lengths.
    """

    encoder: VideoEncoderConfig
    decoder: DecoderConfig
    temporal: TemporalDiscriminatorConfig
    patch: PatchDiscriminatorConfig

    def __post_init__(self) -> None:
        if self.encoder.z_dim != self.decoder.z_dim:
            raise UserError(
                "encoder.z_dim and decoder.z_dim must be equal, got "
                f"{self.encoder.z_dim} and {self.decoder.z_dim}: change one"
            )


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AutoencodingTraining:
    """How stage 1 is trained; the defaults are what all published configs share.

    Attributes:
        epochs: How many.
        windows: Windows that an epoch takes of each clip.
        batch_size: Clips in a step, of all ranks together.
        adam: Of all three optimisers.
        w_recon: Weight of the L1 distance of frames.
        w_percep: Weight of LPIPS.
        w_kl: Weight of KL(q(z | X) || N(0, I)).
        w_temporal: Weight of the hinge of motion, in the generator's loss.
        w_spatial: Weight of the hinge of pictures, in the generator's loss.
        w_matching: Weight of the feature matching of motion.
        w_penalty: Weight of the gradient penalty on the discriminator of motion.
        adversarial_from: The epoch, from 0, from which on discriminators are trained and heard.
        sub_clip: Frames that the discriminator of motion sees; all where the clips have fewer.
        num_pictures: Frames that the discriminator of pictures sees, of all frames of the batch.
        temporal_every: Steps between two updates of the discriminator of motion.
        spatial_every: Steps between two updates of the discriminator of pictures.
        network: Of LPIPS: "vgg" is the paper's, "alex" costs a twentieth of it.
        augmentation: How clips are varied.
        seed: Of every draw and of the first weights.
    """

    epochs: int = Field(ge=1)
    windows: int = Field(default=1, ge=1)
    batch_size: int = Field(ge=1)
    adam: AdamConfig = AdamConfig(
        learning_rate=2e-4, betas=(0.5, 0.9), weight_decay=1e-5, decay=0.98
    )
    w_recon: float = Field(ge=0)
    w_percep: float = Field(ge=0)
    w_kl: float = Field(ge=0)
    w_temporal: float = Field(default=1.0, ge=0)
    w_spatial: float = Field(default=1.0, ge=0)
    w_matching: float = Field(default=10.0, ge=0)
    w_penalty: float = Field(default=10.0, ge=0)
    adversarial_from: int = Field(default=1, ge=0)
    sub_clip: int = Field(default=12, ge=1)
    num_pictures: int = Field(default=20, ge=1)
    temporal_every: int = Field(default=1, ge=1)
    spatial_every: int = Field(default=1, ge=1)
    network: Literal["vgg", "alex"] = "vgg"
    augmentation: Augmentation = Augmentation()
    seed: int = Field(default=0, ge=0)


class AutoencodingNetworks(nn.Module):
    """The four networks of stage 1, on the way to being trained.

    Args:
        config: Their sizes.
        seed: Of the first weights; torch's global stream is left as it was.
    """

    def __init__(self, config: AutoencodingConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = VideoEncoder(config.encoder)
            self.decoder = Decoder(config.decoder)
            self.temporal = TemporalDiscriminator(config.temporal)
            self.patch = PatchDiscriminator(config.patch)


@dataclass(frozen=True)
class Reconstruction:
    """What a step's forward pass made, and the parts of it that discriminators see.

    Attributes:
        real: The frames after x0.
        fake: What they are decoded to.
        mu: Means of q.
        log_var: Logarithms of its variances.
        start: The first frame of the part that the discriminator of motion sees.
        length: Its frames.
        pictures: Numbers of the frames that the discriminator of pictures sees, batch before time.
    """

    real: Float[Tensor, "b t 3 h w"]
    fake: Float[Tensor, "b t 3 h w"]
    mu: Float[Tensor, "b z"]
    log_var: Float[Tensor, "b z"]
    start: int
    length: int
    pictures: Tensor

    def clip(self, video: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b 3 s h w"]:
        """Return the part for the discriminator of motion, colours before time."""
        return video[:, self.start : self.start + self.length].transpose(1, 2)

    def frames(self, video: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Return the frames for the discriminator of pictures."""
        return video.flatten(0, 1)[self.pictures]


Losses = dict[str, Tensor]


class AutoencodingStep:
    """One step of stage 1, with everything that it changes.

    Example:
        >>> networks = AutoencodingNetworks(recipe.stage1)
        >>> step = AutoencodingStep(networks, recipe.autoencoding, perceptual=LPIPS.load("vgg"))
        >>> losses = step(batch, number=0, epoch=0)

    Args:
        networks: On the device of training.
        config: How.
        perceptual: LPIPS, on that device.
        ranks: The processes that share each batch.
        precision: What networks and LPIPS compute in; the networks stay in float32.

    Raises:
        UserError: The device is not fast in that precision.

    Attributes:
        generator: The phase that trains encoder and decoder.
        temporal: The phase of the discriminator of motion.
        spatial: The phase of the discriminator of pictures.
    """

    def __init__(
        self,
        networks: AutoencodingNetworks,
        config: AutoencodingTraining,
        *,
        perceptual: PerceptualDistance,
        ranks: Ranks | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.networks, self.config = networks, config
        self.ranks = ranks or Ranks()
        self.arithmetic = Arithmetic(precision, device=networks.decoder.fc.weight.device)
        self.perceptual = self.arithmetic.ready_distance(perceptual, is_heavy=True)
        start = config.adversarial_from
        self.temporal = Phase(
            "discriminator of motion", [networks.temporal], config.adam,
            start=start, interval=config.temporal_every, ranks=self.ranks,
        )  # fmt: skip
        self.spatial = Phase(
            "discriminator of pictures", [networks.patch], config.adam,
            start=start, interval=config.spatial_every, ranks=self.ranks,
        )  # fmt: skip
        self.generator = Phase(
            "encoder and decoder",
            [networks.decoder, networks.encoder],
            config.adam,
            ranks=self.ranks,
        )

    def parts(self) -> Mapping[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {
            "networks": self.networks,
            "generator": self.generator.optimiser,
            "temporal": self.temporal.optimiser,
            "spatial": self.spatial.optimiser,
        }

    def __call__(self, batch: VideoBatch, *, number: int, epoch: int) -> Losses:
        """Take one step.

        Args:
            batch: Clips, on the device of the networks.
            number: Of the step, from 0.
            epoch: In which it lies, from 0.

        Returns:
            Weighted losses by name, without their graph.

        Raises:
            UserError: A loss is not finite, or the clips are of another shape than the networks.
        """
        self.networks.train()
        made = self.reconstruct(batch, number=number)
        is_adversarial = epoch >= self.config.adversarial_from
        if is_adversarial:
            pictures = [made.frames(made.fake).detach(), made.frames(made.real)]
            initialise_once(self.networks.patch, self.ranks.joined(torch.cat(pictures)))
        seen: Losses = {}
        discriminators = (
            (self.temporal, self.temporal_losses),
            (self.spatial, self.spatial_losses),
        )
        for phase, losses_of in discriminators:
            if phase.is_due(number, epoch=epoch):
                seen |= phase.descend(losses_of(made), number, epoch=epoch)
        with resting(self.networks.temporal, self.networks.patch):
            losses = self.generator_losses(made)
            if is_adversarial:
                losses |= self.adversarial_losses(made)
            seen |= self.generator.descend(losses, number, epoch=epoch)
        return seen

    def reconstruct(self, batch: VideoBatch, *, number: int) -> Reconstruction:
        """Encode, draw z, decode, and draw what discriminators shall see.

        Args:
            batch: Clips.
            number: Of the step; all draws follow from it and the seed.
        """
        generator = generator_for(self.config.seed, number)
        x0, real = batch.video[:, 0], batch.video[:, 1:]
        encode = self.arithmetic.ready(self.networks.encoder, is_heavy=True)
        decode = self.arithmetic.ready(self.networks.decoder, is_heavy=True)
        mu, log_var = encode(real.transpose(1, 2))
        z = draw_latent(mu, log_var, generator=generator, ranks=self.ranks)
        fake = decode(x0, z)
        length = min(self.config.sub_clip, real.shape[1])
        start = torch.randint(real.shape[1] - length + 1, (), generator=generator)
        # Each rank draws its part of them from its own clips, so that all see equally many.
        each = -(-self.config.num_pictures // self.ranks.size)
        pictures = self.ranks.own(
            torch.randint(
                real.shape[0] * real.shape[1], (self.ranks.size * each,), generator=generator
            )
        )
        return Reconstruction(real, fake, mu, log_var, int(start), length, pictures.to(real.device))

    def temporal_losses(self, made: Reconstruction) -> Losses:
        """Return what the discriminator of motion minimises: the hinge and the penalty.

        Args:
            made: By `reconstruct`.
        """
        discriminator = self.arithmetic.ready(self.networks.temporal)
        real = made.clip(made.real).detach().requires_grad_(True)
        fake_score, _ = discriminator(made.clip(made.fake).detach())
        real_score, _ = discriminator(real)
        losses = {"hinge_t": hinge_discriminator(real_score, fake_score)}
        if self.config.w_penalty:
            penalty = gradient_penalty(real_score, real, num_ranks=self.ranks.size)
            losses["penalty"] = self.config.w_penalty * penalty
        return losses

    def spatial_losses(self, made: Reconstruction) -> Losses:
        """Return what the discriminator of pictures minimises, the hinge.

        Args:
            made: By `reconstruct`.
        """
        real, fake = made.frames(made.real), made.frames(made.fake).detach()
        patch = self.arithmetic.ready(self.networks.patch)
        return {"hinge_s": hinge_discriminator(patch(real), patch(fake))}

    def generator_losses(self, made: Reconstruction) -> Losses:
        """Return what encoder and decoder minimise, discriminators apart.

        Args:
            made: By `reconstruct`.
        """
        config, real, fake = self.config, made.real, made.fake
        distance = self.perceptual(fake.flatten(0, 1), real.flatten(0, 1))
        return {
            "recon": config.w_recon * (fake - real).abs().mean(),
            "percep": config.w_percep * distance.mean(),
            "kl": config.w_kl * kl_to_standard_normal(made.mu, made.log_var),
        }

    def adversarial_losses(self, made: Reconstruction) -> Losses:
        """Return what encoder and decoder minimise against the discriminators.

        Args:
            made: By `reconstruct`.
        """
        config = self.config
        temporal = self.arithmetic.ready(self.networks.temporal)
        patch = self.arithmetic.ready(self.networks.patch)
        with torch.no_grad():
            _, real_features = temporal(made.clip(made.real))
        score, fake_features = temporal(made.clip(made.fake))
        picture_score = patch(made.frames(made.fake))
        return {
            "adversarial_t": config.w_temporal * hinge_generator(score),
            "adversarial_s": config.w_spatial * hinge_generator(picture_score),
            "matching": config.w_matching * feature_matching(real_features, fake_features),
        }


def train_autoencoder(
    step: AutoencodingStep,
    batches: ClipLoader,
    *,
    folder: Path,
    validate: Validate | None = None,
    tensorboard: bool = False,
) -> AutoencodingNetworks:
    """Train stage 1 in place, resuming what `folder` holds.

    Args:
        step: Of the networks and their config.
        batches: Clips of T + 1 frames where the networks are, in batches of the config's size.
        folder: Of the run.
        validate: Called after each epoch; its numbers are recorded.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The networks, in evaluation mode.

    Raises:
        UserError: `folder` holds another run or cannot be written to, a loss is not finite, or
            clips do not fit the networks.
    """
    about = {"networks": config_to_dict(step.networks.config), **step.arithmetic.about()}
    fit(
        step,
        batches,
        step.config,
        folder=folder,
        about=about,
        validate=validate,
        tensorboard=tensorboard,
    )
    return step.networks.eval()
