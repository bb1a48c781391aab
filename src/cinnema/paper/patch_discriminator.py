"""The discriminator of pictures: a score for each patch of a frame."""

from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.paper.actnorm import ActNorm
from cinnema.paper.spectral import SpectralConv2d, draw_first_weights

_LARGEST_FACTOR = 8

PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PatchDiscriminatorConfig:
    """The section `Discriminator_Patch` of a published config.

    Attributes:
        in_channels: Channels of the pictures.
        ndf: Width of the first layer; each later one doubles it, up to 8 times the first.
        n_layers: Number of layers that halve height and width.
        use_actnorm: ActNorm between the layers if true, else batch norm.
        spectral_norm: Whether convolutions carry spectral norm.

    Raises:
        ValueError: On a field that is unknown, missing or out of range.
    """

    in_channels: PositiveCount
    ndf: PositiveCount
    n_layers: PositiveCount
    use_actnorm: bool
    spectral_norm: bool


class PatchDiscriminator(nn.Module):
    """PatchGAN: `n_layers` convolutions that halve the picture, two that do not, all 4x4.

    All but the first and the last are followed by a norm, all but the last by a leaky ReLU of
    slope 0.2.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017,
    section 3.2.2.

    Example:
        >>> config = PatchDiscriminatorConfig(
        ...     in_channels=3, ndf=8, n_layers=3, use_actnorm=True, spectral_norm=True
        ... )
        >>> PatchDiscriminator(config)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1, 6, 6])

    Args:
        config: Its widths.
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
            # Batch norm has a bias of its own.
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
            image: Pictures in [-1, 1], of at least 3 * 2^n_layers pixels on a side.

        Raises:
            UserError: If the pictures are smaller or have other channels.
        """
        least = 3 * 2**self.config.n_layers
        if image.shape[1] != self.config.in_channels or min(image.shape[2:]) < least:
            raise UserError(
                f"image: needs {self.config.in_channels} channels and sides of at least {least} "
                f"pixels, got shape {tuple(image.shape)}; use larger pictures or fewer layers"
            )
        scores: Tensor = self.main(image)
        return scores

    @torch.no_grad()
    def initialise(self, image: Float[Tensor, "b c h w"]) -> None:
        """Fit each ActNorm to what the layers before it make of a batch; call it once, at first.

        Args:
            image: Pictures as it will be trained on, in [-1, 1].

        Raises:
            UserError: With values that are not finite.
        """
        for layer in self.main:
            if isinstance(layer, ActNorm):
                layer.fit(image)
            image = layer(image)
