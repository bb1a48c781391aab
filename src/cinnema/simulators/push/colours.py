"""Colours and textures of what stands on the table."""

import colorsys

import numpy as np
from jaxtyping import Float
from numpy.random import Generator

from cinnema.simulators.push.engine import Colour, Texture


def draw_colour(
    rng: Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    """Draw a colour of any hue, and of a saturation and value in these ranges."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def to_texture(colours: Float[np.ndarray, "h w 3"]) -> Texture:
    """Return colours in [0, 1] as the pixels of a texture."""
    return np.asarray(np.clip(colours, 0, 1) * 255 + 0.5, dtype=np.uint8)
