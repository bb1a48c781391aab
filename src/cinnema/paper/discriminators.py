"""The two discriminators of stage 1: one of clips, one of single frames."""

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.paper.actnorm import ActNorm
from cinnema.paper.resnet import ResNet3d, ResNet3dConfig
from cinnema.paper.spectral import SpectralConv2d, draw_first_weights

_LARGEST_FACTOR = 8

PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TemporalDiscriminatorConfig(ResNet3dConfig):
    """The section `Discriminator_Temporal` of a published stage-1 config.

    Attributes:
        spectral_norm: Whether convolutions have spectral norm.
        eval_seq_length: Ignored; published configs contain it.
    """

    spectral_norm: bool
    eval_seq_length: PositiveCount = 16


class TemporalDiscriminator(ResNet3d):
    """A score for the motion of a clip, and the features for feature matching.

    A 3-D ResNet, an average over 4x4 positions, and a linear map without a bias. The strides must
    reduce the clip to one time step of 4x4: with those of the paper, up to 16 frames of 64 or 128
    pixels (it is trained on 12).

    Example:
        >>> from cinnema.paper import build, published_configs
        >>> with torch.device("meta"):
        ...     network = build(
        ...         "temporal_discriminator", published_configs("bair")["temporal_discriminator"]
        ...     )
        ...     score, features = network(torch.zeros(2, 3, 12, 64, 64))
        >>> score.shape, len(features)
        (torch.Size([2, 1]), 4)

    Args:
        config: Widths and strides.
    """

    def __init__(self, config: TemporalDiscriminatorConfig) -> None:
        super().__init__(config, stem_stride_t=1, spectral_norm=config.spectral_norm)
        self.config = config
        self.fc = nn.Linear(self.num_features, 1, bias=False)
        draw_first_weights(self, nn.Conv3d, nn.init.orthogonal_)

    def forward(
        self, x: Float[Tensor, "b c t h w"]
    ) -> tuple[Float[Tensor, "b 1"], list[Float[Tensor, "b _ _ _ _"]]]:
        """Return the scores and the four stages' feature maps.

        Args:
            x: Clips in [-1, 1], channels before time.

        Returns:
            Scores, high for real clips; and the map after each stage.

        Raises:
            UserError: The strides do not reduce clips of this length and size to one step of 4x4.
        """
        features = self.maps(x)
        # In 2-D over the one remaining step: the CPU has no 3-D average pool for bfloat16.
        pooled = functional.avg_pool2d(features[-1].squeeze(2), 4)
        return self.fc(pooled.flatten(1)), features


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PatchDiscriminatorConfig:
    """The section `Discriminator_Patch` of a published config.

    Attributes:
        in_channels: Channels of the images.
        ndf: Width of the first layer; each later layer doubles it, up to 8 * ndf.
        n_layers: Number of layers that halve height and width.
        use_actnorm: ActNorm between the layers if true, else batch norm.
        spectral_norm: Whether convolutions have spectral norm.

    Raises:
        ValueError: A field is unknown, missing or out of range.
    """

    in_channels: PositiveCount
    ndf: PositiveCount
    n_layers: PositiveCount
    use_actnorm: bool
    spectral_norm: bool


class PatchDiscriminator(nn.Module):
    """PatchGAN: a score for each patch of an image.

    `n_layers` convolutions that halve the image, then two that do not, all with 4x4 kernels. All
    but the first and the last are followed by a norm, all but the last by a leaky ReLU of slope
    0.2.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017,
    section 3.2.2.

    Example:
        >>> config = PatchDiscriminatorConfig(
        ...     in_channels=3, ndf=8, n_layers=3, use_actnorm=True, spectral_norm=True
        ... )
        >>> PatchDiscriminator(config)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 6, 6])

    Args:
        config: Number of layers and their widths.
    """

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        conv = SpectralConv2d if config.spectral_norm else nn.Conv2d
        norm: Callable[[int], nn.Module] = ActNorm if config.use_actnorm else nn.BatchNorm2d
        width = config.ndf
        layers: list[nn.Module] = [
            conv(config.in_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for index in range(1, config.n_layers + 1):
            n_in, width = width, config.ndf * min(2**index, _LARGEST_FACTOR)
            stride = 2 if index < config.n_layers else 1
            # Batch norm has its own bias.
            layers += [
                conv(n_in, width, 4, stride=stride, padding=1, bias=config.use_actnorm),
                norm(width),
                nn.LeakyReLU(0.2),
            ]
        self.main = nn.Sequential(*layers, conv(width, 1, 4, padding=1))
        draw_first_weights(self, nn.Conv2d, lambda weight: nn.init.normal_(weight, std=0.02))

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 _ _"]:
        """Return the score of each patch, high where it looks real.

        Args:
            image: Images in [-1, 1], at least 3 * 2^n_layers pixels high and wide.

        Raises:
            UserError: The images are smaller, or have another number of channels.
        """
        least = 3 * 2**self.config.n_layers
        if image.shape[1] != self.config.in_channels or min(image.shape[2:]) < least:
            raise UserError(
                f"image: needs {self.config.in_channels} channels and sides of at least {least} "
                f"pixels, got shape {tuple(image.shape)}; use larger images or fewer layers"
            )
        scores: Tensor = self.main(image)
        return scores

    @torch.no_grad()
    def initialise(self, image: Float[Tensor, "b c h w"]) -> None:
        """Set each ActNorm from a batch, passed through the layers before it.

        Call it once, before training.

        Args:
            image: Training images in [-1, 1].

        Raises:
            UserError: A value is not finite.
        """
        for layer in self.main:
            if isinstance(layer, ActNorm):
                layer.fit(image)
            image = layer(image)
