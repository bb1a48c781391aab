"""Colours of the walk world's people and places: red, green and blue in sRGB, each in [0, 1]."""

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float64

T = TypeVar("T")


def from_hex(code: str) -> Float64[np.ndarray, "3"]:
    """Return the colour of a code such as "f3d3bd"."""
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Draw one of some things; those that are listed twice, twice as often."""
    return choices[int(rng.integers(len(choices)))]


def varied(
    rng: np.random.Generator, colour: Float64[np.ndarray, "3"], spread: float
) -> Float64[np.ndarray, "3"]:
    """Draw a colour near another."""
    return np.asarray(np.clip(colour + rng.normal(0.0, spread, 3), 0.02, 0.98))


def near_grey(rng: np.random.Generator, value: float) -> Float64[np.ndarray, "3"]:
    """Draw a grey with a slight tint."""
    return varied(rng, np.full(3, value), 0.02)


def draw_colour(
    rng: np.random.Generator, *, dull: float, darkest: float = 0.35
) -> Float64[np.ndarray, "3"]:
    """Draw a colour of any hue.

    Args:
        rng: Source of randomness.
        dull: From 0, any saturation, to 1, nearly grey.
        darkest: The least value (the largest of the three parts).
    """
    saturation = rng.uniform(0.0, 1.0) * (1 - dull) + 0.05 * dull
    return np.array(
        colorsys.hsv_to_rgb(rng.uniform(0.0, 1.0), saturation, rng.uniform(darkest, 0.95))
    )
