"""What every model of the two stages can do, whatever its networks are.

Tasks and measurements that need no more than this work with any model: the warping one that
cinnema trains, and the painting one of 2021 that is imported.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.control import ControlSpec


class VideoModel(nn.Module, ABC):
    """Video to z to nu, and nu to z to video, given the first frame and a control.

        z  = encode(X)                 video latent: the mean of q(z | X), or a draw from it
        c  = condition(x0, eta)        what the flow is told
        nu = to_residual(z, c)         the bijection, and its inverse to_latent
        X^ = decode(x0, z)             the frames that follow x0

    An implementer owes: every map treats the clips of a batch alone, so that a batch of one gives
    the same; none draws random numbers but from a generator that it is given; `to_latent` undoes
    `to_residual` up to rounding; `decode` returns exactly `num_frames` frames. One that takes a
    control says in `control` what it means, and if it cannot do without, draws one in `draw_eta`.

    Example:
        >>> c = model.condition(x0)
        >>> z, _ = model.to_latent(torch.randn(len(x0), model.z_dim), c)
        >>> video = model.decode(x0, z)

    Attributes:
        config: What the model is made of, a pydantic dataclass; it goes into the weights file.
        stored_dtype: What floating weights are rounded to in a file.
    """

    config: Any
    stored_dtype: ClassVar[torch.dtype] = torch.float32

    @classmethod
    def with_weights(
        cls,
        config: Any,  # noqa: ANN401 - each kind of model has its own
        state: Mapping[str, Tensor],
    ) -> "VideoModel":
        """Build a model of weights that are there already.

        Args:
            config: What it is made of.
            state: Exactly its state dict's entries; the model takes the tensors themselves.

        Returns:
            The model in evaluation mode, frozen.

        Raises:
            RuntimeError: The entries are others.
        """
        model = cls(config)
        model.load_state_dict(state, assign=True)
        return model.eval().requires_grad_(requires_grad=False)

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
    def fps(self) -> float | None:
        """Frames a second of its clips; None where it takes frames as they come."""
        return None

    @property
    def control(self) -> ControlSpec | None:
        """What eta means; None where the model takes no control."""
        return None

    @property
    def control_dim(self) -> int:
        """Length of eta; 0 where the model takes none."""
        return 0 if self.control is None else len(self.control.labels)

    def draw_eta(self, *, generator: torch.Generator) -> Float[Tensor, " e"] | None:
        """Return a control for who asks for none in particular.

        Args:
            generator: On the CPU; it is left alone by a model that needs no control.

        Returns:
            `control_dim` numbers; None where the model can do without.
        """
        del generator
        if self.control is not None and not self.control.optional:
            raise NotImplementedError(f"{type(self).__name__} must say which controls there are")
        return None

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate the control of clips from what is seen in them.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, and how far it tells the motion, in [0, 1].

        Raises:
            UserError: The model takes no control, or it cannot be read off a video.
        """
        del video
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        raise UserError(
            f"the {self.control.name} of a video cannot be read off its frames: give it, "
            f"{self.control.describe()}"
        )

    def aim(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return what to tell the flow so that these residuals do what eta says.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, temperature included.
            eta: What was asked for.

        Returns:
            eta itself for a model that cannot read its own control off z; else see
            `cinnema.models.control.aimed`.
        """
        del x0, nu
        return eta

    @abstractmethod
    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return z of clips.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: On the CPU: for a draw from q(z | X), as the flow was trained on; the mean
                of q if None.

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

    def require_clips(self, video: Float[Tensor, "b t1 3 h w"]) -> None:
        """Raise a UserError unless these clips are as long and as large as the model's.

        Args:
            video: x0 and the frames after it.
        """
        expected = (self.num_frames + 1, 3, self.size, self.size)
        if video.shape[1:] != expected:
            raise UserError(
                f"the model {self.name} encodes clips of shape {expected}, got "
                f"{tuple(video.shape[1:])}: resample or resize them"
            )
