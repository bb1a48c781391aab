"""Noise that the surfaces of worlds are grained with."""

import numpy as np
from jaxtyping import Float


def draw_noise(
    rng: np.random.Generator, *, size: int, roughness: float = 1.0
) -> Float[np.ndarray, "s s"]:
    """Draw periodic noise of mean 0 and deviation 1 whose spectrum falls as 1 / f^exponent.

    Args:
        rng: Source of randomness.
        size: Rows and columns.
        roughness: 1 is cloudy (exponent 2), 0 smooth (exponent 3), 2 grainy (exponent 1).
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    noise = np.fft.irfft2(spectrum * np.maximum(frequency, 1) ** (roughness - 3), s=(size, size))
    return np.asarray((noise - noise.mean()) / noise.std())
