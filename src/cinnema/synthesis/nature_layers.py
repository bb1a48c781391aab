"""The layers of a photograph at its own size: the share of each kind in each pixel, and its plate.

The network answers at 192x192. Where it is sure, and two cells further in, shares are 0 and 1.
In the rim between, the colours of the photograph decide: around each point, a line is fitted to
the sure pixels of both sides, and the share of a pixel is its place on that line. What the network
doubts to be sky stands, whatever its colours. So do objects that are too small for it: spires
in the sky, colour outliers in water and meadows, and white lettering over leaves.

What is warped, the plate, shows the photograph where it surely is of the kind; elsewhere only
where its colour is one of those nearby that surely are. The rest is filled in, so no peak, roof or
treetop is drawn along or leaves its colour behind.

Source of the fit: He, Sun and Tang, "Guided Image Filtering", 2010, with colours as the guide, and
He and Sun, "Fast Guided Filter", 2015; we weight the pixels that are sure.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from cinnema.media.pictures import to_tensor
from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.reflection import SIDE, Reflection, find_reflection
from cinnema.models.nature.rendering import STREAK
from cinnema.synthesis.enlarging import Enlarged
from cinnema.synthesis.native import fill_hidden, small_size, strips
from cinnema.synthesis.skyline import doubt

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Correction: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_COARSE = 1 << 18
"""Maximum pixels of the copy on which lines are fitted; they are smooth."""

_ABSENT = 0.002
"""Share of the picture below which a kind counts as absent."""

_SURE = 0.7
"""Probability from which a network is sure."""

_RIM = 2
"""Cells on each side of an edge of the network's answer where colours decide."""

_WINDOW = 4
"""Radius in cells of the windows in which colours are compared: it reaches sure pixels."""

_UNSURE = 0.05
"""Weight of the pixels in the rim, against that of sure ones."""

_EPS = 1e-3
"""Variance of colours in [0, 1] below which they tell nothing."""

_BELIEF = 0.06
"""Weight of the network's own answer as a further colour: it decides where colours agree."""

_CERTAIN = 0.25
"""Fitted shares this close to 0 and 1 count as 0 and 1."""

_NOISE = 0.03
"""Standard deviation by which colours in [0, 1] of one kind differ anyway."""

_FAMILIAR = (1.5, 2.5)
"""Distances from the mean colour, in typical ones, that surely are and are not of a kind."""

_DARK_OUTLIER = (1.0, 2.0)
"""The same limits for colours darker than water, which is smoother than leaves. On held-out
labelled pictures this covers 8 % of the still pixels classified as water, and 4 % of the water."""

_NEAR_OUTLIER = (0.5, 1.5)
"""The same limits beside an outlier: from the second, a pixel is a part of it."""

_MOST_BRIGHT = 0.005
"""Largest share of a kind for which its bright outliers are kept still."""

_WHITE = 245
"""Level of 255 of the darkest colour from which a pixel is white."""

_THIN = 4
"""Width in cells of the spires, masts and twigs that a network overlooks."""


@dataclass(frozen=True, eq=False)
class NativeLayer:
    """One kind in a photograph.

    Attributes:
        kind: Index in `KINDS`.
        alpha: Its share in each pixel, in 255ths.
        plate: What is warped.
        base: What is under the warped plate, for things that fall in front of a scene; else None.
        reflection: How it mirrors the sky; None if it does not.
    """

    kind: int
    alpha: UInt8[np.ndarray, "h w"]
    plate: UInt8[np.ndarray, "h w 3"]
    base: UInt8[np.ndarray, "h w 3"] | None
    reflection: Reflection | None = None


def solve_alphas(
    probabilities: Float32[np.ndarray, "c i j"], pixels: UInt8[np.ndarray, "h w 3"]
) -> dict[int, Float32[np.ndarray, "h w"]]:
    """Return the share of each kind in each pixel, for the kinds that a photograph shows.

    Args:
        probabilities: Of all classes, still first.
        pixels: The photograph.
    """
    present = [
        kind
        for kind in range(len(KINDS))
        if np.clip((probabilities[kind + 1] - 0.3) / 0.4, 0, 1).mean() >= _ABSENT
    ]

    def solve(kind: int) -> np.ndarray:
        belief = probabilities[kind + 1]
        if KINDS[kind] == "falling":  # in front of everything, so it has no edges
            return _enlarged_share(belief, pixels)
        alpha = _solve_alpha(belief, pixels)
        for correct in _CORRECTIONS.get(KINDS[kind], ()):
            alpha = correct(alpha, belief, pixels)
        return alpha

    alphas = dict(zip(present, _in_threads(solve, present), strict=True))
    if len(alphas) > 1:
        for rows in strips(*pixels.shape[:2]):
            total = np.maximum(sum(alpha[rows] for alpha in alphas.values()), 1)
            for alpha in alphas.values():
                alpha[rows] /= total
    return alphas


