"""Training of the conditioning encoder: an image auto-encoder, of which the encoder is kept."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.config import config_to_dict
from cinnema.core.distributed import Ranks
from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.augmentation import Augmentation
from cinnema.data.loader import VideoBatch
from cinnema.paper.discriminators import PatchDiscriminator, PatchDiscriminatorConfig
from cinnema.paper.image_encoder import ImageEncoder, ImageEncoderConfig
from cinnema.paper.training.losses import kl_to_standard_normal
from cinnema.paper.training.phases import AdamConfig, Phase, initialise_once
from cinnema.paper.training.precision import Arithmetic, Precision
from cinnema.training.discriminators import frozen
from cinnema.training.loop import Position, Step
from cinnema.training.losses import (
    PerceptualDistance,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from cinnema.training.run import Stateful

Losses = dict[str, Tensor]

# Of the image decoder: groups of GroupNorm, slope of leaky ReLUs, size of the first map.
_GROUPS, _SLOPE, _START = 16, 0.2, 4
_LARGEST_FACTOR = 8  # of a map's width over the last map's
_MARGIN = 1e-4  # by which a loss has to be lower to count as better, as in the released code


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ImageDecoderConfig:
    """The configuration of an `ImageDecoder`.

    Attributes:
        z_dim: Length of the embedding.
        size: Height and width of the images, in pixels: 4 times a power of 2, at least 8.
        width: Channels of the last map, a multiple of 16; earlier maps have up to 8 times as many.

    Raises:
        ValueError: A number is out of its range.
    """

    z_dim: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=2 * _START)]
    width: Annotated[int, Field(ge=_GROUPS, multiple_of=_GROUPS)] = 64

    def __post_init__(self) -> None:
        if _START * 2**self.num_doublings != self.size:
            raise UserError(
                f"size must be {_START} times a power of 2, got {self.size}: "
                f"take {_START * 2**self.num_doublings}"
            )

    @property
    def num_doublings(self) -> int:
        """How often the first map is doubled in size."""
        return (self.size // _START).bit_length() - 1


class ImageDecoder(nn.Module):
    """Decodes an embedding to an image: a linear layer, then one convolution per doubling in size.

    Each doubling is a nearest-neighbour upsampling, a convolution, GroupNorm of 16 groups and a
    leaky ReLU of slope 0.2; the last layer is tanh(conv(h)).

    Source: The reference uses a BigGAN generator here; we use a plain decoder, because it is not
    kept after training.

    Example:
        >>> ImageDecoder(ImageDecoderConfig(z_dim=8, size=64, width=16))(torch.zeros(2, 8)).shape
        torch.Size([2, 3, 64, 64])

    Args:
        config: Sizes.
    """

    def __init__(self, config: ImageDecoderConfig) -> None:
        super().__init__()
        self.config = config
        factors = [min(_LARGEST_FACTOR, 2**i) for i in reversed(range(config.num_doublings + 1))]
        widths = [factor * config.width for factor in factors]
        self.start = nn.Linear(config.z_dim, widths[0] * _START * _START)
        self.convs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, padding=1) for n_in, n_out in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for width in widths[1:])
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b 3 h w"]:
        """Return images in [-1, 1].

        Args:
            z: Embeddings.
        """
        h = self.start(z).unflatten(1, (-1, _START, _START))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = conv(functional.interpolate(h, scale_factor=2))
            h = functional.leaky_relu(norm(h), _SLOPE)
        picture: Tensor = self.last(h).tanh()
        return picture


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ConditioningConfig:
    """The networks of the image auto-encoder.

    Attributes:
        encoder: The conditioning encoder, which is kept.
        decoder: Decodes its embedding to images of its size.
        patch: The patch discriminator.

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
    """The training of the image auto-encoder; defaults are those of all published configs.

    Attributes:
        epochs: Number of epochs.
        windows: Frames drawn from each clip in an epoch.
        batch_size: Frames per step, over all ranks.
        adam: Configuration of both optimisers.
        w_kl: Weight of the KL divergence; L1 and LPIPS are *summed* over the pixels of a frame.
        adversarial_from: First epoch, from 0, in which the discriminator is trained and enters the
            loss of encoder and decoder.
        patience: Epochs without a lower reconstruction loss before the learning rate is halved.
        network: Network of LPIPS: "vgg" is the paper's, "alex" costs a twentieth of it.
        augmentation: Augmentation of the frames.
        seed: Seed of all random draws and of the initial weights.
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
    """Encoder, decoder and discriminator, with initial weights.

    Args:
        config: Their configurations.
        seed: Seed of the initial weights; torch's global random state is not changed.
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
    """The encoder with mean and log-variance as its forward pass."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, x0: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        return self.encoder.gaussian(x0)


class ConditioningStep(Step[VideoBatch]):
    """A step of the image auto-encoder.

    Encoder and decoder minimise

        3 h w (L1 + LPIPS) + w_kl KL + adaptive weight * hinge,

    where the decoder's input is the mean of the Gaussian, like the cINN's, and the hinge is
    included from epoch `adversarial_from` on.

    Source: The released code; its form is that of Esser et al., "Taming Transformers for
    High-Resolution Image Synthesis", 2021. The reference halves the learning rate by the loss of
    the last batch of an epoch; we use the mean of the epoch, because it depends less on one draw.

    Example:
        >>> networks = ConditioningNetworks(recipe.conditioner)
        >>> step = ConditioningStep(networks, recipe.conditioning, perceptual=LPIPS.load("vgg"))
        >>> losses = step.take(batch, Position(number=0))

    Args:
        networks: Trained in place, on the device of training.
        config: The training.
        perceptual: LPIPS, on that device.
        ranks: The processes that share each batch; one by default.
        precision: Format in which networks and LPIPS compute; weights stay in float32.

    Raises:
        UserError: The device is not fast in that precision.
    """

    networks: ConditioningNetworks

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
            "patch discriminator",
            [networks.patch],
            config.adam,
            start=config.adversarial_from,
            ranks=self.ranks,
        )
        self.plateau = Plateau(patience=config.patience)

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
            "autoencoder": self.autoencoder.optimiser,
            "discriminator": self.discriminator.optimiser,
            "plateau": self.plateau,
        }

    def take(self, batch: VideoBatch, position: Position) -> dict[str, float]:
        """Take the step on one frame of each clip: encoder and decoder, then the discriminator."""
        number, epoch = position.number, position.epoch
        self.networks.train()
        self.plateau.enter(epoch)
        rate = self.config.adam.rate(epoch) * self.plateau.factor
        real = self.frames(batch, number=number)
        mean, log_var = self.arithmetic.ready(self.gaussian)(real)
        # Not compiled: the adaptive weight needs several backward passes.
        fake = self.arithmetic.ready(self.networks.decoder)(mean)
        is_adversarial = self.discriminator.is_due(number, epoch=epoch)
        if is_adversarial:
            pictures = torch.cat([fake.detach(), real])
            initialise_once(self.networks.patch, self.ranks.joined(pictures))
        with frozen(self.networks.patch):
            losses = self.reconstruction_losses(real, fake)
            if is_adversarial:
                losses |= self.adversarial_losses(losses, fake)
            losses["kl"] = self.config.w_kl * kl_to_standard_normal(mean, log_var)
            numbers = self.autoencoder.descend(losses, number, epoch=epoch, rate=rate)
        self.plateau.add(numbers["recon"] + numbers["percep"])
        if is_adversarial:
            losses = self.discriminator_losses(real, fake)
            numbers |= self.discriminator.descend(losses, number, epoch=epoch, rate=rate)
        return numbers

    def frames(self, batch: VideoBatch, *, number: int) -> Float[Tensor, "b 3 h w"]:
        """Draw one frame of each clip.

        Args:
            batch: Clips of any length.
            number: Number of the step, which decides the draw, with the seed.
        """
        num, length = batch.video.shape[:2]
        generator = generator_for(self.config.seed, number)
        drawn = torch.randint(length, (self.ranks.size * num,), generator=generator)
        which = self.ranks.own(drawn).to(batch.video.device)
        return batch.video[torch.arange(num, device=which.device), which]

    def reconstruction_losses(
        self, real: Float[Tensor, "b 3 h w"], fake: Float[Tensor, "b 3 h w"]
    ) -> Losses:
        """Return L1 and LPIPS, each multiplied by the number of values of a frame.

        Args:
            real: Frames.
            fake: Their reconstruction.
        """
        per_frame = real[0].numel()
        return {
            "recon": per_frame * (fake - real).abs().mean(),
            "percep": per_frame * self.perceptual(fake, real).mean(),
        }

    def adversarial_losses(self, reconstruction: Losses, fake: Float[Tensor, "b 3 h w"]) -> Losses:
        """Return the hinge, with a gradient of the reconstruction's norm at the last layer.

        Args:
            reconstruction: Returned by `reconstruction_losses`.
            fake: The reconstructed frames.
        """
        hinge = hinge_generator(self.arithmetic.ready(self.networks.patch)(fake))
        total = torch.stack(list(reconstruction.values())).sum()
        weight = adaptive_weight(total, hinge, self.networks.decoder.last.weight, ranks=self.ranks)
        return {"adversarial": weight * hinge}

    def discriminator_losses(
        self, real: Float[Tensor, "b 3 h w"], fake: Float[Tensor, "b 3 h w"]
    ) -> Losses:
        """Return the loss of the discriminator, the hinge.

        Args:
            real: Frames.
            fake: Their reconstruction.
        """
        patch, fake = self.arithmetic.ready(self.networks.patch), fake.detach()
        return {"hinge": hinge_discriminator(patch(real), patch(fake))}


class Plateau:
    """A factor on the learning rate that is halved when the mean loss of epochs stops falling.

    Call `enter` with the epoch before each step, and `add` with the loss after it.

    Args:
        patience: Epochs in a row without a lower loss that are tolerated; the next one halves.

    Attributes:
        factor: Factor on the learning rate, initially 1.

    Example:
        >>> plateau = Plateau(patience=0)
        >>> for epoch, loss in enumerate([3.0, 2.0, 2.0, 2.0]):
        ...     plateau.enter(epoch)
        ...     plateau.add(loss)
        >>> plateau.factor  # the last epoch has not ended
        0.5
    """

    def __init__(self, *, patience: int) -> None:
        self.patience = patience
        self.factor = 1.0
        self._epoch, self._sum, self._count = 0, 0.0, 0
        self._best, self._num_stale = math.inf, 0

    def enter(self, epoch: int) -> None:
        """Evaluate the previous epoch, if a new one begins.

        Args:
            epoch: Epoch of the next step, from 0.
        """
        if epoch == self._epoch:
            return
        if self._count:
            self._evaluate(self._sum / self._count)
        self._epoch, self._sum, self._count = epoch, 0.0, 0

    def add(self, loss: float) -> None:
        """Add the loss of a step to the mean of its epoch."""
        self._sum += loss
        self._count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            name.removeprefix("_"): value
            for name, value in vars(self).items()
            if name != "patience"
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.factor = state["factor"]
        self._epoch, self._sum, self._count = state["epoch"], state["sum"], state["count"]
        self._best, self._num_stale = state["best"], state["num_stale"]

    def _evaluate(self, loss: float) -> None:
        if loss < self._best - _MARGIN:
            self._best, self._num_stale = loss, 0
            return
        self._num_stale += 1
        if self._num_stale > self.patience:
            self.factor, self._num_stale = self.factor / 2, 0
