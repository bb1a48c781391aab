"""What the published ports of I3D call its parts, and how they normalise."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

I3DPort: TypeAlias = Literal["kinetics", "dtdb"]


@dataclass(frozen=True)
class Port:
    """What a published port calls the parts, and the epsilon it normalises with.

    Attributes:
        capitals: Whether the names of layers begin with a capital.
        norm: Name of the batch norms.
        eps: Their epsilon.
        branches: Names of the convolutions of an Inception block, one each: 1x1; 1x1, 3x3; 1x1,
            3x3; after the pool.
        head: Name of the last layer.
    """

    capitals: bool
    norm: str
    eps: float
    branches: tuple[str, str, str, str, str, str]
    head: str

    def name_of(self, layer: str) -> str:
        """Return what the port calls a layer of the trunk.

        Args:
            layer: Our name, in small letters.
        """
        return layer.capitalize() if self.capitals else layer


PORTS: dict[I3DPort, Port] = {
    "kinetics": Port(
        capitals=False,
        norm="batch3d",
        eps=1e-3,
        branches=("branch_0", "branch_1.0", "branch_1.1", "branch_2.0", "branch_2.1", "branch_3.1"),
        head="conv3d_0c_1x1",
    ),
    "dtdb": Port(
        capitals=True,
        norm="bn",
        eps=1e-5,
        branches=("b0", "b1a", "b1b", "b2a", "b2b", "b3b"),
        head="logits",
    ),
}
