"""Mixing frames without the loss of contrast of a plain crossfade."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

_WINDOWS = 24
"""Number of windows for local contrast along the longer side: about the size of a small cloud."""

_FLAT = 1.0
"""Variance, in squared levels of 0 ... 255, below which a window has no contrast to keep."""


def mixed(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    shares: Sequence[float],
    *,
    moving: Float32[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Mix frames and keep their local contrast, which their mean does not have.

    Where frames differ, their mean is flatter than each, and the middle of a fade looks hazy. With
    d_k the difference of frame k from its blurred copy, and <> a local mean,

        out = sum_k s_k x_k + m (g - 1) d,   d = sum_k s_k d_k,
        g^2 = <sum_k s_k d_k^2> / <d^2>,     1 <= g^2 <= 1 / sum_k s_k^2,

    so that the contrast changes from that of one frame to that of the other. g is 1 where the
    frames agree, and 1 / sqrt(sum s^2) where they are uncorrelated.

    Source: the variance-preserving operator of Heitz and Neyret, "High-Performance By-Example Noise
    using a Histogram-Preserving Blending Operator", 2018, who assume that frames are uncorrelated,
    where we measure it.

    Args:
        frames: Frames to mix, at least one, of one size.
        shares: Share of each frame; they add up to 1.
        moving: m, in [0, 1]: 1 where the picture moves; where it is 0, the result is the mean.
    """
    if len(frames) == 1:
        return frames[0]
    height, width, _ = frames[0].shape
    side = 2 * max(1, round(max(height, width) / _WINDOWS / 2)) + 1
    plain, low, energy = (np.zeros(shape, np.float32) for shape in (frames[0].shape,) * 3)
    for frame, share in zip(frames, shares, strict=True):
        levels = frame.astype(np.float32)
        blurred = cv2.blur(levels, (side, side), borderType=cv2.BORDER_REFLECT)
        plain += np.float32(share) * levels
        low += np.float32(share) * blurred
        energy += np.float32(share) * np.square(levels - blurred)
    detail = plain - low
    kept, left = (
        cv2.blur(x.mean(axis=-1), (side, side), borderType=cv2.BORDER_REFLECT) + np.float32(_FLAT)
        for x in (energy, np.square(detail))
    )
    most = 1 / sum(share * share for share in shares)
    gain = np.sqrt(np.clip(kept / left, 1, most))
    plain += (moving * (gain - 1))[..., None] * detail
    return np.rint(plain).clip(0, 255).astype(np.uint8)
