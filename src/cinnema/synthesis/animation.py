"""What the pipeline hands back: one future of a photograph, and what made it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.media.pictures import to_tensor


@dataclass(frozen=True, eq=False)
class Animation:
    """One video of a photograph.

    Attributes:
        frames: The frames that follow the photograph, sRGB, uint8, (t, height, width, 3).
        x0: The photograph at the frames' size, uint8, (height, width, 3).
        z: The latent code of the motion.
        nu: The residual that the flow made z of, temperature included: `flow.to_latent(nu, c)`
            is z. Hand it to `Pipeline.animate(..., nu=...)` to see this motion again.
        seed: What nu was drawn with; None where nu was given as a tensor.
        sample: The sample's number within its seed, from 0.
        fps: Frames a second.
        settings: What the video was made with, as JSON values.
        weights: SHA-256 of the model's file, 64 hexadecimal digits; empty for a model from memory.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    x0: UInt8[np.ndarray, "h w 3"]
    z: Float[Tensor, " z"]
    nu: Float[Tensor, " z"]
    seed: int | None
    sample: int
    fps: float
    settings: dict[str, Any]
    weights: str

    @property
    def video(self) -> Float[Tensor, "t 3 h w"]:
        """The frames as a tensor in [-1, 1], float32, in memory of its own (4 bytes a value)."""
        return to_tensor(self.frames)
