"""The interface of all video models.

Tasks and metrics that need no more than `VideoModel` work with any model: the nature and the
keypoint model that cinnema trains, and the networks of 2021, which are imported.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from cinnema.core.errors import UserError
from cinnema.models.control import ControlSpec


class VideoModel(nn.Module, ABC):
    """Maps a video to z to nu, and nu to z to a video, given the first frame and a control.

        z  = encode(X)                 video latent: the mean of q(z | X), or a draw from it
        c  = condition(x0, eta)        what the flow is conditioned on
        nu = to_residual(z, c)         the bijection, and its inverse to_latent
        X^ = decode(x0, z)             the frames that follow x0

    An implementer owes: every map treats the clips of a batch independently, so that a batch of
    one gives the same result; random numbers are drawn only from a generator that is passed in;
    `to_latent` inverts `to_residual` up to rounding; `decode` returns exactly `num_frames` frames.
    A model with a control describes it in `control`, and if the control is required, implements
    `draw_eta`.

    Example:
        >>> c = model.condition(x0)
        >>> z, _ = model.to_latent(torch.randn(len(x0), model.z_dim), c)
        >>> video = model.decode(x0, z)

    Attributes:
        config: Configuration of the model, a pydantic dataclass; it is stored in the weights file.
        stored_dtype: Data type of floating-point weights in a file.
    """

    config: Any
    stored_dtype: ClassVar[torch.dtype] = torch.float32

    @classmethod
    def with_weights(
        cls,
        config: Any,  # noqa: ANN401 - each kind of model has its own
        state: Mapping[str, Tensor],
    ) -> "VideoModel":
        """Build a model from existing weights.

        Args:
            config: Configuration of the model.
            state: Exactly the entries of its state dict; the model uses these tensors themselves.

        Returns:
            The model in evaluation mode, without gradients.

        Raises:
            RuntimeError: Entries are missing, unexpected or of the wrong shape.
        """
        model = cls(config)
        model.load_state_dict(state, assign=True)
        return model.eval().requires_grad_(requires_grad=False)

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the weights."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Width and height of the pictures that the networks take, in pixels."""

    @property
    @abstractmethod
    def num_frames(self) -> int:
        """T, the number of frames after x0 that `decode` returns."""

    @property
    @abstractmethod
    def z_dim(self) -> int:
        """Length of z and nu."""

    @property
    def flow_dim(self) -> int:
        """Number of entries at the start of z that the flow maps.

        The others are standard normal whatever x0 is, and the same in nu.
        """
        return self.z_dim

    @property
    def fps(self) -> float | None:
        """Frames a second of the clips; None if the model knows no frame rate."""
        return None

    @property
    def scenes(self) -> str | None:
        """The only scenes that the model animates, as "a robot's arm"; None for any photograph."""
        return None

    @property
    def control(self) -> ControlSpec | None:
        """Description of the control eta; None if the model has no control."""
        return None

    @property
    def control_dim(self) -> int:
        """Length of eta; 0 if the model has no control."""
        return 0 if self.control is None else len(self.control.labels)

    def draw_eta(self, *, generator: torch.Generator) -> Float[Tensor, " e"] | None:
        """Draw a control at random, for models that need one.

        Args:
            generator: On the CPU; not used if the control is optional.

        Returns:
            `control_dim` numbers; None if the control is optional or there is none.
        """
        del generator
        if self.control is not None and not self.control.optional:
            raise NotImplementedError(f"{type(self).__name__} must implement draw_eta")
        return None

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate the control of clips from their frames.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, and how well it describes the motion, from 0 to 1.

        Raises:
            UserError: The model takes no control, or it cannot be estimated from a video.
        """
        del video
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        raise UserError(
            f"the {self.control.name} of a video cannot be estimated from its frames: give it, "
            f"{self.control.describe()}"
        )

    def corrected_control(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return the control to condition the flow on, so that these residuals follow eta.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, multiplied by the temperature.
            eta: The requested control.

        Returns:
            eta unchanged if the model cannot estimate its control from z; otherwise see
            `cinnema.models.control.correct_control`.
        """
        del x0, nu
        return eta

    def accelerated(self) -> "VideoModel":
        """Return a model that computes the same faster, but for rounding; itself by default.

        It shares the weights of this one, which must not change afterwards, nor their device.
        """
        return self

    @abstractmethod
    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return z of clips.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: On the CPU, for a draw from q(z | X), which the flow is trained on; the mean
                of q if None.

        Raises:
            UserError: The number of frames or the size is wrong.
        """

    @abstractmethod
    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: The control; None if the model has none, or to leave an optional one open.

        Raises:
            UserError: A required control is missing, or the model has none.
        """

    @abstractmethod
    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents: z, and log abs det d z / d nu in nats."""

    @abstractmethod
    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals: nu, and log abs det d nu / d z in nats."""

    def blocks(self, c: Float[Tensor, "b c"]) -> Bool[Tensor, "b k"]:
        """Return which of the k blocks of z describe something that x0 shows.

        The first `flow_dim` entries of z are k equal blocks, as are the columns of c, and the flow
        maps each block given its own columns alone. A block of what x0 does not show has no effect
        on the video, so it enters neither a likelihood nor the fit of a prior. By default all of z
        is one block.

        Args:
            c: What `condition` returned.
        """
        return torch.ones(len(c), 1, dtype=torch.bool, device=c.device)

    def log_prob(self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]) -> Float64[Tensor, " b"]:
        """Return the log-density of the blocks of z that x0 shows, in nats, on the CPU.

        log N(nu; 0, I) + log abs det d nu / d z. Models with several blocks override it.

        Args:
            z: Latents.
            c: What `condition` returned.
        """
        nu, log_det = self.to_residual(z, c)
        return standard_log_prob(nu) + log_det.double().cpu()

    @abstractmethod
    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """

    def require_clips(self, video: Float[Tensor, "b t1 3 h w"]) -> None:
        """Raise a UserError unless clips have the model's length and size.

        Args:
            video: x0 and the frames after it.
        """
        expected = (self.num_frames + 1, 3, self.size, self.size)
        if video.shape[1:] != expected:
            raise UserError(
                f"the model {self.name} encodes clips of shape {expected}, got "
                f"{tuple(video.shape[1:])}: resample or resize them"
            )


def standard_log_prob(nu: Float[Tensor, "b z"]) -> Float64[Tensor, " b"]:
    """Return the log-density of rows under N(0, I), in nats, on the CPU."""
    nu = nu.double().cpu()
    return -0.5 * (nu.square() + math.log(2 * math.pi)).sum(dim=1)