def cut_layers(
    pixels: UInt8[np.ndarray, "h w 3"],
    alphas: dict[int, Float32[np.ndarray, "h w"]],
    probabilities: Float32[np.ndarray, "c i j"],
) -> list[NativeLayer]:
    """Return the layers of the kinds that have a share in any pixel.

    Args:
        pixels: The photograph.
        alphas: Share of each kind.
        probabilities: Of all classes, still first.
    """

    def cut(kind: int) -> NativeLayer:
        alpha = alphas[kind]
        levels = np.asarray(cv2.convertScaleAbs(alpha, alpha=255))
        if KINDS[kind] == "falling":
            base = _opened(pixels)
            return NativeLayer(kind, levels, pixels - base, base)
        plate = _plate(pixels, alpha, _sure(probabilities[kind + 1]))
        mirrored = _reflection(pixels, alphas) if KINDS[kind] == "water" else None
        return NativeLayer(kind, levels, plate, None, mirrored)

    return _in_threads(cut, sorted(kind for kind, alpha in alphas.items() if alpha.any()))


def _reflection(pixels: np.ndarray, alphas: dict[int, np.ndarray]) -> Reflection | None:
    """Return how the water of a photograph mirrors the sky; see `find_reflection`."""
    size = (SIDE, SIDE)
    shares = np.zeros((len(KINDS), *size), np.float32)
    for kind, alpha in alphas.items():
        shares[kind] = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return find_reflection(to_tensor(small), torch.from_numpy(shares))


