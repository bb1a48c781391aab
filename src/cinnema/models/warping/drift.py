"""The control of clips in which something drifts: where to, and how far."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DRIFT_DIM = 2
"""Numbers of a drift: x in picture widths to the right, y in picture heights downwards."""

# Coherence below which a drift says nothing, and above which it says all.
_BLURRED, _CLEAR = 0.3, 0.7
# Mean displacement over a clip, in picture sizes, below which things stand still: that is known.
_STILL = 0.01
# What is slower than about this share of the fast does not count in what is apparent.
_SLOW_SHARE = 0.4
# Square of a displacement, in picture sizes, that is none.
_NOTHING = 1e-8


def drift_of(
    flow: Float[Tensor, "b 2 t g g"], moving: Float[Tensor, "b m m"]
) -> tuple[Float[Tensor, "b 2"], Float[Tensor, " b"]]:
    """Return the mean displacement of what moves over a clip, and how far it tells the motion.

    With v(p) the displacement of point p over the clip and w(p) in [0, 1] whether it moves,

        eta = sum_p w v / sum_p w,        coherence = |sum_p w v| / sum_p w |v|,

    where v = - flow at frame T, as the flow leads back to x0. Of a sky this is the wind that
    `cinnema.data.wind` estimates, counted over the clip.

    Args:
        flow: Backward flow of frames 1..T to x0, in picture widths and heights.
        moving: 1 where something moves, 0 where nothing does.

    Returns:
        eta, and a weight in [0, 1]: 1 where everything drifts one way or nothing moves, 0 where the
        motions cancel out or no place is known to move.
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
    """Return the mean displacement over a clip of what drifts fastest, as an eye would say it.

    As the estimate of `cinnema.data.wind` does, every place counts by its share in moving, too:

        m = (|v|^2 / (|v|^2 + (0.4 f)^2))^2,      f = sum_p w |v|^2 / sum_p w |v|,
        drift = sum_p w m v / sum_p w m.

    Where near clouds race and far ones crawl, or a lake counts among what moves, this is the speed
    that is seen; `drift_of` is their mean.

    Args:
        flow: Backward flow of frames 1..T to x0, in picture widths and heights.
        moving: 1 where something moves, 0 where nothing does.
    """
    shift = -flow[:, :, -1]
    weight = functional.adaptive_avg_pool2d(moving[:, None].to(shift), shift.shape[-1])
    length = shift.norm(dim=1, keepdim=True)
    fast = _mean(length, weight * length)
    moves = length.square() / (length.square() + (_SLOW_SHARE * fast).square() + _NOTHING)
    return _mean(shift, weight * moves.square()).flatten(1)


def _mean(x: Float[Tensor, "b c g g"], weight: Float[Tensor, "b 1 g g"]) -> Tensor:
    """Weighted mean over places; 0 where nothing has any weight."""
    total = weight.sum(dim=(2, 3), keepdim=True)
    out: Tensor = (x * weight).sum(dim=(2, 3), keepdim=True) / total.clamp_min(1e-9)
    return out
