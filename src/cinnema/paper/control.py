"""The published control: the position of the robot's end effector at the last frame."""

import torch
from jaxtyping import Float
from torch import Tensor

END_POINT_DIM = 3
"""Number of coordinates of the end point: x, y and z."""

NUM_BINS = 10
"""Number of bins of each coordinate."""

ONE_HOT_DIM = END_POINT_DIM * NUM_BINS
"""Number of condition columns that the control adds to the embedding of x0."""

# Minimum and range of each axis over the training set, in metres, as published.
_MINIMUM = (0.42638585, -0.3080245, 0.19146784)
_RANGE = (0.42850533, 0.54029283, 0.12564658)

END_POINT_LOW = _MINIMUM
END_POINT_HIGH = tuple(low + span for low, span in zip(_MINIMUM, _RANGE, strict=True))
"""Opposite corners of the training set's bounding box, in metres."""

# The released code subtracts this from 10 p, so that the maximum falls into the last bin; the edge
# between two bins therefore belongs to the lower one.
_EDGE = 1e-4


def end_point_one_hots(end_point: Float[Tensor, "b 3"]) -> Float[Tensor, "b 30"]:
    """Return end points as the published flows take them: three one-hot vectors of ten bins.

        p = (x - minimum) / range,   bin = floor(10 p - 0.0001) in 0 ... 9, for each axis

    Points outside the training set's range fall into the outermost bins; the released code raises
    an index error for them.

    Args:
        end_point: x, y and z of the end effector at the clip's last frame, in metres.

    Returns:
        Zeros and ones in the dtype of `end_point`.

    Example:
        >>> end_point_one_hots(torch.tensor([[0.43, 0.0, 0.30]])).nonzero()[:, 1].tolist()
        [0, 15, 28]
    """
    minimum, span = end_point.new_tensor(_MINIMUM), end_point.new_tensor(_RANGE)
    bins = ((end_point - minimum) / span * NUM_BINS - _EDGE).long().clamp(0, NUM_BINS - 1)
    return torch.nn.functional.one_hot(bins, NUM_BINS).flatten(1).to(end_point.dtype)


def draw_end_point(*, generator: torch.Generator) -> Float[Tensor, " 3"]:
    """Draw an end point uniformly from the training set's bounding box.

    Args:
        generator: A generator on the CPU.

    Returns:
        x, y and z in metres.
    """
    share = torch.rand(END_POINT_DIM, generator=generator)
    return torch.tensor(_MINIMUM) + share * torch.tensor(_RANGE)