def _in_threads(function: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """Return the function of each item, computed at once; results do not depend on it."""
    if len(items) < 2:
        return [function(item) for item in items]
    num = min(len(items), os.cpu_count() or 1)
    with ThreadPoolExecutor(num, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(function, items))


def _sure(belief: np.ndarray) -> np.ndarray:
    """Return 1 in the cells that surely are of a kind, with all cells nearby, else 0."""
    side = 2 * _RIM + 1
    inside = (belief > _SURE).astype(np.float32)
    return np.asarray(cv2.erode(inside, np.ones((side, side), np.uint8)))


def _enlarged_share(belief: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    share = np.clip((belief - 0.3) / 0.4, 0, 1)
    height, width, _ = pixels.shape
    return np.asarray(cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR))


def _solve_alpha(belief: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    height, width, _ = pixels.shape
    size = small_size(pixels, _COARSE)
    small = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA) / np.float32(255)
    probability = cv2.resize(belief, size[::-1], interpolation=cv2.INTER_LINEAR)
    inside, outside = _sure(belief), _sure(1 - belief)
    moving, still = (
        cv2.resize(x, size[::-1], interpolation=cv2.INTER_LINEAR) for x in (inside, outside)
    )
    known = np.maximum(moving, still)
    weight = _UNSURE + (1 - _UNSURE) * known
    label = np.where(known > 0.5, (moving > still).astype(np.float32), probability)
    guide = np.stack([*cv2.split(small), np.float32(_BELIEF) * probability])
    line = _fit(guide, label, weight, window=_window(size, belief.shape, _WINDOW))
    lines = Enlarged(np.stack([*line, probability]), (height, width))
    clamps = Enlarged(np.stack([inside, outside]), (height, width))
    alpha = np.empty((height, width), np.float32)
    for rows in strips(height, width):
        surely, never = clamps.rows(rows)
        alpha[rows] = surely
        if ((surely == 1) | (never == 1)).all():
            continue
        *slope, on_belief, at_0, trust = lines.rows(rows)
        share = at_0 + np.float32(_BELIEF) * on_belief * trust
        for colour, factor in zip(cv2.split(pixels[rows]), slope, strict=True):
            share += factor * (colour / np.float32(255))
        share = np.clip((share - _CERTAIN) / (1 - 2 * _CERTAIN), 0, 1)
        alpha[rows] = np.maximum(share, surely) * (1 - never)
    return alpha


def _window(size: tuple[int, int], cells: tuple[int, ...], reach: int) -> tuple[int, int]:
    """Return width and height of a window of `reach` cells around a point, in pixels."""
    height, width = (
        2 * max(1, round(reach * side / count)) + 1 for side, count in zip(size, cells, strict=True)
    )
    return width, height


def _fit(
    guide: np.ndarray, label: np.ndarray, weight: np.ndarray, *, window: tuple[int, int]
) -> list[np.ndarray]:
    """Return slopes and offset of a ridge regression of the label in a window around each point."""

    def mean(x: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.blur(x, window, borderType=cv2.BORDER_REFLECT))

    share = 1 / mean(weight)
    weighted = [x * weight for x in guide]
    centre = [mean(x) * share for x in weighted]
    level = mean(label * weight) * share
    right = [mean(x * label) * share - c * level for x, c in zip(weighted, centre, strict=True)]
    num = len(guide)
    matrix = {
        (i, j): mean(weighted[i] * guide[j]) * share - centre[i] * centre[j]
        for i in range(num)
        for j in range(i + 1)
    }
    for i in range(num):
        matrix[i, i] += np.float32(_EPS)
    slopes = _solved(matrix, right)
    offset = level - sum(slope * c for slope, c in zip(slopes, centre, strict=True))
    return [mean(x) for x in (*slopes, offset)]


def _solved(matrix: dict[tuple[int, int], np.ndarray], right: list[np.ndarray]) -> list[np.ndarray]:
    """Solve positive definite equations at each point, by A = L D L^T.

    Args:
        matrix: A_ij for i >= j.
        right: The right side.
    """
    num = len(right)
    low: dict[tuple[int, int], np.ndarray] = {}
    scale: list[np.ndarray] = []
    solved = list(right)
    for i in range(num):
        for j in range(i):
            # Here, low[i, j] is L_ij D_j.
            low[i, j] = matrix[i, j] - sum(low[i, k] * low[j, k] * scale[k] for k in range(j))
        scale.append(1 / (matrix[i, i] - sum(low[i, k] ** 2 * scale[k] for k in range(i))))
        solved[i] = right[i] - sum(low[i, k] * solved[k] * scale[k] for k in range(i))
    for i in reversed(range(num)):
        rest = sum(low[k, i] * solved[k] for k in range(i + 1, num))
        solved[i] = (solved[i] - rest) * scale[i]
    return solved


class _Palette:
    """The colours of a kind around each point, as a mean and a covariance.

    Args:
        pixels: The photograph.
        inside: 1 in the cells that surely are of the kind.
    """

    def __init__(self, pixels: np.ndarray, inside: np.ndarray) -> None:
        size = small_size(pixels, _COARSE)
        small = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA) / np.float32(255)
        known = cv2.resize(inside, size[::-1], interpolation=cv2.INTER_LINEAR)
        window = _window(size, inside.shape, 2 * _WINDOW)
        share = cv2.blur(known, window, borderType=cv2.BORDER_REFLECT) + np.float32(1e-4)
        total = np.maximum(known.sum(), np.float32(1e-6))  # in the small copy it may be lost

        def mean(x: np.ndarray) -> np.ndarray:
            x = x * known
            # Where a window holds nothing that is sure, the colours of the whole picture count.
            whole = np.float32(1e-4 * x.sum() / total)
            blurred = cv2.blur(x, window, borderType=cv2.BORDER_REFLECT)
            return np.asarray((blurred + whole) / share)

        colours = cv2.split(small)
        centre = [mean(x) for x in colours]
        covariance = [mean(colours[i] * colours[j]) - centre[i] * centre[j] for i, j in _PAIRS]
        fields = np.stack([*centre, *_precision(covariance)])
        self._darker = _darkness(colours, fields)
        self._fields = Enlarged(fields, pixels.shape[:2])
        self._pixels = pixels

    @property
    def small(self) -> Float32[np.ndarray, "i j"]:
        """Distances of the colours of the small copy, in standard deviations."""
        return np.asarray(np.abs(self._darker))

    @property
    def darker(self) -> Float32[np.ndarray, "i j"]:
        """The same, negative where colours are brighter than those of the kind."""
        return self._darker

    def familiar(self, rows: slice) -> Float32[np.ndarray, "r w"]:
        """Return 1 where colours are like those of the kind, and 0 where they are not."""
        colours = [x / np.float32(255) for x in cv2.split(self._pixels[rows])]
        return 1 - _ramp(_FAMILIAR, np.abs(_darkness(colours, self._fields.rows(rows))))


