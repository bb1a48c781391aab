"""The conditioning encoder: from the first frame to its embedding."""

from collections.abc import Callable
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.paper.resnet import RESNETS, Layers, ResNetName, residual_stage
from cinnema.paper.spectral import draw_first_weights

_STRIDE = 32  # pixels per position of the last feature map
_MIN_LOG_VAR, _MAX_LOG_VAR = -30.0, 10.0

_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "in": nn.InstanceNorm2d,
}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ImageEncoderConfig:
    """The section `AE` of a published conditioning config, as far as it concerns the encoder.

    Attributes:
        encoder_type: Name of the ResNet.
        norm: Its normalisation: `"bn"` for batch norm, `"in"` for instance norm without weights.
        z_dim: Number of dimensions of the embedding.
        in_size: Height and width of the training frames, in pixels, more than 32. Frames of other
            sizes are accepted too, because the last map is averaged.
        deterministic: Ignored; the embedding is always the mean.
        use_actnorm_in_dec: Ignored; it concerns the auto-encoder's decoder.

    Raises:
        ValueError: A field is unknown, missing or out of range.
    """

    encoder_type: ResNetName
    norm: Literal["bn", "in"]
    z_dim: Annotated[int, Field(ge=1)]
    in_size: Annotated[int, Field(gt=_STRIDE)]
    deterministic: bool = False
    use_actnorm_in_dec: bool = False


class ImageEncoder(nn.Module):
    """Phi(x0): the mean of the Gaussian that a 2-D ResNet predicts from the first frame.

    A ResNet, the average over all positions, and a linear map to mean and log-variance.

    Source: the paper's conditioning encoder. The released code defines ImageNet's mean and
    standard deviation but never applies them; its ResNet, and ours, reads frames in [-1, 1].

    Example:
        >>> config = ImageEncoderConfig(encoder_type="resnet18", norm="bn", z_dim=8, in_size=64)
        >>> ImageEncoder(config).eval()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 8])

    Args:
        config: ResNet, normalisation and sizes.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _ResNet2d(config)

    def forward(self, x0: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z"]:
        """Return the embedding of each frame.

        Args:
            x0: First frames in [-1, 1].

        Raises:
            UserError: The frames do not have three channels, or are too small.
        """
        return self.gaussian(x0)[0]

    def gaussian(
        self, x0: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Return the Gaussian that the auto-encoder draws from during its training.

        Args:
            x0: First frames in [-1, 1].

        Returns:
            Mean, and log-variance in [-30, 10].

        Raises:
            UserError: The frames do not have three channels, or are too small.
        """
        if x0.shape[1] != 3 or min(x0.shape[2:]) <= _STRIDE:
            raise UserError(
                f"x0: needs shape (b, 3, h, w) with sides of more than {_STRIDE} pixels, got "
                f"{tuple(x0.shape)}; use the size that it was trained on"
            )
        mean, log_var = self.model(x0).flatten(1).chunk(2, dim=1)
        return mean, log_var.clamp(_MIN_LOG_VAR, _MAX_LOG_VAR)


class _ResNet2d(nn.Module):
    """A ResNet for images, with the parameter names of torchvision's."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        shape = RESNETS[config.encoder_type]
        layers = Layers(conv=nn.Conv2d, norm=_NORMS[config.norm])
        width = 64
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = layers.norm(width)
        for index, num_blocks in enumerate(shape.depths):
            stage = residual_stage(
                width,
                64 * 2**index,
                num_blocks=num_blocks,
                bottleneck=shape.bottleneck,
                stride=1 if index == 0 else 2,
                layers=layers,
            )
            self.add_module(f"layer{index + 1}", stage)
            width = 64 * 2**index * shape.expansion
        draw_first_weights(
            self,
            nn.Conv2d,
            lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"),
        )
        self.fc = _Head(width, 2 * config.z_dim)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d 1 1"]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for index in range(1, 5):
            x = self.get_submodule(f"layer{index}")(x)
        gaussian: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1))
        return gaussian


class _Head(nn.Module):
    """A 1x1 convolution with its published parameter name."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.sub_layers = nn.ModuleList([nn.Conv2d(in_channels, out_channels, 1)])

    def forward(self, x: Float[Tensor, "b c 1 1"]) -> Float[Tensor, "b d 1 1"]:
        result: Tensor = self.sub_layers[0](x)
        return result
