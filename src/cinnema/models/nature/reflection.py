"""Reflections: where the water of a photograph mirrors the sky, and how it follows the clouds.

Calm water shows what is above it, mirrored about a row of the picture, the axis. As the sky
changes, water at y shows the change at 2 axis - y, less strongly and softly blurred, most along the
vertical, as ripples do:

    change_water += strength blur(mirror(alpha_sky (render_sky(t) - plate_sky)))

A photograph has such water if its colours say so: along each row, those of the water must vary as
those of the mirrored picture do. Foam, breaking waves and muddy rivers do not mirror.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.models.nature.kinds import KINDS

SOFT = (2 / 128, 4 / 128)
"""Standard deviations of the blur of what is mirrored, in picture widths and heights."""

_SKY, _WATER = KINDS.index("sky"), KINDS.index("water")

SIDE = 128
"""Rows and columns of the copy in which the axis is searched."""

_SMOOTH = 2.5 / 128
"""Standard deviation in picture sizes of the blur under which colours are compared."""

_ABOVE, _BELOW = 20, 3
"""Rows above and below the first row of water in which the axis may be: a shore may hide where
distant water ends."""

_FIRST = 0.02
"""Share of the water that may lie above what counts as its first row."""

_LEAST_SKY, _LEAST_WATER = 0.04, 0.1
"""Shares of the picture that the sky and the water need."""

_LEAST_COVERAGE = 0.3
"""Share of the water whose mirrored place the picture must show."""

_LEAST_CORRELATION = 0.78
"""Correlation of colours from which the water mirrors. This and the limits below were chosen on
training clips and on photographs that no result is reported of, where calm water has 0.79 to 0.95.
"""

_LEAST_DEVIATION = 0.045
"""Deviation of the mirrored colours in a row, in [0, 1], below which they are not informative."""

_LARGEST_CONTRAST = 1.25
"""Contrast of the water relative to the mirrored colours, above which it is no reflection. The
strength is limited to that of a contrast of 1."""

_DAMPING = 0.6
"""Factor on the contrast of a change, relative to that in the photograph. In a real clip the
water changed by a third of what its reflection at rest predicts, errors of the axis included."""


@dataclass(frozen=True)
class Reflection:
    """How water mirrors.

    Attributes:
        axis: Height of the axis, in picture heights from the top.
        strength: Change of the water for a change of 1 of the sky, from 0 to 1.
    """

    axis: float
    strength: float


def find_reflection(
    x0: Float[Tensor, "3 h w"], alphas: Float[Tensor, "k h w"]
) -> Reflection | None:
    """Return how the water of a photograph mirrors what is above it; None if it does not.

    Args:
        x0: The photograph, in [-1, 1].
        alphas: Share of each of `KINDS` in each pixel.
    """
    with torch.no_grad():
        sky, water = alphas[_SKY], alphas[_WATER]
        if float(sky.mean()) < _LEAST_SKY or float(water.mean()) < _LEAST_WATER:
            return None
        stacked = torch.cat([x0, water[None]])[None]
        if stacked.shape[-2:] != (SIDE, SIDE):
            stacked = functional.interpolate(
                stacked, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
            )
        fit = _best_fit(stacked[0, :3], stacked[0, 3])
    if fit is None or not fit.is_reliable:
        return None
    return Reflection(fit.axis, _DAMPING * min(fit.contrast, 1.0))


class _Fit(NamedTuple):
    """How well the water of a photograph is explained as a mirror image about one axis.

    Attributes:
        axis: Height of the axis, in picture heights.
        coverage: Share of the water whose mirrored place the picture shows.
        correlation: Correlation of the colours.
        contrast: Slope of their regression on the mirrored colours.
        deviation: Standard deviation of the mirrored colours.
    """

    axis: float
    coverage: float
    correlation: float
    contrast: float
    deviation: float

    @property
    def score(self) -> float:
        return math.sqrt(self.coverage) * self.correlation

    @property
    def is_reliable(self) -> bool:
        has_contrast = self.coverage > _LEAST_COVERAGE and self.deviation > _LEAST_DEVIATION
        return (
            has_contrast
            and self.correlation > _LEAST_CORRELATION
            and self.contrast < _LARGEST_CONTRAST
        )


def _best_fit(x: Float[Tensor, "3 s s"], share: Float[Tensor, "s s"]) -> _Fit | None:
    """Return the best fit of colours in [-1, 1] about any axis near the first row of water."""
    sure = (share > 0.5).to(x)
    water = -functional.max_pool2d(-sure[None], 3, stride=1, padding=1)[0]
    if not bool(water.any()):
        return None
    dry = 1 - share
    above, below = _smoothed(x, dry), _smoothed(x, water)
    first = int((water.sum(1).cumsum(0) < _FIRST * water.sum()).sum())
    rows = torch.arange(SIDE, device=x.device)
    fits = []
    for twice in range(2 * (first - _ABOVE), 2 * (first + _BELOW)):
        source = twice - 1 - rows
        is_shown = (source >= 0) & (source < rows)
        source = source.clamp(0, SIDE - 1)
        weight = water * dry[source] * is_shown[:, None]
        a, b = (_without_rows(y, weight) for y in (above[:, source], below))
        aa, bb, ab = (float((weight * p * q).sum()) for p, q in ((a, a), (b, b), (a, b)))
        if min(aa, bb) > 0:
            mass = float(weight.sum())
            coverage, deviation = mass / float(water.sum()), math.sqrt(aa / mass / 3) / 2
            fits.append(
                _Fit(twice / 2 / SIDE, coverage, ab / math.sqrt(aa * bb), ab / aa, deviation)
            )
    return max(fits, key=lambda fit: fit.score, default=None)


def _smoothed(x: Float[Tensor, "c s s"], weight: Float[Tensor, "s s"]) -> Tensor:
    """Return blurred colours of the pixels that have a weight."""
    blur = _blur(SIDE, _SMOOTH).to(x)
    return (blur @ (x * weight) @ blur.T) / (blur @ weight @ blur.T).clamp_min(1e-4)


def _without_rows(x: Float[Tensor, "c s s"], weight: Float[Tensor, "s s"]) -> Tensor:
    """Return the differences from each row's weighted mean."""
    return x - (weight * x).sum(2, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-6)


