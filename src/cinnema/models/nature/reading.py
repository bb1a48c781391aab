"""From the frames of a clip to its motion: velocity, strength and churn of each kind."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.backbones.optical_flow import forward_flow
from cinnema.media.pictures import to_pixels
from cinnema.models.nature.motion import (
    CHURN_GRID,
    GRID,
    KindDynamics,
    churn_gains,
    cosines,
    frequencies,
)

_FLOW_SIZE = 128
# Ridge penalty of a velocity's functions, by their squared frequency: a small region says little
# about fine structure, and nothing about other parts of the picture.
_RIDGE, _RIDGE_OF_CONSTANT = 0.02, 0.02
# Variance of the noise of measured flow against that of the churn.
_CHURN_NOISE = 0.3


class MeasuredMotion(NamedTuple):
    """The motion of one kind in clips.

    Attributes:
        coefficients: Of the velocity, on `cosines`, in picture sizes a step.
        strength: Root mean square of the turbulent velocity, in picture sizes a step.
    """

    coefficients: Float[Tensor, "b 2 n"]
    strength: Float[Tensor, " b"]


def measure_flow(video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b t 2 g g"]:
    """Return the flow from each frame to the next, as block means, in picture sizes.

    Args:
        video: Clips in [-1, 1], of any size.
    """
    size = (_FLOW_SIZE, _FLOW_SIZE)
    flows = [_on_grid(forward_flow(to_pixels(clip), size=size)) for clip in video]
    return torch.from_numpy(np.stack(flows)).to(video.device, torch.float32)


def _on_grid(flow: np.ndarray) -> np.ndarray:
    cell = _FLOW_SIZE // GRID
    blocks = flow.reshape(len(flow), GRID, cell, GRID, cell, 2).mean(axis=(2, 4))
    return np.asarray(blocks.transpose(0, 3, 1, 2) / _FLOW_SIZE, np.float32)


def measure_motion(
    flow: Float[Tensor, "b t 2 g g"], share: Float[Tensor, "b g g"]
) -> MeasuredMotion:
    """Return velocity and turbulence of one kind: a weighted ridge regression of the mean flow.

    Args:
        flow: Flow from each frame to the next, in picture sizes.
        share: Share of the kind in each cell.
    """
    functions = cosines().to(flow).flatten(1)
    weight = share.flatten(1) / GRID**2
    gram = torch.einsum("np,bp,mp->bnm", functions, weight, functions)
    penalty = _RIDGE * (_RIDGE_OF_CONSTANT + frequencies().to(flow))
    moment = torch.einsum("np,bp,bcp->bnc", functions, weight, flow.mean(1).flatten(2))
    coefficients = torch.linalg.solve(gram + torch.diag(penalty), moment).mT
    turbulent = flow - flow.mean(1, keepdim=True)
    energy = (turbulent.square().sum(2).mean(1) * share).sum((1, 2))
    strength = (energy / share.sum((1, 2)).clamp_min(1e-6)).sqrt()
    return MeasuredMotion(coefficients, strength)


def velocity_of(coefficients: Float[Tensor, "b 2 n"]) -> Float[Tensor, "b 2 g g"]:
    """Return the velocity field of coefficients on `cosines`."""
    return torch.einsum("bcn,nij->bcij", coefficients, cosines().to(coefficients))


def measure_churn(
    turbulent: Float[Tensor, "b t 2 g g"], strength: Float[Tensor, " b"], dynamics: KindDynamics
) -> Float[Tensor, "b m i j"]:
    """Return the churn's most likely numbers given turbulent velocities.

    A Wiener filter: the churn is linear in independent numbers, along rows, columns and time.

    Args:
        turbulent: Flow minus its mean, in picture sizes a step.
        strength: Its root mean square.
        dynamics: Constants of the kind.

    Returns:
        Numbers in the order of `CHURN_SHAPE`; 0 for gain and phases, which the flow does not show.
    """
    spatial, temporal, num_modes = churn_gains(dynamics, num_steps=turbulent.shape[1])
    scale = strength.clamp_min(1e-6)[:, None, None, None, None]
    seen = functional.adaptive_avg_pool2d(turbulent.flatten(0, 1), CHURN_GRID)
    seen = seen.view(*turbulent.shape[:3], CHURN_GRID, CHURN_GRID) / scale
    left, across, right = torch.linalg.svd(spatial)
    rows, in_time, columns = torch.linalg.svd(temporal, full_matrices=False)
    rotated = torch.einsum("tk,btcij,iu,jv->bkcuv", rows, seen, left, left)
    gain = in_time[:, None, None, None] * across[:, None] * across
    filtered = rotated * gain / (gain.square() + _CHURN_NOISE)
    numbers = torch.einsum("km,bkcuv,ui,vj->bmcij", columns, filtered, right, right)
    out = turbulent.new_zeros(len(turbulent), 2, num_modes, 3, CHURN_GRID, CHURN_GRID)
    out[:, :, :, :2] = numbers.unflatten(1, (2, num_modes))
    phases = turbulent.new_zeros(len(turbulent), 1, CHURN_GRID, CHURN_GRID)
    return torch.cat([out.flatten(1, 3), phases], dim=1)


def log_strength(strength: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the logarithm of a strength, in 1/128 picture sizes, bounded below."""
    return (strength * _FLOW_SIZE + _FLOOR).log()


def strength_of(log: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the strength of a logarithm; the inverse of `log_strength`."""
    return (log.clamp(max=_MOST).exp() - _FLOOR).clamp_min(0) / _FLOW_SIZE


_FLOOR = 0.02
_MOST = math.log(8.0)
