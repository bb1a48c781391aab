"""A photograph as one model sees it, ready for any number of samples."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor


class Sample(NamedTuple):
    """One future of a photograph.

    Attributes:
        frames: What follows the photograph.
        z: The latent that nu became, on the CPU.
        nu: The residual with the temperature in it, on the CPU.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    z: Float[Tensor, " z"]
    nu: Float[Tensor, " z"]


class Scene(ABC):
    """All that the samples of one photograph share.

    An implementer owes: the constructor refuses what its model cannot do by a UserError, before
    anything is sampled; `video` gives the same to the bit whatever was sampled before.

    Attributes:
        x0: The photograph at the frames' size.
        notes: What there is to tell of the videos beyond their settings, as JSON values.
    """

    x0: UInt8[np.ndarray, "h w 3"]
    notes: dict[str, Any]

    @abstractmethod
    def video(self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None) -> Sample:
        """Return one future.

        Args:
            nu: A residual without the temperature, on the CPU.
            eta: The control; None where the model takes none.
        """
