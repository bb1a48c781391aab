"""Frames at the photograph's own size.

The networks work on a small picture. Their outputs are smooth (flow, mask) or small (the painter's
residual), so they are enlarged to the photograph's size, and the photograph itself is warped. A
frame is the photograph plus the change of the model's frame by the motion:

    frame(F) = x0 + m (warp(plate, F) - plate) + up(painted(F) - painted(0))

Frames of stage 1 are lerp(x0, warp(plate, F), m) + painted(F). Both agree where m is 0 or 1. Where
it is in between, those of stage 1 differ from x0 even without motion, which is visible as a jump
after the photograph at large sizes. Here no motion gives the photograph, to the bit.

All pixels are 8-bit colours, processed by OpenCV in strips: several times faster than
`grid_sample` on a CPU, and a picture of 40 megapixels takes no gigabytes of floats.
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
"""Maximum pixels for fitting masks to edges and filling hidden parts; both are smooth."""

_EPS = 1e-3
"""Variance of the luminance below which a window is flat, and the mask is only smoothed."""

_CELLS = 2.0
"""Radius of the guided filter in cells of the mask: the largest edge error that it corrects."""

_CERTAIN = 0.25
"""Probabilities this close to 0 and 1 count as still and moving: a cloud that is 5 % still would
leave a ghost behind, and so would a peak that is 20 % cloud."""


class NativeRenderer:
    """Renders frames of one photograph, which is split into layers once.

    Args:
        pixels: The photograph at the frames' size.
        moving: Probability that a point may move, in [0, 1], at any lower resolution.
        keep_still: Mask, 1 where the photograph must not change, at the frames' size.
    """

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "h w 3"],
        moving: Float32[np.ndarray, "i j"],
        *,
        keep_still: Float32[np.ndarray, "h w"] | None = None,
    ) -> None:
        self._x0 = pixels
        self._moving = refine_mask(moving, pixels)
        self._free = None if keep_still is None else 1 - keep_still
        if self._free is not None:
            self._moving *= self._free
        self._plate = fill_plate(pixels, self._moving)

    @property
    def moving(self) -> Float32[np.ndarray, "h w"]:
        """Share of the flow with which each point moves, from 0 to 1."""
        return self._moving

    def frame(
        self, flow: Float[Tensor, "1 2 i j"], painted: Float[Tensor, "1 3 m n"] | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Render one frame.

        Args:
            flow: Backward flow in picture widths and heights.
            painted: Change of the painter's residual, for pictures in [-1, 1]; None for none.
        """
        height, width, _ = self._x0.shape
        scale = torch.tensor([width, height])[:, None, None]
        shifts = Enlarged(flow[0].float().cpu() * scale, (height, width), mode="bicubic")
        paint = None
        if painted is not None:
            levels = _smooth(painted[0].float().cpu() * 127.5)
            paint = Enlarged(levels, (height, width), mode="bilinear")
        out = np.empty_like(self._x0)
        for rows in strips(height, width):
            change = self._motion_change(rows, shifts)
            if paint is not None:
                change += self._paint_change(rows, paint)
            out[rows] = cv2.add(change, self._x0[rows], dtype=cv2.CV_8U)  # rounds and clips
        return out

    def _motion_change(self, rows: slice, shifts: "Enlarged") -> np.ndarray:
        """Return m (warp(plate) - plate) in some rows, float32, in levels of 0 ... 255."""
        plate, moving = self._plate[rows], self._moving[rows, :, None]
        if not moving.any():
            return np.zeros(plate.shape, np.float32)
        x, y = shifts.rows(rows)
        x += np.arange(x.shape[1], dtype=np.float32)
        y += np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        height, width, _ = self._x0.shape
        x, y = mirrored(x, width), mirrored(y, height)
        # Reflection beyond the edges, as in `cinnema.models.layers.warp`. Cubic, because linear
        # sampling blurs moving parts, visibly against the still ones and the photograph.
        warped = cv2.remap(self._plate, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        change = cv2.subtract(warped, plate, dtype=cv2.CV_32F)
        change *= moving
        return change

    def _paint_change(self, rows: slice, paint: "Enlarged") -> np.ndarray:
        levels = np.moveaxis(paint.rows(rows), 0, -1)
        return levels if self._free is None else levels * self._free[rows, :, None]


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


def _smooth(painted: Float[Tensor, "3 m n"]) -> Float[Tensor, "3 m n"]:
    """Blur single pixels of the painter's residual: enlarged, they would be a grid of dots."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
    around = functional.pad(painted[None], (2, 2, 2, 2), mode="replicate")
    return functional.conv2d(around, kernel, groups=3)[0]


def refine_mask(
    mask: Float32[np.ndarray, "i j"], pixels: UInt8[np.ndarray, "h w 3"]
) -> Float32[np.ndarray, "h w"]:
    """Enlarge a mask to a photograph's size, with edges at those of the photograph.

    A guided filter: around each point the mask is fitted by a line of the luminance, q = a I + b,
    and nearly certain values then become 0 and 1. Lines are fitted on a smaller copy of a large
    photograph, and applied at its own size.

    Source: He, Sun and Tang, "Guided Image Filtering", 2010, equations 4 to 8, and He and Sun,
    "Fast Guided Filter", 2015.

    Args:
        mask: Probabilities, at any lower resolution.
        pixels: The photograph.
    """
    height, width, _ = pixels.shape
    small = small_size(pixels)
    guide = _luminance(
        cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
        if small != (height, width)
        else pixels
    )
    p = cv2.resize(mask, guide.shape[::-1], interpolation=cv2.INTER_LINEAR)
    window = [
        2 * max(1, round(_CELLS * side / cells)) + 1
        for side, cells in zip(guide.shape[::-1], mask.shape[::-1], strict=True)
    ]

    def mean(x: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.blur(x, window, borderType=cv2.BORDER_REFLECT))

    mean_guide, mean_p = mean(guide), mean(p)
    variance = mean(guide * guide) - mean_guide * mean_guide
    a = (mean(guide * p) - mean_guide * mean_p) / (variance + _EPS)
    b = mean_p - a * mean_guide
    slope, offset = (
        np.asarray(cv2.resize(mean(x), (width, height), interpolation=cv2.INTER_LINEAR))
        for x in (a, b)
    )
    refined = np.empty((height, width), np.float32)
    for rows in strips(height, width):
        q = slope[rows] * _luminance(pixels[rows]) + offset[rows]
        refined[rows] = np.clip((q - _CERTAIN) / (1 - 2 * _CERTAIN), 0, 1)
    return refined


def fill_plate(
    pixels: UInt8[np.ndarray, "h w 3"], moving: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the moving layer, filled in behind the still one.

    The same as `cinnema.models.warping.rendering.cut`, but large photographs are filled on a
    smaller copy.

    Args:
        pixels: The photograph.
        moving: 1 where it may move, 0 where it must stay.
    """
    return fill_hidden(
        pixels, 0.98 * np.square(np.maximum(2 * moving - 1, 0)) + 0.02 * np.square(moving)
    )


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


def _luminance(pixels: np.ndarray) -> np.ndarray:
    """Luma in [0, 1], float32."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, np.float32) / np.float32(255)
