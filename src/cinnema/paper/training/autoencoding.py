"""Training of stage 1 as published: a video VAE-GAN.

A step encodes the frames after x0, samples z, decodes, and runs three phases on the result: the
temporal discriminator on a part of the clip, the patch discriminator on some frames of the batch,
and then encoder and decoder, against the updated discriminators.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

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
from cinnema.data.loader import VideoBatch
from cinnema.paper.decoder import Decoder, DecoderConfig
from cinnema.paper.discriminators import (
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    TemporalDiscriminator,
    TemporalDiscriminatorConfig,
)
from cinnema.paper.training.losses import (
    draw_latent,
    gradient_penalty,
    kl_to_standard_normal,
    perceptual_loss,
)
from cinnema.paper.training.phases import AdamConfig, Phase, initialise_once
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.paper.video_encoder import VideoEncoder, VideoEncoderConfig
from cinnema.training.discriminators import frozen
from cinnema.training.loop import Position, Step
from cinnema.training.losses import (
    PerceptualDistance,
    feature_matching,
    hinge_discriminator,
    hinge_generator,
)
from cinnema.training.run import Stateful


@config_class(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AutoencodingConfig:
    """The networks of stage 1.

    Attributes:
        encoder: q(z | x1 ... xT).
        decoder: p(x0, z).
        temporal: The temporal discriminator, of clips.
        patch: The patch discriminator, of single frames.

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
    """The training of stage 1; the defaults are those that all published configs share.

    Attributes:
        epochs: Number of epochs.
        windows: Windows cut from each clip in an epoch.
        batch_size: Clips per step, over all ranks.
        adam: Configuration of all three optimisers.
        w_recon: Weight of the L1 distance of frames.
        w_percep: Weight of LPIPS.
        w_kl: Weight of KL(q(z | X) || N(0, I)).
        w_temporal: Weight of the temporal discriminator in the generator's loss.
        w_spatial: Weight of the patch discriminator in the generator's loss.
        w_matching: Weight of feature matching with the temporal discriminator.
        w_penalty: Weight of the gradient penalty of the temporal discriminator.
        adversarial_from: First epoch, from 0, in which discriminators are trained and enter the
            generator's loss.
        sub_clip: Consecutive frames that the temporal discriminator sees, at most.
        num_pictures: Frames that the patch discriminator sees, of all frames of the batch.
        temporal_every: Steps between two updates of the temporal discriminator.
        spatial_every: Steps between two updates of the patch discriminator.
        network: Network of LPIPS: "vgg" is the paper's, "alex" costs a twentieth of it.
        augmentation: Augmentation of the clips.
        seed: Seed of all random draws and of the initial weights.
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
    """The four networks of stage 1, with initial weights.

    Args:
        config: Their configurations.
        seed: Seed of the initial weights; torch's global random state is not changed.
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
    """The result of a step's forward pass, and the parts of it that discriminators see.

    Attributes:
        real: The frames after x0.
        fake: Their reconstruction.
        mu: Means of q(z | X).
        log_var: Logarithms of its variances.
        start: First frame of the part that the temporal discriminator sees.
        length: Frames of that part.
        pictures: Indices of the frames that the patch discriminator sees, in (b t).
    """

    real: Float[Tensor, "b t 3 h w"]
    fake: Float[Tensor, "b t 3 h w"]
    mu: Float[Tensor, "b z"]
    log_var: Float[Tensor, "b z"]
    start: int
    length: int
    pictures: Tensor

    def clip(self, video: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b 3 s h w"]:
        """Return the part for the temporal discriminator, channels before time."""
        return video[:, self.start : self.start + self.length].transpose(1, 2)

    def frames(self, video: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Return the frames for the patch discriminator."""
        return video.flatten(0, 1)[self.pictures]


Losses = dict[str, Tensor]


class AutoencodingStep(Step[VideoBatch]):
    """A step of stage 1.

    Example:
        >>> networks = AutoencodingNetworks(recipe.stage1)
        >>> step = AutoencodingStep(networks, recipe.autoencoding, perceptual=LPIPS.load("vgg"))
        >>> losses = step.take(batch, Position(number=0))

    Args:
        networks: Trained in place, on the device of training.
        config: The training.
        perceptual: LPIPS, on that device.
        ranks: The processes that share each batch; one by default.
        precision: Format in which networks and LPIPS compute; weights stay in float32.
        recompute_activations: Whether the backward pass computes encoder and decoder again, which
            takes more time and less memory. Losses and gradients are the same.

    Raises:
        UserError: The device is not fast in that precision, or it compiles networks that are to be
            computed again.

    Attributes:
        generator: The phase of encoder and decoder.
        temporal: The phase of the temporal discriminator.
        spatial: The phase of the patch discriminator.
    """

    networks: AutoencodingNetworks

    def __init__(
        self,
        networks: AutoencodingNetworks,
        config: AutoencodingTraining,
        *,
        perceptual: PerceptualDistance,
        ranks: Ranks | None = None,
        precision: Precision = "float32",
        recompute_activations: bool = False,
    ) -> None:
        if recompute_activations and precision == "compiled":
            raise UserError(
                'compiled networks keep their activations: use the precision "fast", or do not '
                "recompute activations"
            )
        self.networks, self.config = networks, config
        networks.encoder.recomputes = networks.decoder.recomputes = recompute_activations
        self.ranks = ranks or Ranks()
        device = networks.decoder.fc.weight.device
        self.arithmetic = Arithmetic(precision, device=device)
        # In float32 it computes as published, to the bit; GPUs prefer fewer and larger products.
        networks.decoder.rearranges = precision == "fast" and device.type == "cpu"
        self.perceptual = self.arithmetic.ready_distance(perceptual, is_heavy=True)
        start = config.adversarial_from
        phase = partial(Phase, adam=config.adam, ranks=self.ranks, is_fused=precision != "float32")
        self.temporal = phase(
            "temporal discriminator", [networks.temporal],
            start=start, interval=config.temporal_every,
        )  # fmt: skip
        self.spatial = phase(
            "patch discriminator", [networks.patch], start=start, interval=config.spatial_every
        )
        self.generator = phase("encoder and decoder", [networks.decoder, networks.encoder])

    def about(self) -> dict[str, Any]:
        """Return what decides the outcome."""
        return {
            "networks": config_to_dict(self.networks.config),
            "training": config_to_dict(self.config),
            "precision": self.arithmetic.precision,
        }

    def parts(self) -> dict[str, Stateful]:
        """Return the state that a checkpoint has to hold, by name."""
        return {
            "networks": self.networks,
            "generator": self.generator.optimiser,
            "temporal": self.temporal.optimiser,
            "spatial": self.spatial.optimiser,
        }

    def take(self, batch: VideoBatch, position: Position) -> dict[str, float]:
        """Take the step: the discriminators that are due, then encoder and decoder."""
        number, epoch = position.number, position.epoch
        self.networks.train()
        made = self.reconstruct(batch, number=number)
        is_adversarial = epoch >= self.config.adversarial_from
        if is_adversarial:
            pictures = [made.frames(made.fake).detach(), made.frames(made.real)]
            initialise_once(self.networks.patch, self.ranks.joined(torch.cat(pictures)))
        numbers: dict[str, float] = {}
        discriminators = (
            (self.temporal, self.temporal_losses),
            (self.spatial, self.spatial_losses),
        )
        for phase, losses_of in discriminators:
            if phase.is_due(number, epoch=epoch):
                numbers |= phase.descend(losses_of(made), number, epoch=epoch)
        with frozen(self.networks.temporal, self.networks.patch):
            losses = self.generator_losses(made)
            if is_adversarial:
                losses |= self.adversarial_losses(made)
            numbers |= self.generator.descend(losses, number, epoch=epoch)
        return numbers

    def reconstruct(self, batch: VideoBatch, *, number: int) -> Reconstruction:
        """Encode, sample z, decode, and draw what discriminators see.

        Args:
            batch: Clips, on the device of the networks.
            number: Number of the step, which decides all random draws, with the seed.
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
        # Each rank draws an equal number of frames from its own clips.
        each = -(-self.config.num_pictures // self.ranks.size)
        pictures = self.ranks.own(
            torch.randint(
                real.shape[0] * real.shape[1], (self.ranks.size * each,), generator=generator
            )
        )
        return Reconstruction(real, fake, mu, log_var, int(start), length, pictures.to(real.device))

    def temporal_losses(self, made: Reconstruction) -> Losses:
        """Return the losses of the temporal discriminator: the hinge and the gradient penalty.

        Args:
            made: Returned by `reconstruct`.
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
        """Return the loss of the patch discriminator, the hinge.

        Args:
            made: Returned by `reconstruct`.
        """
        real, fake = made.frames(made.real), made.frames(made.fake).detach()
        patch = self.arithmetic.ready(self.networks.patch)
        return {"hinge_s": hinge_discriminator(patch(real), patch(fake))}

    def generator_losses(self, made: Reconstruction) -> Losses:
        """Return the losses of encoder and decoder, without those against discriminators.

        Args:
            made: Returned by `reconstruct`.
        """
        config, real, fake = self.config, made.real, made.fake
        perceptual = perceptual_loss(
            fake.flatten(0, 1),
            real.flatten(0, 1),
            perceptual=self.perceptual,
            weight=config.w_percep,
        )
        return {
            "recon": config.w_recon * (fake - real).abs().mean(),
            "percep": perceptual,
            "kl": config.w_kl * kl_to_standard_normal(made.mu, made.log_var),
        }

    def adversarial_losses(self, made: Reconstruction) -> Losses:
        """Return the losses of encoder and decoder against the discriminators.

        Args:
            made: Returned by `reconstruct`.
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
