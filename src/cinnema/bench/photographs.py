"""The photograph that is animated: an example of the package, at any size."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

_EXAMPLES = Path(__file__).parents[1] / "examples"


def example(size: tuple[int, int], name: str = "picos_de_europa.jpg") -> UInt8[np.ndarray, "h w 3"]:
    """Return an example photograph, cut and resized.

    Args:
        size: Width and height in pixels.
        name: File of the example.
    """
    with Image.open(_EXAMPLES / name) as image:
        fitted = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)
        return np.asarray(fitted)
