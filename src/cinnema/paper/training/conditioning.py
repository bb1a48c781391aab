"""Training of the conditioning encoder: an image auto-encoder, of which the encoder is kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.augmentation import Augmentation
from cinnema.data.loader import ClipLoader, VideoBatch
from cinnema.paper.discriminators import PatchDiscriminator, PatchDiscriminatorConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.training.image_decoder import ImageDecoder, ImageDecoderConfig
from cinnema.paper.training.loop import Validate, fit
from cinnema.paper.training.losses import kl_to_standard_normal
from cinnema.paper.training.patches import initialise_once
from cinnema.paper.training.phases import AdamConfig, Phase
from cinnema.paper.training.plateau import Plateau
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.training.adversarial_losses import (
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from cinnema.training.discriminators import resting
from cinnema.training.losses import PerceptualDistance
from cinnema.training.run import Stateful

Losses = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ConditioningConfig:
    """The networks around the conditioning encoder.

    Attributes:
        encoder: What is kept.
        decoder: Of the encoder's embedding and size.
        patch: The discriminator of pictures.

    Raises:
        ValueError: Encoder and decoder do not fit each other.
    """

    encoder: ImageEncoderConfig
    decoder: ImageDecoderConfig
    patch: PatchDiscriminatorConfig

    def __post_init__(self) -> None:
        pairs = {
            "encoder.z_dim and decoder.z_dim": (self.encoder.z_dim, self.decoder.z_dim),
            "encoder.in_size and decoder.size": (self.encoder.in_size, self.decoder.size),
        }
        for names, (mine, other) in pairs.items():
            if mine != other:
                raise UserError(f"{names} must be equal, got {mine} and {other}: change one")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ConditioningTraining:
    """How the image auto-encoder is trained; the defaults are what all published configs share.

    Attributes:
        epochs: How many.
        windows: Frames that an epoch takes of each clip.
        batch_size: Frames in a step, of all ranks together.
        adam: Of both optimisers.
        w_kl: Weight of the KL, beside L1 and LPIPS *summed* over all pixels of a frame.
        adversarial_from: The epoch, from 0, from which on the discriminator is trained and heard.
        patience: Epochs without a better reconstruction after which the rate is halved.
        network: Of LPIPS: "vgg" is the paper's, "alex" costs a twentieth of it.
        augmentation: How frames are varied.
        seed: Of every draw and of the first weights.
    """

    epochs: int = Field(ge=1)
    windows: int = Field(default=1, ge=1)
    batch_size: int = Field(default=30, ge=1)
    adam: AdamConfig = AdamConfig(learning_rate=2e-4, betas=(0.9, 0.999))
    w_kl: float = Field(default=1e-4, ge=0)
    adversarial_from: int = Field(default=20, ge=0)
    patience: int = Field(default=1, ge=0)
    network: Literal["vgg", "alex"] = "vgg"
    augmentation: Augmentation = Augmentation()
    seed: int = Field(default=0, ge=0)


class ConditioningNetworks(nn.Module):
    """Encoder, decoder and discriminator, on the way to being trained.

    Args:
        config: Their sizes.
        seed: Of the first weights; torch's global stream is left as it was.
    """

    def __init__(self, config: ConditioningConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = ImageEncoder(config.encoder)
            self.decoder = ImageDecoder(config.decoder)
            self.patch = PatchDiscriminator(config.patch)


class _Gaussian(nn.Module):
    """The encoder's mean and log-variance as a forward pass."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, x0: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        return self.encoder.gaussian(x0)


