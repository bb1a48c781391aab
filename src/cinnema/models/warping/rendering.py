"""From x0 and a flow to a frame: two layers, a warp, and a gated residual of a U-Net.

x0 is split into a moving and a still layer. The moving layer is continued under the still one
(`fill`), warped by the flow, always from x0 so that blur does not accumulate, and composited over
the still picture. The painter then repairs the composite: frame = composite + gate * residual.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cinnema.models.layers import ResidualBlock, fill, warp


@dataclass(frozen=True)
class Layers:
    """A picture as a moving and a still layer.

    Attributes:
        x0: The picture, in [-1, 1].
        moving: 1 where it may move, 0 where it must stay.
        plate: The moving layer, continued under the still one.
    """

    x0: Float[Tensor, "b 3 h w"]
    moving: Float[Tensor, "b 1 h w"]
    plate: Float[Tensor, "b 3 h w"]

    def composite(self, flow: Float[Tensor, "b 2 _ _"]) -> Float[Tensor, "b 3 h w"]:
        """Return the composite of the warped moving layer and the still one."""
        return torch.lerp(self.x0, warp(self.plate, flow), self.moving)


def cut(x0: Float[Tensor, "b 3 h w"], moving: Float[Tensor, "b 1 i j"]) -> Layers:
    """Split a picture into its moving and its still layer.

    Args:
        x0: The picture, in [-1, 1].
        moving: 1 where it may move, 0 where it must stay; of any resolution.

    Returns:
        The two layers at the picture's resolution.
    """
    moving = _to(moving, x0)
    # Pixels that are only half moving should not colour the plate, except where there are no
    # others.
    seen = (2 * moving - 1).clamp_min(0).square() * 0.98 + moving.square() * 0.02
    return Layers(x0=x0, moving=moving, plate=fill(x0, seen))


class MaskHead(nn.Module):
    """Maps features of x0 at strides 8, 4 and 2 to the logit of the moving mask.

    Args:
        feature_dim: Channels of the joint features, at stride 8.
        fine_dims: Channels of the features at strides 2 and 4.
        width: Channels of its layers; half of them at stride 2.
    """

    def __init__(self, *, feature_dim: int, fine_dims: tuple[int, int], width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(feature_dim, width, 1)
        self.at16 = ResidualBlock(width)
        self.join32 = nn.Conv2d(width + fine_dims[1], width, 3, padding=1)
        self.join64 = nn.Conv2d(width + fine_dims[0], width // 2, 3, padding=1)
        self.leave = nn.Conv2d(width // 2, 1, 3, padding=1)

    def forward(
        self,
        features: Float[Tensor, "b f _ _"],
        fine: tuple[Float[Tensor, "b f2 _ _"], Float[Tensor, "b f4 _ _"]],
    ) -> Float[Tensor, "b 1 _ _"]:
        """Return the logits at half of x0's size.

        Args:
            features: Joint features, at stride 8.
            fine: Features at strides 2 and 4.
        """
        h = functional.silu(self.at16(self.enter(features)))
        for join, finer in ((self.join32, fine[1]), (self.join64, fine[0])):
            h = functional.interpolate(h, finer.shape[-2:], mode="bilinear", align_corners=False)
            h = functional.silu(join(torch.cat([h, finer], dim=1)))
        out: Tensor = self.leave(h)
        return out


class Painter(nn.Module):
    """A small U-Net that repairs a composite where layers part, stretch or enter from outside.

    It works on 2 x 2 blocks of pixels (space to depth), at a quarter of the cost of single pixels.
    At initialisation its output is 0.

    Args:
        width: Channels at half of the full size; 3/2 and 2 times as many at a quarter, an eighth.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        middle, coarse = 3 * width // 2, 2 * width
        self.enter = nn.Conv2d(4 * 6 + 3, width, 3, padding=1)
        self.down0 = nn.Conv2d(width, middle, 4, stride=2, padding=1)
        self.at_quarter = ResidualBlock(middle)
        self.down1 = nn.Conv2d(middle, coarse, 4, stride=2, padding=1)
        self.at_eighth = nn.Sequential(ResidualBlock(coarse), ResidualBlock(coarse))
        self.up1 = nn.Conv2d(coarse + middle, middle, 3, padding=1)
        self.up0 = nn.Conv2d(middle + width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 4 * 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(
        self, layers: Layers, composite: Float[Tensor, "b 3 h w"], flow: Float[Tensor, "b 2 _ _"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return gate * residual, which is added to the composite.

        Args:
            layers: The two layers of x0.
            composite: `layers.composite(flow)`; height and width are multiples of 8.
            flow: The backward flow, in picture widths and heights.
        """
        blocks = functional.pixel_unshuffle(torch.cat([composite, layers.x0], dim=1), 2)
        moving = functional.avg_pool2d(layers.moving, 2)
        seen = torch.cat([blocks, moving, 8 * _to(flow, blocks)], dim=1)
        half = functional.silu(self.enter(seen))
        quarter = self.at_quarter(self.down0(half))
        eighth = self.at_eighth(self.down1(quarter))
        h = functional.silu(self.up1(torch.cat([_to(eighth, quarter), quarter], dim=1)))
        h = functional.silu(self.up0(torch.cat([_to(h, half), half], dim=1)))
        out = functional.pixel_shuffle(self.leave(h), 2)
        return torch.sigmoid(out[:, :1]) * out[:, 1:]


def _to(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
