"""Frames at the photograph's own size.

The networks see a small picture; what they say is smooth (flow, mask) or small (painting), so it
is brought to the photograph's size, and the photograph itself is what moves. A frame is the
photograph plus the change that the motion makes of the model's frame:

    frame(F) = x0 + m (warp(plate, F) - plate) + up(painted(F) - painted(0))

Stage 1's own frames are lerp(x0, warp(plate, F), m) + painted(F). The two agree where m is 0 or 1;
where it is between, stage 1's differs from x0 even at rest, which shows as a jump after the
photograph when it is shown large. So a still motion gives the photograph here, to the bit.

Everything works on 8-bit colours, by OpenCV and strip by strip: several times faster than
`grid_sample` on a CPU, and a picture of 40 megapixels needs no gigabytes of floats.
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
"""Pixels worked on at a time: what a processor's cache holds as floats."""

_COARSE = 1 << 20
"""Pixels at which masks are fitted to edges and hidden parts are filled; both are smooth."""

_EPS = 1e-3
"""Variance of the luminance under which a window counts as flat, and the mask is only smoothed."""

_CELLS = 2.0
"""Radius of the guided filter in cells of the mask, which is as far as the mask may be wrong."""

_CERTAIN = 0.25
"""Probabilities this close to 0 and 1 count as still and moving: a cloud that were 5 % still would
leave a ghost behind, and so would a peak that were 20 % cloud."""