def mirrors(reflections: Sequence[Reflection | None], height: int) -> Float[Tensor, "b h h"] | None:
    """Return the matrices that mirror and blur the rows of pictures, for `reflected`.

    Args:
        reflections: Of each photograph.
        height: Number of rows.

    Returns:
        Zeros for photographs without a reflection; None if no photograph has one.
    """
    if not any(reflections):
        return None
    places = (torch.arange(height) + 0.5) / height
    blur = _blur(height, SOFT[1])
    out = []
    for reflection in reflections:
        if reflection is None:
            out.append(torch.zeros(height, height))
            continue
        sources = 2 * reflection.axis - places
        distance = (sources[:, None] - places).abs() * height
        mirrored = (1 - distance).clamp_min(0) * (sources < places)[:, None]
        out.append(reflection.strength * blur @ mirrored)
    return torch.stack(out)


def reflected(
    mirror: Float[Tensor, "b h h"], change: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Return the change of the water that mirrors a change of the sky.

    Args:
        mirror: From `mirrors`.
        change: What the sky shows, less what it shows in the photograph.
    """
    across = _blur(change.shape[-1], SOFT[0]).to(change)
    return mirror.to(change)[:, None] @ change @ across.T


@lru_cache(maxsize=16)
def _blur(side: int, deviation: float) -> Float[Tensor, "s s"]:
    """Return the matrix of a Gaussian blur with a deviation in picture sizes."""
    with torch.inference_mode(False), torch.no_grad():  # it is used in any mode later on
        places = torch.arange(side) / side
        weights = torch.exp(-0.5 * ((places[:, None] - places) / deviation).square())
        weights[weights < 1e-4] = 0  # numbers that are nearly 0 are slow
        return weights / weights.sum(1, keepdim=True)