class ConditioningStep:
    """One step of the image auto-encoder, with everything that it changes.

    Encoder and decoder descend

        3 h w (L1 + LPIPS) + w_kl KL + adaptive weight * hinge,

    where the decoder sees the mean of the Gaussian, as the cINN will, and the hinge counts from
    `adversarial_from` on.

    Source: the released code; its form is that of Esser et al., "Taming Transformers for
    High-Resolution Image Synthesis", 2021. It halves the rate by the loss of the last batch of an
    epoch; we take the epoch's mean, which does not depend on one draw.

    Example:
        >>> networks = ConditioningNetworks(recipe.conditioner)
        >>> step = ConditioningStep(networks, recipe.conditioning, perceptual=LPIPS.load("vgg"))
        >>> losses = step(batch, number=0, epoch=0)

    Args:
        networks: On the device of training.
        config: How.
        perceptual: LPIPS, on that device.
        ranks: The processes that share each batch.
        precision: What networks and LPIPS compute in; the networks stay in float32.

    Raises:
        UserError: The device is not fast in that precision.
    """

    def __init__(
        self,
        networks: ConditioningNetworks,
        config: ConditioningTraining,
        *,
        perceptual: PerceptualDistance,
        ranks: Ranks | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.networks, self.config = networks, config
        self.ranks = ranks or Ranks()
        self.arithmetic = Arithmetic(precision, device=networks.decoder.last.weight.device)
        self.perceptual = self.arithmetic.ready_distance(perceptual)
        self.gaussian = _Gaussian(networks.encoder)
        self.autoencoder = Phase(
            "image auto-encoder",
            [networks.encoder, networks.decoder],
            config.adam,
            ranks=self.ranks,
        )
        self.discriminator = Phase(
            "discriminator of pictures",
            [networks.patch],
            config.adam,
            start=config.adversarial_from,
            ranks=self.ranks,
        )
        self.plateau = Plateau(patience=config.patience)

    def parts(self) -> Mapping[str, Stateful]:
        """Return what a checkpoint holds, by name."""
        return {
            "networks": self.networks,
            "autoencoder": self.autoencoder.optimiser,
            "discriminator": self.discriminator.optimiser,
            "plateau": self.plateau,
        }

    def __call__(self, batch: VideoBatch, *, number: int, epoch: int) -> Losses:
        """Take one step.

        Args:
            batch: Clips of any length, of each of which one frame is taken.
            number: Of the step, from 0.
            epoch: In which it lies, from 0.

        Returns:
            Weighted losses by name, without their graph.

        Raises:
            UserError: A loss is not finite, or the frames are of another size than the networks.
        """
        self.networks.train()
        self.plateau.enter(epoch)
        rate = self.config.adam.rate(epoch) * self.plateau.factor
        real = self.frames(batch, number=number)
        mean, log_var = self.arithmetic.ready(self.gaussian)(real)
        # Nothing is compiled: the adaptive weight goes backwards more than once.
        fake = self.arithmetic.ready(self.networks.decoder)(mean)
        is_adversarial = self.discriminator.is_due(number, epoch=epoch)
        if is_adversarial:
            pictures = torch.cat([fake.detach(), real])
            initialise_once(self.networks.patch, self.ranks.joined(pictures))
        with resting(self.networks.patch):
            losses = self.reconstruction_losses(real, fake)
            if is_adversarial:
                losses |= self.adversarial_losses(losses, fake)
            losses["kl"] = self.config.w_kl * kl_to_standard_normal(mean, log_var)
            seen = self.autoencoder.descend(losses, number, epoch=epoch, rate=rate)
        self.plateau.take(float(seen["recon"] + seen["percep"]))
        if is_adversarial:
            losses = self.discriminator_losses(real, fake)
            seen |= self.discriminator.descend(losses, number, epoch=epoch, rate=rate)
        return seen

    def frames(self, batch: VideoBatch, *, number: int) -> Float[Tensor, "b 3 h w"]:
        """Return one frame of each clip, any of its frames.

        Args:
            batch: Clips.
            number: Of the step; the draw follows from it and the seed.
        """
        num, length = batch.video.shape[:2]
        generator = generator_for(self.config.seed, number)
        drawn = torch.randint(length, (self.ranks.size * num,), generator=generator)
        which = self.ranks.own(drawn).to(batch.video.device)
        return batch.video[torch.arange(num, device=which.device), which]

    def reconstruction_losses(
        self, real: Float[Tensor, "b 3 h w"], fake: Float[Tensor, "b 3 h w"]
    ) -> Losses:
        """Return L1 and LPIPS, each times the numbers of a frame.

        Args:
            real: Frames.
            fake: What they are decoded to.
        """
        per_frame = real[0].numel()
        return {
            "recon": per_frame * (fake - real).abs().mean(),
            "percep": per_frame * self.perceptual(fake, real).mean(),
        }

    def adversarial_losses(self, reconstruction: Losses, fake: Float[Tensor, "b 3 h w"]) -> Losses:
        """Return the hinge, weighted to pull as hard as the reconstruction.

        Args:
            reconstruction: From `reconstruction_losses`.
            fake: What they are of.
        """
        hinge = hinge_generator(self.arithmetic.ready(self.networks.patch)(fake))
        total = torch.stack(list(reconstruction.values())).sum()
        weight = adaptive_weight(total, hinge, self.networks.decoder.last.weight, ranks=self.ranks)
        return {"adversarial": weight * hinge}

    def discriminator_losses(
        self, real: Float[Tensor, "b 3 h w"], fake: Float[Tensor, "b 3 h w"]
    ) -> Losses:
        """Return what the discriminator minimises.

        Args:
            real: Frames.
            fake: What they are decoded to.
        """
        patch, fake = self.arithmetic.ready(self.networks.patch), fake.detach()
        return {"hinge": hinge_discriminator(patch(real), patch(fake))}


def train_conditioning(
    step: ConditioningStep,
    batches: ClipLoader,
    *,
    folder: Path,
    validate: Validate | None = None,
    tensorboard: bool = False,
) -> ImageEncoder:
    """Train the image auto-encoder in place, resuming what `folder` holds.

    Args:
        step: Of the networks and their config.
        batches: Clips of two frames or more where the networks are, in batches of the config's
            size.
        folder: Of the run.
        validate: Called after each epoch; its numbers are recorded.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Returns:
        The encoder, in evaluation mode.

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
    return step.networks.encoder.eval()
