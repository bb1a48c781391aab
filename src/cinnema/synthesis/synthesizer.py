"""What every model of the two stages can do, whatever its networks are.

Tasks and measurements that need no more than this work with any model: the warping one that
cinnema trains, and the painting one of 2021 that is imported.
"""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Synthesizer(nn.Module, ABC):
    """Video to z to nu, and nu to z to video, given the first frame and a control.

        z  = encode(X)                 video latent, without noise
        c  = condition(x0, eta)        what the flow is told
        nu = to_residual(z, c)         the bijection, and its inverse to_latent
        X^ = decode(x0, z)             the frames that follow x0

    An implementer owes: every map treats the clips of a batch alone, so that a batch of one gives
    the same; none draws random numbers; `to_latent` undoes `to_residual` up to rounding; `decode`
    returns exactly `num_frames` frames.

    Example:
        >>> c = model.condition(x0)
        >>> z, _ = model.to_latent(torch.randn(len(x0), model.z_dim), c)
        >>> video = model.decode(x0, z)
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the weights are called."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Width and height of the pictures that the networks see, in pixels."""

    @property
    @abstractmethod
    def num_frames(self) -> int:
        """T, the frames after x0 that `decode` returns."""

    @property
    @abstractmethod
    def z_dim(self) -> int:
        """Length of z and nu."""

    @property
    @abstractmethod
    def control_dim(self) -> int:
        """Length of eta; 0 where the model takes none."""

    @abstractmethod
    def encode(self, video: Float[Tensor, "b t1 3 h w"]) -> Float[Tensor, "b z"]:
        """Return z of clips.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Raises:
            UserError: Another number of frames or another size.
        """

    @abstractmethod
    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: The control; None where the model takes none.

        Raises:
            UserError: A control is missing, or given to a model that takes none.
        """

    @abstractmethod
    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Put x0 and eta into a residual: z, and log abs det d z / d nu in nats."""

    @abstractmethod
    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Take x0 and eta out of a latent: nu, and log abs det d nu / d z in nats."""

    @abstractmethod
    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, values in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: How they go on.
        """
