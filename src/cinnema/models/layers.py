"""What models are built from: warp, fill and a residual block."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

# Halvings in `fill`: 128 pixels become 1; of larger pictures the rest is averaged.
_MAX_LEVELS = 7
# Sampling positions are clamped to this, in halves of a picture from its centre.
_FARTHEST = 1e3


def warp(
    picture: Float[Tensor, "b c h w"],
    flow: Float[Tensor, "b 2 i j"],
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "b c h w"]:
    """Warp a picture by a backward flow: out(p) = picture(p + flow(p)).

    Beyond its edges the picture is continued by reflection, which suits clouds and water better
    than repeating the last row.

    Args:
        picture: The picture to warp.
        flow: In picture widths (x) and heights (y), resized bicubically to the picture.
        mode: How colours between pixels are interpolated: "bilinear" blurs detail, "bicubic" may
            overshoot a little and takes longer.

    Returns:
        The warped picture; NaN everywhere if any flow is not finite.

    Example:
        >>> picture = torch.arange(8.0).reshape(1, 1, 1, 8)
        >>> to_the_right = torch.tensor([-1 / 8, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 8)
        >>> warp(picture, to_the_right).round().flatten().tolist()
        [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    height, width = picture.shape[-2:]
    # Positions in bfloat16 would be off by a quarter of a pixel at 128 pixels, and by more above.
    precise = torch.promote_types(picture.dtype, torch.float32)
    flow = flow.to(precise)
    if flow.shape[-2:] != (height, width):
        flow = functional.interpolate(flow, (height, width), mode="bicubic", align_corners=False)
    y, x = torch.meshgrid(
        (torch.arange(height, device=flow.device, dtype=precise) + 0.5) / height,
        (torch.arange(width, device=flow.device, dtype=precise) + 0.5) / width,
        indexing="ij",
    )
    grid = torch.stack([x + flow[:, 0], y + flow[:, 1]], dim=-1).mul(2).sub(1)
    warped = functional.grid_sample(
        picture.to(precise),
        # torch's reflection of NaN reads outside of the picture's memory.
        grid.nan_to_num(nan=0.0).clamp(-_FARTHEST, _FARTHEST),
        mode=mode,
        padding_mode="reflection",
        align_corners=False,
    )
    # NaN has to show in the result, so that training stops.
    return (warped + 0 * flow.sum()).to(picture.dtype)


def fill(
    picture: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b c h w"]:
    """Fill the hidden parts of a layer smoothly from their surroundings.

    Pull-push (Gortler et al., "The Lumigraph", 1996): where a neighbourhood is hidden, its value
    is an average over a larger neighbourhood, weighted by `weight`.

    Args:
        picture: The layer, with any finite values where it is hidden.
        weight: 1 where the layer is visible, 0 where it is hidden; in between, the two are mixed.

    Returns:
        The picture itself where `weight` is 1; 0 everywhere if nothing is visible.
    """
    return _pull_push(picture * weight, weight, _MAX_LEVELS)


def _pull_push(weighted: Tensor, weight: Tensor, levels: int) -> Tensor:
    if levels == 0 or min(weighted.shape[-2:]) <= 1:
        seen = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-4)
        return weighted + (1 - weight) * (weighted.sum(dim=(2, 3), keepdim=True) / seen)
    size = weighted.shape[-2:]
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    # Weights grow towards 1 with every level, so a few visible pixels fill their surroundings.
    coarse_weight = functional.adaptive_avg_pool2d(weight, half)
    coarse = functional.adaptive_avg_pool2d(weighted, half)
    boost = (4 * coarse_weight).clamp(max=1) / coarse_weight.clamp_min(1e-6)
    guess = _pull_push(coarse * boost, coarse_weight * boost, levels - 1)
    guess = functional.interpolate(guess, size, mode="bilinear", align_corners=False)
    return weighted + (1 - weight) * guess


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, added to the input; starts as the identity.

    Args:
        channels: Number of channels, a multiple of `groups`.
        groups: Groups of each GroupNorm.
    """

    def __init__(self, channels: int, *, groups: int = 8) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(groups, channels)
        self.conv0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv1.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x plus the output of the second convolution."""
        h = self.conv0(functional.silu(self.norm0(x)))
        h = self.conv1(functional.silu(self.norm1(h)))
        out: Tensor = x + h
        return out