class NativeRenderer:
    """One photograph, cut into layers once, of which any number of frames are made.

    Args:
        pixels: The photograph at the frames' size.
        moving: Probability that a point may move, of any lower resolution.
        keep_still: 1 where the photograph must stay as it is, at the frames' size.
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
        self._plate = _plate(pixels, self._moving)

    @property
    def moving(self) -> Float32[np.ndarray, "h w"]:
        """How far each point moves with the flow: 1 all the way, 0 not at all."""
        return self._moving

    def frame(
        self, flow: Float[Tensor, "1 2 i j"], painted: Float[Tensor, "1 3 m n"] | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Return one frame.

        Args:
            flow: Backward flow in picture widths and heights.
            painted: What the painter changes, in the units of [-1, 1]; None paints nothing.
        """
        height, width, _ = self._x0.shape
        scale = torch.tensor([width, height])[:, None, None]
        shifts = _Enlarged(flow[0].float().cpu() * scale, (height, width), mode="bicubic")
        paint = None
        if painted is not None:
            levels = _smooth(painted[0].float().cpu() * 127.5)
            paint = _Enlarged(levels, (height, width), mode="bilinear")
        out = np.empty_like(self._x0)
        for rows in _strips(height, width):
            change = self._motion(rows, shifts)
            if paint is not None:
                change += self._painting(rows, paint)
            out[rows] = cv2.add(change, self._x0[rows], dtype=cv2.CV_8U)  # rounds and clips
        return out

    def _motion(self, rows: slice, shifts: "_Enlarged") -> np.ndarray:
        """The change m (warp(plate) - plate) in some rows, float32, in levels of 0 ... 255."""
        plate, moving = self._plate[rows], self._moving[rows, :, None]
        if not moving.any():
            return np.zeros(plate.shape, np.float32)
        x, y = shifts.rows(rows)
        x += np.arange(x.shape[1], dtype=np.float32)
        y += np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        height, width, _ = self._x0.shape
        x, y = _mirrored(x, width), _mirrored(y, height)
        # Beyond the edges the mirror image, as `stage1.warping.warp` has it. Cubic, for a linear
        # look-up blurs what moves against what stays, and against the photograph itself.
        warped = cv2.remap(self._plate, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        change = cv2.subtract(warped, plate, dtype=cv2.CV_32F)
        change *= moving
        return change

    def _painting(self, rows: slice, paint: "_Enlarged") -> np.ndarray:
        levels = np.moveaxis(paint.rows(rows), 0, -1)
        return levels if self._free is None else levels * self._free[rows, :, None]


def _mirrored(places: np.ndarray, size: int) -> np.ndarray:
    """Bring places far beyond the edges to where the mirror image shows them.

    OpenCV's cubic look-up does so itself only as far as the first mirror image reaches.
    """
    if places.min() > -size / 2 and places.max() < 1.5 * size:
        return places
    around = np.mod(places + np.float32(0.5), np.float32(2 * size))
    return np.asarray(size - np.abs(around - size) - np.float32(0.5), np.float32)


def _smooth(painted: Float[Tensor, "3 m n"]) -> Float[Tensor, "3 m n"]:
    """Take single pixels out of the painting: enlarged, they would show as a grid of dots."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
    around = functional.pad(painted[None], (2, 2, 2, 2), mode="replicate")
    return functional.conv2d(around, kernel, groups=3)[0]


def refine_mask(
    mask: Float32[np.ndarray, "i j"], pixels: UInt8[np.ndarray, "h w 3"]
) -> Float32[np.ndarray, "h w"]:
    """Bring a mask to a photograph's size so that its edges are the photograph's.

    A guided filter: near each point the mask is fitted by a line of the luminance, q = a I + b,
    and near-certain values then become 0 and 1. Lines are fitted on a smaller picture where the
    photograph is large, and used at its own size.

    Source: He, Sun and Tang, "Guided Image Filtering", 2010, equations 4 to 8, and He and Sun,
    "Fast Guided Filter", 2015.

    Args:
        mask: Probabilities, of any lower resolution.
        pixels: The photograph.
    """
    height, width, _ = pixels.shape
    small_size = _small_size(pixels)
    guide = _luminance(
        cv2.resize(pixels, small_size[::-1], interpolation=cv2.INTER_AREA)
        if small_size != (height, width)
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
    for rows in _strips(height, width):
        q = slope[rows] * _luminance(pixels[rows]) + offset[rows]
        refined[rows] = np.clip((q - _CERTAIN) / (1 - 2 * _CERTAIN), 0, 1)
    return refined


def _plate(pixels: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """The moving layer, continued under the still one, uint8; as `stage1.rendering.cut` has it."""
    height, width, _ = pixels.shape
    weight = 0.98 * np.square(np.maximum(2 * moving - 1, 0)) + 0.02 * np.square(moving)
    small, small_weight = _seen(pixels, weight)
    x = torch.from_numpy(small).movedim(-1, 0)[None]
    plate = to_pixels(fill(x, torch.from_numpy(small_weight)[None, None])[0])
    if plate.shape == pixels.shape:
        return plate
    # One level more of pull-push: the small plate is the guess where little is seen.
    guess = np.asarray(cv2.resize(plate, (width, height), interpolation=cv2.INTER_LINEAR))
    for rows in _strips(height, width):
        seen = weight[rows]
        guess[rows] = cv2.blendLinear(pixels[rows], guess[rows], seen, 1 - seen)
    return guess


def _seen(pixels: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture in [-1, 1] and its weight, both shrunk; hidden pixels count for nothing."""
    size = _small_size(pixels)
    if size == weight.shape:
        return to_tensor(pixels).movedim(0, -1).contiguous().numpy(), weight
    masked = np.empty_like(pixels)
    for rows in _strips(*weight.shape):
        masked[rows] = np.rint(pixels[rows] * weight[rows, :, None])
    levels, share = (
        np.asarray(cv2.resize(x, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
        for x in (masked, weight)
    )
    levels /= np.maximum(share, 1e-3)[:, :, None]
    return np.clip(levels / np.float32(127.5) - 1, -1, 1), share


class _Enlarged:
    """A small field enlarged to a picture's size, some rows at a time, as torch would do it.

    Enlarging is linear in each direction, so it is a matrix for each: rows @ field @ columns.T.
    The products are torch's: numpy's would bring threads of its own, which get in torch's way.
    """

    def __init__(
        self, field: Float[Tensor, "c i j"], size: tuple[int, int], *, mode: _Mode
    ) -> None:
        rows, columns = field.shape[-2:]
        self._rows = _weights(rows, size[0], mode)
        self._across = field @ _weights(columns, size[1], mode).T

    def rows(self, rows: slice) -> np.ndarray:
        """Return the field in these rows, (channels, rows, width)."""
        weights = self._rows[rows]
        used = weights.any(dim=0).nonzero()
        near = slice(int(used[0]), int(used[-1]) + 1)  # a strip sees few of the small rows
        return (weights[:, near] @ self._across[:, near]).numpy()


@lru_cache(maxsize=16)
def _weights(size: int, new_size: int, mode: _Mode) -> Tensor:
    """The matrix, (new_size, size), that resizes a column."""
    eye = torch.eye(size)[None, None]
    return functional.interpolate(eye, (new_size, size), mode=mode, align_corners=False)[0, 0]


def _strips(height: int, width: int) -> Iterator[slice]:
    step = max(1, _STRIP // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _small_size(pixels: np.ndarray) -> tuple[int, int]:
    """Height and width divided by a whole number, so that they make at most `_COARSE` pixels."""
    height, width, _ = pixels.shape
    factor = 1
    while (height // factor) * (width // factor) > _COARSE:
        factor += 1
    return max(1, height // factor), max(1, width // factor)


def _luminance(pixels: np.ndarray) -> np.ndarray:
    """Luma in [0, 1], float32."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, np.float32) / np.float32(255)
