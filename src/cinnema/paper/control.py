"""The published control of the robot's arm: where its end effector is at the last frame."""

import torch
from jaxtyping import Float
from torch import Tensor

END_POINT_DIM = 3
"""Coordinates of the end point."""

NUM_BINS = 10
"""Of each coordinate."""

ONE_HOT_DIM = END_POINT_DIM * NUM_BINS
"""What the flow hears of the control, beside the embedding."""

# In metres, of the training set, as published: the least position and the range of each axis.
_LEAST = (0.42638585, -0.3080245, 0.19146784)
_RANGE = (0.42850533, 0.54029283, 0.12564658)

END_POINT_LOW = _LEAST
END_POINT_HIGH = tuple(least + span for least, span in zip(_LEAST, _RANGE, strict=True))
"""Opposite corners of the box that the training set spans, in metres."""

# The released code takes this off 10 p, so that the far end of the range is in the last bin, and
# with it each edge between two bins belongs to the lower one.
_EDGE = 1e-4


def end_point_one_hots(end_point: Float[Tensor, "b 3"]) -> Float[Tensor, "b 30"]:
    """Return the end point as published flows hear it: three one-hots of ten bins.

        p = (x - least) / range,   bin = floor(10 p - 0.0001) from 0 to 9, for each axis

    Points beyond the range of the training set fall into the outermost bin; the released code
    fails there.

    Args:
        end_point: x, y and z of the end effector at the clip's last frame, in metres.

    Example:
        >>> end_point_one_hots(torch.tensor([[0.43, 0.0, 0.30]])).nonzero()[:, 1].tolist()
        [0, 15, 28]
    """
    least, span = end_point.new_tensor(_LEAST), end_point.new_tensor(_RANGE)
    bins = ((end_point - least) / span * NUM_BINS - _EDGE).long().clamp(0, NUM_BINS - 1)
    return torch.nn.functional.one_hot(bins, NUM_BINS).flatten(1).to(end_point.dtype)


def draw_end_point(*, generator: torch.Generator) -> Float[Tensor, " 3"]:
    """Draw an end point evenly from the box that the training set spans, in metres.

    Args:
        generator: On the CPU.
    """
    share = torch.rand(END_POINT_DIM, generator=generator)
    return torch.tensor(_LEAST) + share * torch.tensor(_RANGE)
