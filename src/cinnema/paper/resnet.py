"""The residual blocks that the published image and video networks are built of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

ResNetName: TypeAlias = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
Stride: TypeAlias = int | tuple[int, int, int]


@dataclass(frozen=True)
class ResNetShape:
    """What tells one ResNet from another, widths apart.

    Attributes:
        depths: Number of blocks of each stage.
        bottleneck: Whether blocks are bottlenecks, four times as wide at their end as inside.
    """

    depths: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        """Channels that a block returns, over its width."""
        return 4 if self.bottleneck else 1


RESNETS: dict[ResNetName, ResNetShape] = {
    "resnet18": ResNetShape((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetShape((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetShape((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetShape((3, 4, 23, 3), bottleneck=True),
}


@dataclass(frozen=True, kw_only=True)
class Layers:
    """How a family of ResNets makes its layers.

    Attributes:
        conv: Makes a convolution, with the arguments of `nn.Conv2d` or `nn.Conv3d`.
        norm: Makes the normalisation of so many channels.
        shortcut_kernel: Side of the kernel of a convolution in a shortcut; 1 is usual.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[[int], nn.Module]
    shortcut_kernel: int = 1


class ResidualBlock(nn.Module):
    """A basic block or a bottleneck, in 2-D or 3-D: relu(shortcut(x) + branch(x)).

    The branch is norm(conv(relu(norm(conv(x))))), or one more of each in a bottleneck, whose first
    and last convolutions are 1x1. The 3x3 convolution that comes first takes the stride. The
    shortcut is x itself where shape and width stay, else norm(conv(x)). No convolution has a bias.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, figure 5.

    Args:
        in_channels: Channels of x.
        width: Channels inside; the result has 4 times as many if the block is a bottleneck.
        bottleneck: Which of the two blocks.
        stride: In every direction, or for (t, h, w).
        layers: Makes the layers.
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
    """Make the blocks of one stage, of which only the first strides.

    Args:
        in_channels: Channels that enter.
        width: Of the blocks.
        num_blocks: At least 1.
        bottleneck: Which kind of block.
        stride: Of the first block.
        layers: Makes the layers of the first block.
        later_layers: Makes those of the others; the same if None.
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
