"""What one I3D differs in from another."""

from dataclasses import dataclass

from cinnema.backbones.i3d.ports import PORTS, I3DPort
from cinnema.core.errors import UserError

KINETICS_CLASSES = 400

_STRIDE = 8  # in time: frames for each step of the last map
_FINAL_SIZE = 7  # height and width of the last map


@dataclass(frozen=True, kw_only=True)
class I3DConfig:
    """What one I3D differs in from another.

    Attributes:
        num_classes: Length of the logits.
        frames: Length of the clips it was made for, a multiple of 8 from 16 on. The last average
            pool covers all `frames / 8` steps that are left of them.
        port: Whose state dict it loads, `"kinetics"` or `"dtdb"`: the names of the layers, and the
            epsilon of batch norm (1e-3, 1e-5).

    Raises:
        UserError: A value out of these ranges.

    Example:
        >>> I3DConfig(num_classes=18, frames=32, port="dtdb").pool
        (4, 7, 7)
    """

    num_classes: int = KINETICS_CLASSES
    frames: int = 16
    port: I3DPort = "kinetics"

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise UserError(f"I3D needs at least 1 class, got num_classes={self.num_classes}")
        if self.frames < 2 * _STRIDE or self.frames % _STRIDE:
            raise UserError(
                f"I3D is made for clips of 16, 24, 32, ... frames, got frames={self.frames}: "
                "use 16, or 32 for the long clips of DTDB"
            )
        if self.port not in PORTS:
            raise UserError(f'I3D\'s port must be "kinetics" or "dtdb", got {self.port!r}')

    @property
    def pool(self) -> tuple[int, int, int]:
        """Steps, rows and columns of the last average pool."""
        return self.frames // _STRIDE, _FINAL_SIZE, _FINAL_SIZE

    @property
    def min_frames(self) -> int:
        """The shortest clip that leaves enough steps to pool: 9 frames of 16, 25 of 32."""
        return self.frames - _STRIDE + 1
