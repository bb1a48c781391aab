"""Random colours and textures for the surfaces of simulated scenes.

Colours are red, green and blue in sRGB, each in [0, 1].
"""

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Float64, UInt8

T = TypeVar("T")


def from_hex(code: str) -> Float64[np.ndarray, "3"]:
    """Return the colour of a hexadecimal code.

    Args:
        code: Six digits, such as "f3d3bd".
    """
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)])


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return a random element; repeated elements are as much more likely.

    Args:
        rng: Source of randomness.
        choices: Elements to choose from.
    """
    return choices[int(rng.integers(len(choices)))]


def varied(
    rng: np.random.Generator, colour: Float64[np.ndarray, "3"], std: float
) -> Float64[np.ndarray, "3"]:
    """Draw a colour near another one.

    Args:
        rng: Source of randomness.
        colour: Mean of the distribution.
        std: Standard deviation in each channel.
    """
    return np.asarray(np.clip(colour + rng.normal(0.0, std, 3), 0.02, 0.98))


def near_grey(rng: np.random.Generator, value: float) -> Float64[np.ndarray, "3"]:
    """Draw a grey with a slight tint.

    Args:
        rng: Source of randomness.
        value: Brightness, from 0 to 1.
    """
    return varied(rng, np.full(3, value), 0.02)


def draw_colour(
    rng: np.random.Generator, *, dull: float, darkest: float = 0.35
) -> Float64[np.ndarray, "3"]:
    """Draw a colour of any hue.

    Args:
        rng: Source of randomness.
        dull: From 0 (any saturation) to 1 (nearly grey).
        darkest: Smallest value (the maximum of the three channels).
    """
    saturation = rng.uniform(0.0, 1.0) * (1 - dull) + 0.05 * dull
    return np.array(
        colorsys.hsv_to_rgb(rng.uniform(0.0, 1.0), saturation, rng.uniform(darkest, 0.95))
    )


def draw_hsv(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> tuple[float, float, float]:
    """Draw a colour of any hue, with saturation and value in given ranges.

    Args:
        rng: Source of randomness.
        saturation: Minimum and maximum, in [0, 1].
        value: Minimum and maximum, in [0, 1].
    """
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def draw_noise(
    rng: np.random.Generator, *, size: int, roughness: float = 1.0
) -> Float[np.ndarray, "s s"]:
    """Draw periodic noise of mean 0 and standard deviation 1 with a spectrum of 1 / f^exponent.

    Args:
        rng: Source of randomness.
        size: Number of rows and columns.
        roughness: 3 - exponent: 0 is smooth, 1 cloudy, 2 grainy.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    noise = np.fft.irfft2(spectrum * np.maximum(frequency, 1) ** (roughness - 3), s=(size, size))
    return np.asarray((noise - noise.mean()) / noise.std())


def to_texture(colours: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert colours to the pixels of a texture.

    Args:
        colours: Clipped to [0, 1].
    """
    return np.asarray(np.clip(colours, 0, 1) * 255 + 0.5, dtype=np.uint8)
