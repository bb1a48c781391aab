"""The keypoint model: both stages, as one file of weights holds them."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.models.control import END_POINT, ControlSpec, correct_control
from cinnema.models.flow.conditioning import Conditioner, ConditionerConfig
from cinnema.models.flow.flow import ConditionalFlow, FlowConfig
from cinnema.models.keypoint.decoder import SceneFeatures
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1

END_POINT_DIM = 3
"""Length of an end point: x, y and z in metres."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EndPointRange:
    """Range of end points.

    Attributes:
        low: Minimum of x, y and z, in metres.
        high: Maximum of x, y and z, in metres.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def centre(self) -> tuple[float, ...]:
        """The middle, which is subtracted before the conditioner."""
        return tuple((a + b) / 2 for a, b in zip(self.low, self.high, strict=True))


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointModelConfig:
    """Sizes and options of a `KeypointModel`.

    Attributes:
        kind: Marks the kind of model in a weights file.
        name: Name of the weights.
        stage1: Video encoder and decoder.
        conditioner: Network that computes the flow's condition from x0 and the control.
        flow: Conditional flow; its `z_dim` is that of stage 1, its `condition_dim` the number of
            columns of the conditioner.
        end_point: Range of the control; None for a model without a control.

    Raises:
        ValueError: The parts do not fit together.
    """

    kind: Literal["articulated"] = "articulated"
    name: str
    stage1: KeypointConfig
    conditioner: ConditionerConfig
    flow: FlowConfig
    end_point: EndPointRange | None = None

    def __post_init__(self) -> None:
        stage1, conditioner, flow = self.stage1, self.conditioner, self.flow
        num_control = 0 if self.end_point is None else END_POINT_DIM
        for names, mine, other in (
            ("flow.z_dim and stage1.z_dim", flow.z_dim, stage1.z_dim),
            (
                "flow.condition_dim and the conditioner's columns",
                flow.condition_dim,
                conditioner.out_dim,
            ),
            (
                "conditioner.feature_dim and stage1.feature_dim",
                conditioner.feature_dim,
                stage1.feature_dim,
            ),
            (
                "conditioner.control_dim and the numbers of end_point",
                conditioner.control_dim,
                num_control,
            ),
        ):
            if mine != other:
                raise UserError(f"{names} must be equal, got {mine} and {other}: change one")


class KeypointModel(VideoModel):
    """Animates articulated bodies before a still camera: a robot's arm, a person.

    Example:
        >>> model = load_model("robot").model
        >>> c = model.condition(x0, eta=torch.tensor([[0.1, 0.0, 0.05]]))
        >>> z, _ = model.to_latent(torch.randn(1, model.z_dim), c)
        >>> video = model.decode(x0, z)

    Args:
        config: Configuration of the model.
    """

    config: KeypointModelConfig
    stored_dtype: ClassVar[torch.dtype] = torch.bfloat16

    def __init__(self, config: KeypointModelConfig) -> None:
        super().__init__()
        self.config, self.stage1 = config, KeypointStage1(config.stage1)
        self.conditioner = Conditioner(config.conditioner)
        self.flow = ConditionalFlow(config.flow)

    @property
    def name(self) -> str:
        """Name of the weights."""
        return self.config.name

    @property
    def size(self) -> int:
        """Width and height of the pictures that the networks take, in pixels."""
        return self.config.stage1.size

    @property
    def num_frames(self) -> int:
        """T, the number of frames after x0 that `decode` returns."""
        return self.config.stage1.num_frames

    @property
    def z_dim(self) -> int:
        """Length of z and nu."""
        return self.config.stage1.z_dim

    @property
    def fps(self) -> float:
        """Frames a second of the clips."""
        return self.config.stage1.fps

    def to_latent(
        self, nu: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map residuals to latents: z, and log abs det d z / d nu in nats."""
        return self.flow.to_latent(nu, c)

    def to_residual(
        self, z: Float[Tensor, "b z"], c: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b z"], Float[Tensor, " b"]]:
        """Map latents to residuals: nu, and log abs det d nu / d z in nats."""
        return self.flow.to_residual(z, c)

    @property
    def scenes(self) -> str:
        """The scenes of the training clips: there are no others that the model knows."""
        if self.config.stage1.points:
            return "a simulated person"
        return "a simulated robot's arm" if self.config.end_point else "scenes of its training"

    @property
    def control(self) -> ControlSpec | None:
        """Position of the end effector at the last frame, optional; None without a control."""
        where = self.config.end_point
        if where is None:
            return None
        return ControlSpec(
            name=END_POINT,
            labels=("x", "y", "z"),
            unit="metres",
            low=where.low,
            high=where.high,
            typical=self.config.conditioner.control_scale,
            optional=True,
        )

    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return z of clips from their pixels.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: On the CPU, for a draw from q(z | X); the mean of q if None.

        Raises:
            UserError: The number of frames or the size is wrong.
        """
        self.require_clips(video)
        mean = self.stage1.encode(video)
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        return mean + self.config.stage1.noise * noise

    def read_landmarks(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t1 l"]:
        """Predict the landmarks of x0 and of each frame after it from z, in their unit.

        For a robot these are the end effector in metres, for a person the joints in picture widths
        and heights, x and y in turn. No frame is decoded.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        times = torch.arange(self.num_frames + 1, device=x0.device) / self.num_frames
        start = self.stage1.places(self.stage1.scene(x0))
        path: Tensor = start[:, None] + self.stage1.path(z, times.expand(len(x0), -1))
        return path

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate the position of the end effector at the last frame from z.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, in metres, clamped to the range of the control; and how well it describes the
            motion, which is 1.

        Raises:
            UserError: The model takes no control or has no end effector, or the number of frames
                or the size is wrong.
        """
        if self.config.end_point is None or self.config.stage1.landmarks != END_POINT_DIM:
            return super().read_control(video)
        eta = self.read_landmarks(video[:, 0], self.encode(video))[:, -1]
        low, high = (
            eta.new_tensor(v) for v in (self.config.end_point.low, self.config.end_point.high)
        )
        return eta.clamp(low, high), eta.new_ones(len(eta))

    def corrected_control(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return the control to condition the flow on, so that these residuals end where eta says.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, multiplied by the temperature.
            eta: The requested end points, in metres.

        Raises:
            UserError: The model takes no control.
        """
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        if self.config.stage1.landmarks != END_POINT_DIM:
            return eta

        def end(tried: Tensor) -> Tensor:
            z, _ = self.to_latent(nu, self.condition(x0, tried))
            return self.read_landmarks(x0, z)[:, -1]

        return correct_control(end, eta, self.control)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: x, y and z of the end effector at the last frame in metres; None leaves it open.

        Raises:
            UserError: The model takes no control, or eta has the wrong length.
        """
        scene: SceneFeatures = self.stage1.scene(x0)
        c: Tensor = self.conditioner(self.stage1.features(scene), self._centred(eta))
        return c

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        return self.stage1.decode(x0, z).clamp(-1, 1)

    def _centred(self, eta: Tensor | None) -> Tensor | None:
        if eta is None:
            return None
        where = self.config.end_point
        if where is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        if eta.shape[1:] != (END_POINT_DIM,):
            raise UserError(
                f"eta: the model {self.name} takes x, y and z in metres for each first frame, got "
                f"shape {tuple(eta.shape)}: give the end effector's position at the last frame"
            )
        return eta - eta.new_tensor(where.centre)
