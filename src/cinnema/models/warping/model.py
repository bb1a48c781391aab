"""A whole model: both stages in one file."""

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.media.pictures import to_pixels
from cinnema.models.control import DRIFT, ControlSpec, aimed
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.two_stage import TwoStageModel, require_fit
from cinnema.models.warping.drift import DRIFT_DIM, apparent_drift, drift_of
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import SceneFeatures, Stage1, Stage1Config

# Of the control, in its typical size: training has seen little beyond.
_FASTEST = 2.0
# A drift may be told longer or shorter, and more to a side, by this share of it.
_CORRECTION = 0.7


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class WarpingModelConfig:
    """Everything that makes a `WarpingModel`, weights apart.

    Attributes:
        name: What the weights are called.
        stage1: Video encoder and warping decoder.
        conditioner: What the flow sees of x0.
        flow: Its `z_dim` is stage 1's, its `condition_dim` the conditioner's.

    Raises:
        ValueError: The parts do not fit each other.
    """

    name: str
    stage1: Stage1Config
    conditioner: ConditionerConfig
    flow: FlowConfig

    def __post_init__(self) -> None:
        require_fit(self)
        if self.conditioner.control_dim not in (0, DRIFT_DIM):
            raise UserError(
                f"conditioner.control_dim must be 0 or {DRIFT_DIM}, the drift to the right and "
                f"down, got {self.conditioner.control_dim}: change it"
            )


class WarpingModel(TwoStageModel):
    """Stage 1, the conditioner and the flow: nu to z to video, and video to z to nu.

    Its networks compute; `Pipeline` is what animates photographs with it.

    Example:
        >>> model = load_model("landscape").model
        >>> c = model.condition(x0)
        >>> z, log_det = model.to_latent(nu, c)

    Args:
        config: What it is made of.
    """

    config: WarpingModelConfig
    stage1: Stage1

    def __init__(self, config: WarpingModelConfig) -> None:
        super().__init__(config, Stage1(config.stage1))

    @property
    def control(self) -> ControlSpec | None:
        """The drift of what moves over one clip, which may be left out; None without a control."""
        conditioner = self.config.conditioner
        if not conditioner.control_dim:
            return None
        scale = conditioner.control_scale
        return ControlSpec(
            name=DRIFT,
            labels=("right", "down"),
            unit="picture widths and heights a clip",
            low=(-_FASTEST * scale,) * DRIFT_DIM,
            high=(_FASTEST * scale,) * DRIFT_DIM,
            typical=scale,
            optional=True,
        )

    def encode(
        self, video: Float[Tensor, "b t1 3 h w"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b z"]:
        """Return z of clips, by their optical flow back to x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: For a draw from q(z | X); the mean of q if None.

        Raises:
            UserError: Another number of frames or another size.
        """
        return self.drawn(self.stage1.encode(self._flow_of(video)), generator)

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate where what moves drifts to in clips, by their optical flow and the mask of x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, and how far it tells the motion, in [0, 1]: see `drift_of`.

        Raises:
            UserError: The model takes no control; another number of frames or another size.
        """
        if self.control is None:
            return super().read_control(video)
        features = self.stage1.scene(video[:, 0])
        moving = torch.sigmoid(self.stage1.mask(features.joint, features.fine))
        return drift_of(self._flow_of(video), moving[:, 0])

    def aim(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return what to tell the flow so that these residuals drift as eta says.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, temperature included.
            eta: The drift that was asked for.

        Raises:
            UserError: The model takes no control.
        """
        features = self.stage1.scene(x0)
        moving = torch.sigmoid(self.stage1.mask(features.joint, features.fine))
        return self.aim_on(features, moving, nu, eta)

    def aim_on(
        self,
        features: SceneFeatures,
        moving: Float[Tensor, "b 1 i j"],
        nu: Float[Tensor, "b z"],
        eta: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b e"]:
        """Aim at a drift of first frames that have been read already.

        Args:
            features: `stage1.scene(x0)`.
            moving: 1 where something may move, 0 where nothing may.
            nu: As in `aim`.
            eta: As in `aim`.
        """
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")

        def drift(told: Tensor) -> Tensor:
            z, _ = self.to_latent(nu, self.condition_on(features, told))
            flow = self.stage1.basis.clip(self.stage1.motion(z, features.joint))
            return apparent_drift(flow.float(), moving[:, 0].float())

        # Where the flow of a residual can hardly be turned or sped up, telling it ever more does
        # harm elsewhere.
        reach = _CORRECTION * eta.norm(dim=1, keepdim=True)
        return aimed(drift, eta, self.control, reach=reach)

    def _flow_of(self, video: Tensor) -> Tensor:
        """Return the flow of clips back to x0, block means, as stage 1 reads it."""
        self.require_clips(video)
        size = (self.size, self.size)
        volumes = [
            to_volume(backward_flow(to_pixels(clip), size=size), grid=GRID) for clip in video
        ]
        return torch.from_numpy(np.stack(volumes)).to(video.device, video.dtype)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: Where what moves drifts to over the clip, (right, down) in picture widths and
                heights, for a model with a control; None leaves it to nu.

        Raises:
            UserError: The model takes no control, or one of another length.
        """
        return self.condition_on(self.stage1.scene(x0), eta)

    def condition_on(
        self, features: SceneFeatures, eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return what the flow is told of a first frame that has been read already.

        Args:
            features: `stage1.scene(x0)`.
            eta: As in `condition`.
        """
        if eta is not None and not self.control_dim:
            raise UserError(f"the model {self.name} takes no control: leave it out")
        c: Tensor = self.conditioner(features.joint, eta)
        return c

    def decode(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the T frames that follow x0, values in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: How they move.
        """
        return self.stage1.decode(x0, z).clamp(-1, 1)
