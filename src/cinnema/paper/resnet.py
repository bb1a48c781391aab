"""Residual blocks, and the 3-D ResNet that video encoder and temporal discriminator share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeAlias

from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from torch.nn import functional

from cinnema.core.errors import UserError
from cinnema.paper.recomputing import recomputed
from cinnema.paper.spectral import SpectralConv3d

ResNetName: TypeAlias = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
Stride: TypeAlias = int | tuple[int, int, int]

_GROUPS = 16

Width = Annotated[int, Field(ge=_GROUPS, multiple_of=_GROUPS)]
PositiveCount = Annotated[int, Field(ge=1)]
Strides = tuple[PositiveCount, PositiveCount, PositiveCount, PositiveCount]


@dataclass(frozen=True)
class ResNetShape:
    """What distinguishes one ResNet from another, apart from widths.

    Attributes:
        depths: Number of blocks in each stage.
        bottleneck: Whether blocks are bottlenecks, with four times as many output channels as
            inner channels.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        """Output channels of a block, divided by its width."""
        return 4 if self.bottleneck else 1


RESNETS: dict[ResNetName, ResNetShape] = {
    "resnet18": ResNetShape((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetShape((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetShape((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetShape((3, 4, 23, 3), bottleneck=True),
}


@dataclass(frozen=True, kw_only=True)
class Layers:
    """The layers that residual blocks are built of.

    Attributes:
        conv: Creates a convolution, with the arguments of `nn.Conv2d` or `nn.Conv3d`.
        norm: Creates a normalisation for a number of channels.
        shortcut_kernel: Kernel size of the convolution in a shortcut; usually 1.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[[int], nn.Module]
    shortcut_kernel: int = 1


class ResidualBlock(nn.Module):
    """A basic block or a bottleneck, in 2-D or 3-D: relu(shortcut(x) + branch(x)).

    The branch is norm(conv(relu(norm(conv(x))))), with a third convolution and norm in a
    bottleneck, whose first and last convolutions are 1x1. The first 3x3 convolution has the
    stride. The shortcut is x itself where its shape does not change, else norm(conv(x)).
    Convolutions have no bias.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, figure 5.

    Args:
        in_channels: Channels of x.
        width: Inner channels; a bottleneck has 4 times as many output channels.
        bottleneck: Whether the block is a bottleneck rather than a basic block.
        stride: For all axes, or for (t, h, w).
        layers: Creates the layers.
    """

    def __init__(
        self, in_channels: int, width: int, *, bottleneck: bool, stride: Stride, layers: Layers
    ) -> None:
        super().__init__()
        # (channels in, channels out, kernel, stride) of each convolution of the branch
        plan: tuple[tuple[int, int, int, Stride], ...]
        if bottleneck:
            plan = ((in_channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        else:
            plan = ((in_channels, width, 3, stride), (width, width, 3, 1))
        self.num_convs = len(plan)
        self.out_channels = plan[-1][1]
        for index, (n_in, n_out, kernel, step) in enumerate(plan, start=1):
            self.add_module(f"conv{index}", _conv(layers, n_in, n_out, kernel, step))
            self.add_module(f"bn{index}", layers.norm(n_out))
        self.downsample: nn.Sequential | None = None
        if in_channels != self.out_channels or stride not in (1, (1, 1, 1)):
            self.downsample = nn.Sequential(
                _conv(layers, in_channels, self.out_channels, layers.shortcut_kernel, stride),
                layers.norm(self.out_channels),
            )

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b d *smaller"]:
        """Compute the block."""
        h = x
        for index in range(1, self.num_convs + 1):
            h = self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(h))
            if index < self.num_convs:
                h = functional.relu(h)
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(shortcut + h)


def residual_stage(
    in_channels: int,
    width: int,
    *,
    num_blocks: int,
    bottleneck: bool,
    stride: Stride,
    layers: Layers,
    later_layers: Layers | None = None,
) -> nn.Sequential:
    """Create one stage of residual blocks; only the first has a stride.

    Args:
        in_channels: Channels of the input.
        width: Inner channels of each block.
        num_blocks: Number of blocks, at least 1.
        bottleneck: Whether the blocks are bottlenecks.
        stride: Stride of the first block.
        layers: Creates the layers of the first block.
        later_layers: Creates the layers of the other blocks. Defaults to `layers`.
    """
    stage = nn.Sequential()
    for index in range(num_blocks):
        block = ResidualBlock(
            in_channels,
            width,
            bottleneck=bottleneck,
            stride=stride if index == 0 else 1,
            layers=layers if index == 0 else later_layers or layers,
        )
        stage.append(block)
        in_channels = block.out_channels
    return stage


def _conv(layers: Layers, n_in: int, n_out: int, kernel: int, stride: Stride) -> nn.Module:
    return layers.conv(n_in, n_out, kernel, stride=stride, padding=kernel // 2, bias=False)


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ResNet3dConfig:
    """What published configs contain for a 3-D ResNet.

    Attributes:
        res_type_encoder: Name of the ResNet.
        deterministic: Ignored, as in the released code; published configs contain it.
        use_max_pool: Whether the stem ends with a max-pool.
        channels: Widths of the stem and of the four stages, multiples of 16.
        stride_t: Strides of the four stages in time.
        stride_s: Strides of the four stages in height and width.

    Raises:
        ValueError: A field is unknown, missing or out of range.
    """

    res_type_encoder: ResNetName
    deterministic: bool = False
    use_max_pool: bool
    channels: tuple[Width, Width, Width, Width, Width]
    stride_t: Strides
    stride_s: Strides

    def final_size(self, length: int, size: int, *, stem_stride_t: int) -> tuple[int, int]:
        """Return the number of time steps and the height of the last feature map.

        Args:
            length: Number of frames of the clip.
            size: Height and width of the frames, in pixels.
            stem_stride_t: Stride of the stem in time.
        """
        stem_s = (2, 2) if self.use_max_pool else (2,)
        for stride in (stem_stride_t, *self.stride_t):
            length = -(-length // stride)  # strided layers are padded so that sizes round up
        for stride in (*stem_s, *self.stride_s):
            size = -(-size // stride)
        return length, size


class ResNet3d(nn.Module):
    """A 3-D ResNet that returns the feature maps after each of its four stages.

    The stem is a convolution with kernel (3, 7, 7) that halves height and width, GroupNorm, ReLU
    and, optionally, a max-pool that halves them again. The stages are residual blocks with
    GroupNorm of 16 groups; a shortcut is a 3x3x3 convolution and GroupNorm.

    Spectral norm applies to the convolutions of each stage's first block including the shortcut,
    and with bottlenecks to those of all blocks. In the released code shortcuts have it even where
    it is switched off; we remove it there too, so that the weights of a folded network load.

    Args:
        config: Widths and strides.
        stem_stride_t: Stride of the stem in time.
        spectral_norm: Whether convolutions have spectral norm.

    Attributes:
        recomputes: Whether the backward pass computes the activations again, which then need no
            memory.
    """

    recomputes = False

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
            UserError: The second axis is not the three colours, or the strides do not reduce
                clips of this length and size to one step of 4x4.
        """
        if x.shape[1] != 3:
            raise UserError(
                f"video: needs shape (b, 3, t, h, w), got {tuple(x.shape)}; "
                "move the colour axis before time"
            )
        length_and_size = tuple(x.shape[2:])
        maps = []
        x = self._stem(x)
        for stage in self.layer:
            x = recomputed(stage, x, network=stage) if self.recomputes else stage(x)
            maps.append(x)
        if x.shape[2:] != (1, 4, 4):
            raise UserError(
                f"video: this network's strides must reduce it to 1 step of 4x4, but reduce "
                f"{length_and_size} (t, h, w) to {tuple(x.shape[2:])}; use the length and size "
                "that it was trained on"
            )
        return maps

    def _stem(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(x)))
        return x if self.pool is None else self.pool(x)
