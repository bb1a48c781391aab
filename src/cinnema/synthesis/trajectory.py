"""The flow of one sample at any time, also beyond the clip that the model was trained on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.models.warping.motion import TemporalBasis


class Trajectory:
    """Backward flow at any time, from the coefficients of one clip.

    Within the clip, |s| <= 1, it is that of the basis. After it the motion is repeated from where
    it has led to:

        F_{1+s}(p) = F_s(p) + F_1(p + F_s(p)),

    and the same before x0, as the basis is odd in time. F is continuous where clips meet.

    Args:
        basis: The basis functions of time.
        coefficients: Coefficients of one sample; scaled ones give slower or faster motion.
    """

    def __init__(self, basis: TemporalBasis, coefficients: Float[Tensor, "1 k 2 i j"]) -> None:
        self._basis = basis
        self._coefficients = coefficients
        self._wholes: dict[int, Tensor] = {}

    def at(self, time: float) -> Float[Tensor, "1 2 i j"]:
        """Return the flow in picture widths and heights at a time in clips, 1 the last frame."""
        # (0, 1] rather than [0, 1): the end of a clip belongs to that clip, to the bit.
        whole = max(math.ceil(abs(time)) - 1, 0)
        sign = -1 if time < 0 else 1
        flow = self._within(sign * (abs(time) - whole))
        return _follow(flow, self._clips(sign * whole)) if whole else flow

    def _clips(self, count: int) -> Tensor:
        """Return F at a whole number of clips other than 0."""
        if count not in self._wholes:
            one = self._within(math.copysign(1, count))
            before = count - int(math.copysign(1, count))
            self._wholes[count] = _follow(one, self._clips(before)) if before else one
        return self._wholes[count]

    def _within(self, time: float) -> Tensor:
        return self._basis.at(self._coefficients, self._coefficients.new_tensor([time]))


def _follow(first: Tensor, then: Tensor) -> Tensor:
    """Return first(p) + then(p + first(p)); `then` is constant beyond the edges."""
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
