"""Pictures at a photograph's own size: enlarged fields, filled layers, and strips of rows.

The networks work on a small picture, and what they return is smooth, so it is enlarged. All pixels
are 8-bit colours, processed by OpenCV in strips: several times faster than `grid_sample` on a CPU,
and a picture of 40 megapixels takes no gigabytes of floats.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.media.pictures import to_pixels, to_tensor
from cinnema.models.layers import fill

_Mode: TypeAlias = Literal["bilinear", "bicubic"]

_STRIP = 1 << 18
"""Pixels of a strip: as floats they fit into a processor's cache."""

_COARSE = 1 << 20
"""Maximum pixels for filling hidden parts, which are smooth."""


def mirrored(places: np.ndarray, size: int) -> np.ndarray:
    """Reflect positions that lie far beyond the edges.

    OpenCV's cubic sampling does so itself only as far as one picture size.

    Args:
        places: Positions along one side, in pixels.
        size: Length of the side, in pixels.
    """
    if places.min() > -size / 2 and places.max() < 1.5 * size:
        return places
    around = np.mod(places + np.float32(0.5), np.float32(2 * size))
    return np.asarray(size - np.abs(around - size) - np.float32(0.5), np.float32)


def fill_hidden(
    pixels: UInt8[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Fill the hidden parts of a photograph, see `cinnema.models.layers.fill`.

    Args:
        pixels: The photograph.
        weight: 1 where it is visible, 0 where it is hidden.
    """
    height, width, _ = pixels.shape
    small, small_weight = _seen(pixels, weight)
    x = torch.from_numpy(small).movedim(-1, 0)[None]
    plate = to_pixels(fill(x, torch.from_numpy(small_weight)[None, None])[0])
    if plate.shape == pixels.shape:
        return plate
    # One more level of pull-push: the small plate fills what is hidden.
    guess = np.asarray(cv2.resize(plate, (width, height), interpolation=cv2.INTER_LINEAR))
    for rows in strips(height, width):
        seen = weight[rows]
        guess[rows] = cv2.blendLinear(pixels[rows], guess[rows], seen, 1 - seen)
    return guess


def _seen(pixels: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture in [-1, 1] and its weight, scaled down; hidden pixels have weight 0."""
    size = small_size(pixels)
    if size == weight.shape:
        return to_tensor(pixels).movedim(0, -1).contiguous().numpy(), weight
    masked = np.empty_like(pixels)
    for rows in strips(*weight.shape):
        masked[rows] = np.rint(pixels[rows] * weight[rows, :, None])
    levels, share = (
        np.asarray(cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
        for x in (masked, weight)
    )
    levels /= np.maximum(share, 1e-3)[:, :, None]
    return np.clip(levels / np.float32(127.5) - 1, -1, 1), share


class Enlarged:
    """A small field enlarged to a picture's size as torch does, some rows at a time.

    Enlarging is linear in each direction, so it is a matrix product: rows @ field @ columns.T.
    The products are torch's, as those of numpy would start threads of their own.

    Args:
        field: The small field.
        size: Height and width of the picture.
        mode: As in `torch.nn.functional.interpolate`.
        columns: The columns of the picture that are needed.
    """

    def __init__(
        self,
        field: Float[Tensor, "c i j"],
        size: tuple[int, int],
        *,
        mode: _Mode,
        columns: slice = slice(None),
    ) -> None:
        num_rows, num_columns = field.shape[-2:]
        self._rows = _weights(num_rows, size[0], mode)
        self._across = field @ _weights(num_columns, size[1], mode)[columns].T

    def rows(self, rows: slice) -> np.ndarray:
        """Return the field in these rows, (channels, rows, width)."""
        weights = self._rows[rows]
        used = weights.any(dim=0).nonzero()
        near = slice(int(used[0]), int(used[-1]) + 1)  # a strip uses few of the small rows
        return (weights[:, near] @ self._across[:, near]).numpy()


@lru_cache(maxsize=16)
def _weights(size: int, new_size: int, mode: _Mode) -> Tensor:
    """Return the matrix, (new_size, size), that resizes a column."""
    eye = torch.eye(size)[None, None]
    return functional.interpolate(eye, (new_size, size), mode=mode, align_corners=False)[0, 0]


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of strips of a picture that fit into a processor's cache."""
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def small_size(pixels: UInt8[np.ndarray, "h w 3"], most: int = _COARSE) -> tuple[int, int]:
    """Return height and width, divided by a whole number.

    Args:
        pixels: The photograph.
        most: Maximum number of pixels of the result.
    """
    height, width, _ = pixels.shape
    factor = 1
    while (height // factor) * (width // factor) > most:
        factor += 1
    return max(1, height // factor), max(1, width // factor)
