"""Moving pictures along a flow: backward warping, and filling what a layer does not show."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Halvings: 128 px come down to 1 px; of larger pictures the average of what is left is taken.
_MAX_LEVELS = 7
# Places are looked up within so many half pictures of the middle.
_FARTHEST = 1e3


def warp(
    picture: Float[Tensor, "b c h w"], flow: Float[Tensor, "b 2 i j"]
) -> Float[Tensor, "b c h w"]:
    """Sample a picture where a backward flow points: out(p) = picture(p + flow(p)).

    Beyond its edges the picture goes on as its mirror image, which suits clouds and water better
    than the repeated last row.

    Args:
        picture: What is sampled, bilinearly.
        flow: In picture widths (x) and heights (y); brought to the picture's size bicubically.

    Returns:
        The picture as warped; where any flow is not finite, no number anywhere.

    Example:
        >>> picture = torch.arange(8.0).reshape(1, 1, 1, 8)
        >>> to_the_right = torch.tensor([-1 / 8, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 8)
        >>> warp(picture, to_the_right).round().flatten().tolist()
        [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    """
    height, width = picture.shape[-2:]
    # Places in bfloat16 would be off by a quarter of a pixel at 128 px, and by more above.
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
        # torch's reflection of what is no number leads out of the picture's memory.
        grid.nan_to_num(nan=0.0).clamp(-_FARTHEST, _FARTHEST),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    # What is no number must be seen: a training has to stop there.
    return (warped + 0 * flow.sum()).to(picture.dtype)


def fill(
    picture: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b c h w"]:
    """Continue a layer under what hides it: where `weight` is 0, a smooth guess from around.

    Pull-push (Gortler et al., "The Lumigraph", 1996): averages of ever larger neighbourhoods,
    weighted by `weight`, stand in where the finer ones see nothing.

    Args:
        picture: The layer, with any finite values where it is hidden.
        weight: 1 where the layer is seen, 0 where it is hidden. Between, the two are mixed.

    Returns:
        The picture itself where `weight` is 1; 0 everywhere where nothing is seen at all.
    """
    return _pull_push(picture * weight, weight, _MAX_LEVELS)


def _pull_push(weighted: Tensor, weight: Tensor, levels: int) -> Tensor:
    if levels == 0 or min(weighted.shape[-2:]) <= 1:
        seen = weight.sum(dim=(2, 3), keepdim=True).clamp_min(1e-4)
        return weighted + (1 - weight) * (weighted.sum(dim=(2, 3), keepdim=True) / seen)
    size = weighted.shape[-2:]
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    # Weights grow towards 1 with every level, so a few seen pixels speak for their surroundings.
    coarse_weight = functional.adaptive_avg_pool2d(weight, half)
    coarse = functional.adaptive_avg_pool2d(weighted, half)
    boost = (4 * coarse_weight).clamp(max=1) / coarse_weight.clamp_min(1e-6)
    guess = _pull_push(coarse * boost, coarse_weight * boost, levels - 1)
    guess = functional.interpolate(guess, size, mode="bilinear", align_corners=False)
    return weighted + (1 - weight) * guess
