"""Frames at the size that I3D takes, as each published score resizes them."""

from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError

FrameResize: TypeAlias = Literal["tensorflow", "half_pixel", "corners"]

FRAME_SIZE = 224
"""Height and width of I3D's frames, in pixels."""


def resize_frames(
    video: Float[Tensor, "b t c h w"], *, method: FrameResize
) -> Float[Tensor, "b t c 224 224"]:
    """Resize frames bilinearly to I3D's 224 x 224, without a low-pass filter.

    Published numbers differ in which point of the picture a new pixel i reads, of n old ones and
    224 new ones; what lies outside the picture is its border:

        "tensorflow":  i n / 224                   FVD as its authors, and the paper, compute it
        "half_pixel":  (i + 1/2) n / 224 - 1/2     most FVD in PyTorch (align_corners=False)
        "corners":     i (n - 1) / 223             DTFVD and DTI3D diversity (align_corners=True)

    The first is the default of TensorFlow 1's `resize_bilinear`: it shifts the picture up and left
    by up to half a pixel.

    Args:
        video: Clips of any size, in any range.
        method: One of the three.

    Returns:
        The clips in their own range, or `video` itself if it has that size.

    Raises:
        UserError: Another method.
    """
    if method not in _RESIZES:
        raise UserError(
            f'frames are resized by "tensorflow", "half_pixel" or "corners", got {method!r}'
        )
    if video.shape[-2:] == (FRAME_SIZE, FRAME_SIZE):
        return video
    frames = video.flatten(0, 1)
    if method == "tensorflow":
        frames = _resize_from_the_corner(_resize_from_the_corner(frames, dim=-2), dim=-1)
    else:
        frames = functional.interpolate(
            frames, (FRAME_SIZE, FRAME_SIZE), mode="bilinear", align_corners=method == "corners"
        )
    resized: Tensor = frames.unflatten(0, video.shape[:2])
    return resized


_RESIZES = get_args(FrameResize)


def _resize_from_the_corner(x: Tensor, *, dim: int) -> Tensor:
    """Read `dim` at i n / 224."""
    size = x.shape[dim]
    position = torch.arange(FRAME_SIZE, device=x.device) * (size / FRAME_SIZE)
    before = position.long()
    after = (before + 1).clamp(max=size - 1)
    share = (position - before).to(x.dtype)
    if dim == -2:
        share = share[:, None]
    return torch.lerp(x.index_select(dim, before), x.index_select(dim, after), share)
