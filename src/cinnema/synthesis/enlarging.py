"""Smooth fields enlarged to a photograph's size, some rows at a time."""

import cv2
import numpy as np
from jaxtyping import Float32


class Enlarged:
    """Small fields that are enlarged bilinearly, as `torch.nn.functional.interpolate` does.

    Args:
        fields: The small fields.
        size: Height and width of the picture.

    Example:
        >>> Enlarged(np.zeros((2, 3, 4), np.float32), (30, 40)).rows(slice(10, 15)).shape
        (2, 5, 40)
    """

    def __init__(self, fields: Float32[np.ndarray, "c i j"], size: tuple[int, int]) -> None:
        height, self._width = size
        num_rows = fields.shape[1]
        y = (np.arange(height, dtype=np.float32) + 0.5) * np.float32(num_rows / height) - 0.5
        y = y.clip(0, num_rows - 1).astype(np.float32)
        self._fields, self._above = fields, y.astype(int)
        self._below = np.minimum(self._above + 1, num_rows - 1)
        self._share = (y - self._above.astype(np.float32))[:, None]

    def rows(self, rows: slice) -> Float32[np.ndarray, "c r w"]:
        """Return the fields in these rows of the picture."""
        above, below = self._fields[:, self._above[rows]], self._fields[:, self._below[rows]]
        tall = above + self._share[rows] * (below - above)
        flat = tall.reshape(-1, tall.shape[-1])
        wide = cv2.resize(flat, (self._width, len(flat)), interpolation=cv2.INTER_LINEAR)
        return np.asarray(wide).reshape(*tall.shape[:2], self._width)
