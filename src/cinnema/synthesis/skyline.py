"""Where the sky ends: the network's answer, corrected by what a photograph can show.

The network takes single scraps of cloud for plants, water seen from above for sky, and, without
being sure of it, orange petals for flames and the texture of solid things for plants or water; and
it overlooks far hills, of which it is less sure than of the open sky above them.
"""

import cv2
import numpy as np
from jaxtyping import Float32

from cinnema.models.nature.kinds import KINDS, STILL

_SKY, _WATER = (1 + KINDS.index(name) for name in ("sky", "water"))

_SURE = 0.7
"""Probability of standing still from which a thing in the sky stands: a bird, the moon, a kite."""

_OPEN_SKY = 0.95
"""Probability from which a cell is open sky, with no thing in it."""

_LARGEST_HOLE = 0.02
"""Share of the picture up to which a hole in the sky is closed."""

_BELOW, _SOME_WATER = 0.1, 0.03
"""Share of the bottom row that a part of the sky takes, and of the picture that is water, from
which that part is water seen from above, or what it mirrors."""

_DOUBT = (1.5, 2.5)
"""Log-odds below the sky's median at which doubt begins, and at which it is complete."""

_LEAST_ODDS = 1e-4

_SOME = 0.3
"""Probability of a kind above which neighbouring cells form a component."""

_SURE_QUARTER = {"water": 0.6, "fire": 0.95, "plants": 0.75}
"""Probability that a quarter of a component's cells must reach. Chosen on held-out labelled
pictures: 0.056 of the still pixels move instead of 0.083, and 0.102 of the moving pixels are still
instead of 0.091. Waterfalls have hardly higher probabilities than snow on the ground, hence the low
value for water."""


def corrected(probabilities: Float32[np.ndarray, "c i j"]) -> Float32[np.ndarray, "c i j"]:
    """Return probabilities in which a photograph's sky has no holes and is not below water.

    Components of water, fire and plants with too few certain cells are still.

    Args:
        probabilities: Of all classes, still first.
    """
    return _without_doubtful_parts(_with_filled_sky(_seen_from_above(probabilities)))


def doubt(sky: Float32[np.ndarray, "i j"]) -> Float32[np.ndarray, "i j"]:
    """Return how much the network doubts that something is sky, from 0 to 1.

    A cell is as sure as the surest path from the open sky to it is at its weakest cell: hills
    behind an outline that is doubtful are doubtful, too. What counts is how much less sure the
    network is than of most of the sky. Doubts that nothing which stands touches are clouds.

    Args:
        sky: Probability of sky.
    """
    if not (sky > 0.5).any():
        return np.zeros_like(sky)
    odds = _log_odds(_weakest_on_path(sky))
    begin, complete = _DOUBT
    usual = np.median(_log_odds(sky[sky > 0.5]))
    doubtful = np.clip((usual - begin - odds) / (complete - begin), 0, 1).astype(np.float32)
    _, parts = cv2.connectedComponents(((doubtful > 0) | (sky < 0.5)).astype(np.uint8))
    standing = np.unique(parts[sky < 1 - _SURE])
    return np.where(np.isin(parts, standing[standing > 0]), doubtful, np.float32(0))


def _weakest_on_path(sky: np.ndarray) -> np.ndarray:
    """Return the least probability on the best path from the larger parts of the surest half."""
    surest = (sky >= np.median(sky[sky > 0.5])).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(surest)
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = 1 + np.flatnonzero(areas >= areas.max() / 10)
    reached = np.where(np.isin(parts, large), sky, np.float32(0))
    neighbours = np.ones((3, 3), np.uint8)
    while True:
        further = np.minimum(cv2.dilate(reached, neighbours), sky)
        if np.array_equal(further, reached):
            return reached
        reached = further


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _LEAST_ODDS, 1 - _LEAST_ODDS)
    return np.asarray(np.log(p / (1 - p)))


def _without_doubtful_parts(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities in which components with too few certain cells are still."""
    out = probabilities.copy()
    for name, sure in _SURE_QUARTER.items():
        kind = 1 + KINDS.index(name)
        belief = out[kind]
        _, parts = cv2.connectedComponents((belief > _SOME).astype(np.uint8))
        surely = np.bincount(parts.ravel(), weights=(belief >= sure).ravel())
        doubtful = (surely < np.bincount(parts.ravel()) / 4)[parts] & (parts > 0)
        out[STILL] += np.where(doubtful, belief, 0)
        belief[doubtful] = 0
    return out


def _with_filled_sky(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities in which small holes of the sky are sky, unless they surely stand."""
    sky = probabilities[_SKY]
    _, parts, stats, _ = cv2.connectedComponentsWithStats((sky < _OPEN_SKY).astype(np.uint8))
    left, top, width, height, area = stats[1:].T
    inside = (left > 0) & (top > 0)
    inside &= (left + width < sky.shape[1]) & (top + height < sky.shape[0])
    small = 1 + np.flatnonzero(inside & (area < _LARGEST_HOLE * sky.size))
    surely = np.unique(parts[probabilities[STILL] > _SURE])
    holes = np.isin(parts, np.setdiff1d(small, surely))
    out = probabilities.copy()
    out[:, holes], out[_SKY, holes] = 0, 1
    return out


def _seen_from_above(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities in which sky that reaches the bottom of a picture of water is water."""
    sky, water = probabilities[_SKY], probabilities[_WATER]
    if (water > 0.5).mean() < _SOME_WATER:
        return probabilities
    _, parts = cv2.connectedComponents((sky > 0.5).astype(np.uint8))
    lengths = np.bincount(parts[-1], minlength=2)[1:]
    below = np.isin(parts, 1 + np.flatnonzero(lengths >= _BELOW * sky.shape[1]))
    out = probabilities.copy()
    out[_WATER] += np.where(below, sky, 0)
    out[_SKY][below] = 0
    return out
