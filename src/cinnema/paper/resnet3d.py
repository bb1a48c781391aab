"""The 3-D ResNet that video encoder and temporal discriminator have in common."""

from functools import partial
from typing import Annotated

from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.paper.resnet import RESNETS, Layers, ResNetName, residual_stage
from cinnema.paper.spectral import SpectralConv3d

_GROUPS = 16

Width = Annotated[int, Field(ge=_GROUPS, multiple_of=_GROUPS)]
PositiveCount = Annotated[int, Field(ge=1)]
Strides = tuple[PositiveCount, PositiveCount, PositiveCount, PositiveCount]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ResNet3dConfig:
    """What published configs say of a 3-D ResNet.

    Attributes:
        res_type_encoder: Which ResNet.
        deterministic: Has no effect; published configs have it and the released code ignores it.
        use_max_pool: Whether the stem ends in a max-pool.
        channels: Widths of the stem and of the four stages, multiples of 16.
        stride_t: Strides of the four stages in time.
        stride_s: Strides of the four stages in height and width.

    Raises:
        ValueError: On a field that is unknown, missing or out of range.
    """

    res_type_encoder: ResNetName
    deterministic: bool = False
    use_max_pool: bool
    channels: tuple[Width, Width, Width, Width, Width]
    stride_t: Strides
    stride_s: Strides

    def final_size(self, length: int, size: int, *, stem_stride_t: int) -> tuple[int, int]:
        """Return the steps and the height of the last map of a square clip.

        Args:
            length: Its frames.
            size: Their height, in pixels.
            stem_stride_t: Stride of the stem in time.
        """
        stem_s = (2, 2) if self.use_max_pool else (2,)
        for stride in (stem_stride_t, *self.stride_t):
            length = -(-length // stride)  # every layer that strides pads so that it rounds up
        for stride in (*stem_s, *self.stride_s):
            size = -(-size // stride)
        return length, size


class ResNet3d(nn.Module):
    """Clips to the feature maps after each of four stages, the last one step of 4x4.

    The stem is a convolution of kernel (3, 7, 7) that halves height and width, GroupNorm, ReLU
    and, if the config says so, a max-pool that halves them again. Stages are of residual blocks
    with GroupNorm of 16 groups; a shortcut is a 3x3x3 convolution and GroupNorm.

    With spectral norm, it is on the convolutions of each stage's first block, shortcut included,
    and with bottlenecks on those of all blocks. The released code leaves it on the shortcuts where
    it is switched off; we take all of it away, so that a folded network loads.

    Args:
        config: Its widths and strides.
        stem_stride_t: Stride of the stem in time.
        spectral_norm: Whether convolutions carry spectral norm.
    """

    def __init__(
        self, config: ResNet3dConfig, *, stem_stride_t: int, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        shape = RESNETS[config.res_type_encoder]
        width, *widths = config.channels
        self.conv1 = nn.Conv3d(
            3, width, (3, 7, 7), stride=(stem_stride_t, 2, 2), padding=(1, 3, 3), bias=False
        )
        self.norm1 = nn.GroupNorm(_GROUPS, width)
        self.pool = nn.MaxPool3d(3, stride=(1, 2, 2), padding=1) if config.use_max_pool else None
        plain = Layers(conv=nn.Conv3d, norm=partial(nn.GroupNorm, _GROUPS), shortcut_kernel=3)
        spectral = Layers(conv=SpectralConv3d, norm=plain.norm, shortcut_kernel=3)
        self.layer = nn.Sequential()
        for index, stage_width in enumerate(widths):
            stage = residual_stage(
                width,
                stage_width,
                num_blocks=shape.depths[index],
                bottleneck=shape.bottleneck,
                stride=(config.stride_t[index], config.stride_s[index], config.stride_s[index]),
                layers=spectral if spectral_norm else plain,
                later_layers=spectral if spectral_norm and shape.bottleneck else plain,
            )
            self.layer.append(stage)
            width = stage_width * shape.expansion
        self.num_features = width

    def maps(self, x: Float[Tensor, "b c t h w"]) -> list[Float[Tensor, "b _ _ _ _"]]:
        """Return the four feature maps.

        Args:
            x: Clips in [-1, 1], channels before time.

        Raises:
            UserError: If the second axis is not the three colours, or the clip has a length or
                size that the strides do not bring to one step of 4x4.
        """
        if x.shape[1] != 3:
            raise UserError(
                f"video: needs shape (b, 3, t, h, w), got {tuple(x.shape)}; "
                "move the colours before time"
            )
        length_and_size = tuple(x.shape[2:])
        x = functional.relu(self.norm1(self.conv1(x)))
        if self.pool is not None:
            x = self.pool(x)
        maps = []
        for stage in self.layer:
            x = stage(x)
            maps.append(x)
        if x.shape[2:] != (1, 4, 4):
            raise UserError(
                f"video: this network's strides must bring it to 1 step of 4x4, but bring "
                f"{length_and_size} (t, h, w) to {tuple(x.shape[2:])}; use the length and size "
                "of its training"
            )
        return maps
