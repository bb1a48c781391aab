"""Estimates of the drift of clips, which is the control of the warping model."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DRIFT_DIM = 2
"""Length of a drift: x to the right in picture widths, y downwards in picture heights."""

# Coherence at which the weight of a drift is 0, and at which it is 1.
_BLURRED, _CLEAR = 0.3, 0.7
# Mean displacement over a clip, in picture sizes, below which nothing moves: such a drift is known.
_STILL = 0.01
# Points slower than about this share of the fast ones do not count in the apparent drift.
_SLOW_SHARE = 0.4
# Added to squared displacements, in picture sizes, against division by 0.
_EPS = 1e-8


def drift_of(
    flow: Float[Tensor, "b 2 t g g"], moving: Float[Tensor, "b m m"]
) -> tuple[Float[Tensor, "b 2"], Float[Tensor, " b"]]:
    """Return the mean displacement of what moves over a clip, and how well it describes the motion.

    With v(p) the displacement of point p over the clip and w(p) in [0, 1] its moving mask,

        eta = sum_p w v / sum_p w,        coherence = |sum_p w v| / sum_p w |v|,

    where v = - flow at frame T, as the flow leads back to x0. For a sky this is the wind that
    `cinnema.data.wind` estimates, over one clip.

    Args:
        flow: Backward flow of frames 1..T to x0, in picture widths and heights.
        moving: 1 where something moves, 0 where nothing does.

    Returns:
        eta, and a weight in [0, 1]: 1 if everything drifts in one direction or nothing moves, 0 if
        the motions cancel out or the mask is empty.
    """
    shift = -flow[:, :, -1]
    weight = functional.adaptive_avg_pool2d(moving[:, None].to(shift), shift.shape[-1])
    total = weight.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    eta = (shift * weight).sum(dim=(2, 3)) / total[:, None]
    speed = (shift.norm(dim=1, keepdim=True) * weight).sum(dim=(1, 2, 3)) / total
    coherence = eta.norm(dim=1) / speed.clamp_min(1e-9)
    known = ((coherence - _BLURRED) / (_CLEAR - _BLURRED)).clamp(0, 1)
    known = torch.where(speed < _STILL, torch.ones_like(known), known)
    return eta, torch.where(total > 1, known, torch.zeros_like(known))


def apparent_drift(
    flow: Float[Tensor, "b 2 t g g"], moving: Float[Tensor, "b m m"]
) -> Float[Tensor, "b 2"]:
    """Return the mean displacement over a clip of what moves fastest, as a viewer perceives it.

    As in `cinnema.data.wind`, each point also has a weight that grows with its speed:

        m = (|v|^2 / (|v|^2 + (0.4 f)^2))^2,      f = sum_p w |v|^2 / sum_p w |v|,
        drift = sum_p w m v / sum_p w m.

    Where near clouds are fast and far ones slow, or a still lake is part of the mask, this is the
    perceived speed; `drift_of` is the mean of all.

    Args:
        flow: Backward flow of frames 1..T to x0, in picture widths and heights.
        moving: 1 where something moves, 0 where nothing does.
    """
    shift = -flow[:, :, -1]
    weight = functional.adaptive_avg_pool2d(moving[:, None].to(shift), shift.shape[-1])
    length = shift.norm(dim=1, keepdim=True)
    fast = _mean(length, weight * length)
    moves = length.square() / (length.square() + (_SLOW_SHARE * fast).square() + _EPS)
    return _mean(shift, weight * moves.square()).flatten(1)


def _mean(x: Float[Tensor, "b c g g"], weight: Float[Tensor, "b 1 g g"]) -> Tensor:
    """Weighted mean over points; 0 if all weights are 0."""
    total = weight.sum(dim=(2, 3), keepdim=True)
    out: Tensor = (x * weight).sum(dim=(2, 3), keepdim=True) / total.clamp_min(1e-9)
    return out
