"""The motion of one sample at any time, beyond the clip that it was learned on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.models.warping.motion import TemporalBasis


class Trajectory:
    """Backward flow at any time, from coefficients that know one clip.

    Within the clip, |s| <= 1, it is the basis's; further on the motion goes on where it led to:

        F_{1+s}(p) = F_s(p) + F_1(p + F_s(p)),

    and so before x0, as the basis is odd in time. F has no jump where clips meet.

    Args:
        basis: The functions of time.
        coefficients: Of one sample; scale them for slower or faster motion.
    """

    def __init__(self, basis: TemporalBasis, coefficients: Float[Tensor, "1 k 2 i j"]) -> None:
        self._basis = basis
        self._coefficients = coefficients
        self._wholes: dict[int, Tensor] = {}

    def at(self, time: float) -> Float[Tensor, "1 2 i j"]:
        """Return the flow in picture widths and heights at a time in clips, 1 its last frame."""
        # (0, 1] rather than [0, 1): the end of a clip is that clip's own, to the bit.
        whole = max(math.ceil(abs(time)) - 1, 0)
        sign = -1 if time < 0 else 1
        flow = self._within(sign * (abs(time) - whole))
        return _follow(flow, self._clips(sign * whole)) if whole else flow

    def _clips(self, count: int) -> Tensor:
        """F of a whole number of clips, but 0."""
        if count not in self._wholes:
            one = self._within(math.copysign(1, count))
            before = count - int(math.copysign(1, count))
            self._wholes[count] = _follow(one, self._clips(before)) if before else one
        return self._wholes[count]

    def _within(self, time: float) -> Tensor:
        return self._basis.at(self._coefficients, self._coefficients.new_tensor([time]))


def _follow(first: Tensor, then: Tensor) -> Tensor:
    """first(p) + then(p + first(p)); `then` goes on beyond the edges as it is there."""
    rows, columns = first.shape[-2:]
    y, x = torch.meshgrid(
        (torch.arange(rows, device=first.device) + 0.5) / rows,
        (torch.arange(columns, device=first.device) + 0.5) / columns,
        indexing="ij",
    )
    grid = torch.stack([x + first[:, 0], y + first[:, 1]], dim=-1).mul(2).sub(1)
    return first + functional.grid_sample(
        then, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
