"""What a model makes move, and how far: the flow as it is seen, behind the mask."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.models.warping.stage1 import SceneFeatures, Stage1


def pictures(pixels: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Return pictures in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def seen_flow(
    stage1: Stage1, z: Float[Tensor, "b z"], features: SceneFeatures, *, size: int | None = None
) -> Float[Tensor, "b 2 t _ _"]:
    """Return the flow that z stands for, times the share of each cell that may move.

    It is the flow that training compares with the true one.

    Args:
        stage1: In evaluation mode.
        z: Codes.
        features: Of the first frames.
        size: Rows and columns of the result; those of the flow itself if None.
    """
    flow = stage1.basis.clip(stage1.motion(z, features.joint))
    moves = torch.sigmoid(stage1.mask(features.joint, features.fine))
    if size is not None and size != flow.shape[-1]:
        num_frames = flow.shape[2]
        flow = functional.interpolate(
            flow.flatten(1, 2), (size, size), mode="bilinear", align_corners=False
        ).unflatten(1, (2, num_frames))
    return flow * functional.adaptive_avg_pool2d(moves, flow.shape[-1])[:, :, None]


def mean_speed(
    flow: Float[Tensor, "b 2 t g g"], where: Float[Tensor, "g g"], *, size: int
) -> Float[Tensor, " b"]:
    """Return how far the points of a region move from frame to frame, in pixels.

    Args:
        flow: Backward flow to frame 0, in picture widths and heights.
        where: Weight of each cell; NaN comes back where all are 0.
        size: Width and height of the picture, in pixels.
    """
    steps = torch.diff(flow, dim=2, prepend=torch.zeros_like(flow[:, :, :1]))
    lengths = steps.square().sum(dim=1).sqrt().mean(dim=1)
    return (lengths * where).sum(dim=(1, 2)) / where.sum() * size


def mean_drift(
    flow: Float[Tensor, "b 2 t g g"], where: Float[Tensor, "g g"], *, size: int
) -> Float[Tensor, "b 2"]:
    """Return by how much a region as a whole moves, in pixels a frame: (right, down).

    The sign is that of what one sees: a backward flow to the left is a motion to the right.

    Args:
        flow: Backward flow to frame 0, in picture widths and heights.
        where: Weight of each cell; NaN comes back where all are 0.
        size: Width and height of the picture, in pixels.
    """
    last = flow[:, :, -1]
    return -(last * where).sum(dim=(2, 3)) / where.sum() * size / flow.shape[2]


def circular_spread(angles: Float[Tensor, " n"]) -> float:
    """Return the circular standard deviation of directions, in degrees.

    sqrt(-2 log R) with R the length of the mean of the unit vectors: 0 where all agree, 95 on
    average for ten directions drawn evenly. NaN if a direction is.

    Source: Mardia and Jupp, "Directional Statistics", 2000, equation 2.3.11.

    Args:
        angles: In radians.
    """
    resultant = torch.stack([angles.cos(), angles.sin()]).mean(dim=1).norm()
    # Never infinite, so that averages over starts stay finite: R below 0.01 counts as 0.01.
    return float(torch.rad2deg((-2 * resultant.clamp(0.01, 1.0).log()).sqrt()))