def _ramp(limits: tuple[float, float], x: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Return 0 up to the first limit and 1 from the second."""
    low, high = limits
    return np.asarray(np.clip((x - low) / (high - low), 0, 1), np.float32)


_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Entries of a symmetric 3x3 matrix."""


def _precision(covariance: list[np.ndarray]) -> list[np.ndarray]:
    """Return the entries of the inverse of symmetric 3x3 matrices, after adding the noise."""
    noise = np.float32(_NOISE**2)
    xx, xy, xz, yy, yz, zz = covariance
    xx, yy, zz = xx + noise, yy + noise, zz + noise
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    factor = 1 / (xx * a + xy * b + xz * c)
    rest = (xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy)
    return [x * factor for x in (a, b, c, *rest)]


def _darkness(colours: Sequence[np.ndarray], fields: np.ndarray) -> Float32[np.ndarray, "r w"]:
    """Return the Mahalanobis distance of colours, divided by its typical value.

    It is negative where they are brighter than the mean.
    """
    x, y, z = (colour - mean for colour, mean in zip(colours, fields[:3], strict=True))
    xx, xy, xz, yy, yz, zz = fields[3:]
    square = x * (x * xx + 2 * (y * xy + z * xz)) + y * (y * yy + 2 * z * yz) + z * z * zz
    distance = np.sqrt(np.maximum(square, 0) / np.float32(3))
    return np.asarray(np.where(x + y + z > 0, -distance, distance), np.float32)


def _without_spires(alpha: np.ndarray, belief: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Let things stand that are easily taken for sky.

    The network doubts of some; of others it is sure that they are sky, but they are thin, rise into
    the sky and touch what stands still.
    """
    inside = _sure(belief)
    if not inside.any():
        return alpha
    palette = _Palette(pixels, inside)
    size = palette.small.shape
    disc = _disc(size, belief.shape)
    odd = (palette.small > _FAMILIAR[1]).astype(np.uint8)
    thin = np.where(cv2.morphologyEx(odd, cv2.MORPH_OPEN, disc) > 0, np.uint8(0), odd)
    share = cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA)
    still = (share < 0.5).astype(np.uint8)
    # Parts with the colours of the sky may lie between: what is near is connected.
    _, labels = cv2.connectedComponents(cv2.dilate(np.maximum(thin, still), disc))
    rooted = (np.isin(labels, np.unique(labels[still > 0])) & (thin > 0)).astype(np.uint8)
    around = cv2.dilate(rooted, disc)
    gaps = cv2.morphologyEx(np.maximum(rooted, still), cv2.MORPH_CLOSE, disc)
    gaps = np.minimum(gaps, around)
    doubts = np.asarray(cv2.resize(doubt(belief), size[::-1], interpolation=cv2.INTER_LINEAR))
    fields = np.stack([around, np.maximum(gaps, doubts)]).astype(np.float32)
    near = Enlarged(fields, alpha.shape)
    out = alpha.copy()
    for rows in strips(*alpha.shape):
        is_near, is_gap = near.rows(rows)
        if is_near.any() or is_gap.any():
            out[rows] = alpha[rows] * (1 - is_near * (1 - palette.familiar(rows))) * (1 - is_gap)
    return out


def _disc(size: tuple[int, int], cells: tuple[int, ...]) -> np.ndarray:
    """Return a disc that is as wide as the widest thin thing, in a copy of this size."""
    side = 2 * max(1, round(_THIN / 2 * size[0] / cells[0])) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _without_outliers(
    alpha: np.ndarray, belief: np.ndarray, pixels: np.ndarray, *, dark: tuple[float, float]
) -> np.ndarray:
    """Keep small objects still whose colours differ from their surroundings, as reefs and animals.

    Bright outliers are kept still only if they are rare: foam, glints and blossoms are frequent.

    Args:
        alpha: Share of the kind.
        belief: Its probability.
        pixels: The photograph.
        dark: Normalised distances from the mean colour up to which darker colours belong to the
            kind, and from which they do not.
    """
    inside = _sure(belief)
    if not inside.any():
        return alpha
    palette = _Palette(pixels, inside)
    size = palette.darker.shape
    probability = cv2.resize(belief, size[::-1], interpolation=cv2.INTER_LINEAR)
    darker, brighter = palette.darker, -palette.darker
    outliers = [(darker, (probability > 0.5) * _ramp(dark, darker))]
    bright = (probability > _SURE) * _ramp(_FAMILIAR, brighter)
    if bright.sum() < _MOST_BRIGHT * (probability > _SURE).sum():
        outliers.append((brighter, bright))
    cell = max(1, round(size[0] / belief.shape[0]))
    around = np.ones((2 * cell + 1, 2 * cell + 1), np.uint8)
    factor = np.ones(size, np.float32)
    for distance, outlier in outliers:
        factor *= 1 - cv2.dilate(outlier, around) * _ramp(_NEAR_OUTLIER, distance)
    return _scaled(alpha, factor)


def _without_white_strokes(alpha: np.ndarray, belief: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Keep white lettering over leaves still, and gaps of white sky between them."""
    size = small_size(pixels, _COARSE)
    white = cv2.inRange(pixels, (_WHITE,) * 3, (255,) * 3)
    small = cv2.resize(white, size[::-1], interpolation=cv2.INTER_AREA)
    _, parts = cv2.connectedComponents((small > 255 / 4).astype(np.uint8))
    wide = cv2.erode((parts > 0).astype(np.uint8), _disc(size, belief.shape))
    strokes = (parts > 0) & ~np.isin(parts, np.unique(parts[wide > 0]))
    if not strokes.any():
        return alpha
    side = 2 * max(1, round(size[0] / belief.shape[0])) + 1
    around = cv2.dilate(strokes.astype(np.float32), np.ones((side, side), np.uint8))
    return _scaled(alpha, 1 - around)


def _scaled(alpha: np.ndarray, factor: Float32[np.ndarray, "i j"]) -> Float32[np.ndarray, "h w"]:
    """Return the product with a factor that is enlarged to the share's size."""
    enlarged = Enlarged(factor[None], alpha.shape)
    out = alpha.copy()
    for rows in strips(*alpha.shape):
        out[rows] *= enlarged.rows(rows)[0]
    return out


_CORRECTIONS: dict[str, tuple[_Correction, ...]] = {
    "sky": (_without_spires,),
    "water": (partial(_without_outliers, dark=_DARK_OUTLIER),),
    "plants": (partial(_without_outliers, dark=_FAMILIAR), _without_white_strokes),
}
"""What is changed of a kind's share, after colours have decided."""


def _plate(pixels: np.ndarray, alpha: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the photograph where it is of a kind, with everything else filled in."""
    if not inside.any():
        return fill_hidden(pixels, np.square(alpha))
    palette = _Palette(pixels, inside)
    size = palette.small.shape
    small = cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA)
    side = 2 * max(1, round(_WINDOW * size[0] / inside.shape[0])) + 1
    clear = cv2.erode((small > 1 - _CERTAIN).astype(np.float32), np.ones((side, side), np.uint8))
    known = cv2.resize(inside, size[::-1], interpolation=cv2.INTER_LINEAR) * clear
    # Colours of an edge are mixed: one cell of it is never shown.
    cell = max(1, round(size[0] / inside.shape[0]))
    off_edges = cv2.erode(small, np.ones((2 * cell + 1, 2 * cell + 1), np.uint8))
    off_edges = np.clip(2 * off_edges - 1, 0, 1)
    fields = np.stack([known, off_edges])
    shown = Enlarged(fields, alpha.shape)
    weight = np.empty_like(alpha)
    for rows in strips(*alpha.shape):
        certain, likely = shown.rows(rows)
        weight[rows] = certain
        if ((certain < 1) & (likely > 0)).any():
            weight[rows] = np.maximum(certain, palette.familiar(rows) * np.square(likely))
    return fill_hidden(pixels, weight)


def _opened(pixels: np.ndarray) -> np.ndarray:
    """Remove bright things narrower than `STREAK`: an erosion, then a dilation."""
    height, width, _ = pixels.shape
    sides = (2 * max(1, round(STREAK * side / 2)) + 1 for side in (width, height))
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, tuple(sides))
    return np.asarray(cv2.morphologyEx(pixels, cv2.MORPH_OPEN, kernel))
