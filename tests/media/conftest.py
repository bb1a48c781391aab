"""Videos to write and read."""

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def moving() -> Callable[..., np.ndarray]:
    """Smooth colours that drift to the right, two pixels a frame."""

    def frames(num_frames: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
        t, y, x = np.ogrid[:num_frames, :height, :width]
        red = 128 + 100 * np.sin((x - 2 * t) / 9 + 0 * y)
        green = 128 + 100 * np.cos(y / 7 + 0 * x + 0 * t)
        blue = 60 + 0 * (x + y + t) + 100 * y / height
        return np.stack([red, green, blue], axis=-1).astype(np.uint8)

    return frames
