"""The model of what acts before a still camera: a robot's arm, a person."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.control import END_POINT, ControlSpec, aimed
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.keypoint.decoder import Scene
from cinnema.models.keypoint.stage1 import KeypointConfig, KeypointStage1
from cinnema.models.two_stage import TwoStageModel, require_fit

END_POINT_DIM = 3
"""Numbers of an end point: x, y and z in metres."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EndPointRange:
    """Where an end point can be.

    Attributes:
        low: Least x, y and z, in metres.
        high: Greatest x, y and z, in metres.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def centre(self) -> tuple[float, ...]:
        """The middle, which the conditioner takes for 0."""
        return tuple((a + b) / 2 for a, b in zip(self.low, self.high, strict=True))


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KeypointModelConfig:
    """Everything that makes an `KeypointModel`, weights apart.

    Attributes:
        kind: What tells its file from that of another model.
        name: What the weights are called.
        stage1: Clip encoder and decoder.
        conditioner: What the flow sees of x0 and of the control.
        flow: Its `z_dim` is stage 1's, its `condition_dim` the conditioner's.
        end_point: Where the end effector can be sent to; None for a model without a control.

    Raises:
        ValueError: The parts do not fit each other.
    """

    kind: Literal["articulated"] = "articulated"
    name: str
    stage1: KeypointConfig
    conditioner: ConditionerConfig
    flow: FlowConfig
    end_point: EndPointRange | None = None

    def __post_init__(self) -> None:
        wanted = 0 if self.end_point is None else END_POINT_DIM
        pair = (self.conditioner.control_dim, wanted)
        require_fit(self, {"conditioner.control_dim and the numbers of end_point": pair})


class KeypointModel(TwoStageModel):
    """Clip encoder, decoder, conditioner and flow: nu to z to video, and video to z to nu.

    Example:
        >>> model = load_model("robot").model
        >>> c = model.condition(x0, eta=torch.tensor([[0.1, 0.0, 0.05]]))
        >>> z, _ = model.to_latent(torch.randn(1, model.z_dim), c)
        >>> video = model.decode(x0, z)

    Args:
        config: What it is made of.
    """

    config: KeypointModelConfig
    stage1: KeypointStage1

    def __init__(self, config: KeypointModelConfig) -> None:
        super().__init__(config, KeypointStage1(config.stage1))

    @property
    def control(self) -> ControlSpec | None:
        """Where the end effector is at the last frame, which may be left out; None without."""
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
        """Return z of clips, from their pixels.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: For a draw from q(z | X); the mean of q if None.

        Raises:
            UserError: Another number of frames or another size.
        """
        self.require_clips(video)
        return self.drawn(self.stage1.encode(video), generator)

    def read_landmarks(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t1 l"]:
        """Return the path that z tells, frame by frame from x0 on, in the landmarks' unit.

        For a robot the end effector in metres, for a person the joints in picture widths and
        heights, x and y in turn: what the model means to show, without looking at a frame.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: How they go on.
        """
        times = torch.arange(self.num_frames + 1, device=x0.device) / self.num_frames
        start = self.stage1.places(self.stage1.scene(x0))
        path: Tensor = start[:, None] + self.stage1.path(z, times.expand(len(x0), -1))
        return path

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate where the end effector is at the last frame, from what z tells of its path.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, in metres, within the range of the control; and how far it tells the motion, 1.

        Raises:
            UserError: The model takes no control, or tells no end effector; another number of
                frames or another size.
        """
        if self.config.end_point is None or self.config.stage1.landmarks != END_POINT_DIM:
            return super().read_control(video)
        eta = self.read_landmarks(video[:, 0], self.encode(video))[:, -1]
        low, high = (
            eta.new_tensor(v) for v in (self.config.end_point.low, self.config.end_point.high)
        )
        return eta.clamp(low, high), eta.new_ones(len(eta))

    def aim(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return what to tell the flow so that these residuals end where eta says.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, temperature included.
            eta: The end points that were asked for, in metres.

        Raises:
            UserError: The model takes no control.
        """
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        if self.config.stage1.landmarks != END_POINT_DIM:
            return eta

        def end(told: Tensor) -> Tensor:
            z, _ = self.to_latent(nu, self.condition(x0, told))
            return self.read_landmarks(x0, z)[:, -1]

        return aimed(end, eta, self.control)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: x, y and z of the end effector at the last frame in metres, for a model with a
                control; None leaves it to nu.

        Raises:
            UserError: The model takes no control, or one of another length.
        """
        scene: Scene = self.stage1.scene(x0)
        c: Tensor = self.conditioner(self.stage1.features(scene), self._centred(eta))
        return c

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, values in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: How they go on.
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
