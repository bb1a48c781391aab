"""The warping model: both stages, as one file of weights holds them."""

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cinnema.backbones.optical_flow import backward_flow, to_volume
from cinnema.core.errors import UserError
from cinnema.media.pictures import to_pixels
from cinnema.models.base import TwoStageModel, require_matching_parts
from cinnema.models.control import DRIFT, ControlSpec, correct_control
from cinnema.models.flow.conditioning import ConditionerConfig
from cinnema.models.flow.flow import FlowConfig
from cinnema.models.warping.drift import DRIFT_DIM, apparent_drift, drift_of
from cinnema.models.warping.motion import GRID
from cinnema.models.warping.stage1 import SceneFeatures, Stage1, Stage1Config

# Largest drift, in typical sizes: training has seen few that are faster.
_FASTEST = 2.0
# Maximum relative correction of the requested drift. Where the flow of a residual can hardly be
# turned or sped up, a larger correction does harm elsewhere.
_MAX_CORRECTION = 0.7


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class WarpingModelConfig:
    """Sizes and options of a `WarpingModel`.

    Attributes:
        name: Name of the weights.
        stage1: Video encoder and warping decoder.
        conditioner: Network that computes the flow's condition from x0 and the control.
        flow: Conditional flow; its `z_dim` is that of stage 1, its `condition_dim` the number of
            columns of the conditioner.

    Raises:
        ValueError: The parts do not fit together.
    """

    name: str
    stage1: Stage1Config
    conditioner: ConditionerConfig
    flow: FlowConfig

    def __post_init__(self) -> None:
        require_matching_parts(self)
        if self.conditioner.control_dim not in (0, DRIFT_DIM):
            raise UserError(
                f"conditioner.control_dim must be 0 or {DRIFT_DIM}, the drift to the right and "
                f"down, got {self.conditioner.control_dim}: change it"
            )


class WarpingModel(TwoStageModel):
    """Animates natural scenes, as skies and water, by warping the first frame.

    This class holds the networks; `Pipeline` animates photographs with it.

    Example:
        >>> model = load_model("drift").model
        >>> c = model.condition(x0)
        >>> z, log_det = model.to_latent(nu, c)

    Args:
        config: Configuration of the model.
    """

    config: WarpingModelConfig
    stage1: Stage1

    def __init__(self, config: WarpingModelConfig) -> None:
        super().__init__(config, Stage1(config.stage1))

    @property
    def control(self) -> ControlSpec | None:
        """The mean drift of what moves over one clip, optional; None for weights without it."""
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
        """Return z of clips, from their optical flow back to x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.
            generator: On the CPU, for a draw from q(z | X); the mean of q if None.

        Raises:
            UserError: The number of frames or the size is wrong.
        """
        return self.add_noise(self.stage1.encode(self._flow_of(video)), generator)

    def read_control(
        self, video: Float[Tensor, "b t1 3 h w"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, " b"]]:
        """Estimate the drift of clips from their optical flow and the mask of x0.

        Args:
            video: x0 and the T frames after it, in [-1, 1], at the model's size.

        Returns:
            eta, and how well it describes the motion, from 0 to 1: see `drift_of`.

        Raises:
            UserError: The model takes no control, or the number of frames or the size is wrong.
        """
        if self.control is None:
            return super().read_control(video)
        features = self.stage1.scene(video[:, 0])
        moving = torch.sigmoid(self.stage1.mask(features.joint, features.fine))
        return drift_of(self._flow_of(video), moving[:, 0])

    def corrected_control(
        self, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], eta: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b e"]:
        """Return the control to condition the flow on, so that these residuals drift as eta says.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            nu: Residuals, multiplied by the temperature.
            eta: The requested drift.

        Raises:
            UserError: The model takes no control.
        """
        features = self.stage1.scene(x0)
        moving = torch.sigmoid(self.stage1.mask(features.joint, features.fine))
        return self.corrected_control_on(features, moving, nu, eta)

    def corrected_control_on(
        self,
        features: SceneFeatures,
        moving: Float[Tensor, "b 1 i j"],
        nu: Float[Tensor, "b z"],
        eta: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b e"]:
        """Return the corrected control of first frames whose features are known.

        Args:
            features: `stage1.scene(x0)`.
            moving: 1 where something may move, 0 where nothing may.
            nu: As in `corrected_control`.
            eta: As in `corrected_control`.
        """
        if self.control is None:
            raise UserError(f"the model {self.name} takes no control: leave it out")

        def drift(tried: Tensor) -> Tensor:
            z, _ = self.to_latent(nu, self.condition_on(features, tried))
            flow = self.stage1.basis.clip(self.stage1.motion(z, features.joint))
            return apparent_drift(flow.float(), moving[:, 0].float())

        max_correction = _MAX_CORRECTION * eta.norm(dim=1, keepdim=True)
        return correct_control(drift, eta, self.control, max_correction=max_correction)

    def _flow_of(self, video: Tensor) -> Tensor:
        """Return the flow of clips back to x0, as block means, which stage 1 encodes."""
        self.require_clips(video)
        size = (self.size, self.size)
        volumes = [
            to_volume(backward_flow(to_pixels(clip), size=size), grid=GRID) for clip in video
        ]
        return torch.from_numpy(np.stack(volumes)).to(video.device, video.dtype)

    def condition(
        self, x0: Float[Tensor, "b 3 h w"], eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow.

        Args:
            x0: First frames in [-1, 1], at the model's size.
            eta: The drift over the clip, (right, down) in picture widths and heights; None leaves
                it open.

        Raises:
            UserError: The model takes no control, or eta has the wrong length.
        """
        return self.condition_on(self.stage1.scene(x0), eta)

    def condition_on(
        self, features: SceneFeatures, eta: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b c"]:
        """Return the condition of the flow for first frames whose features are known.

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
        """Return the T frames that follow x0, in [-1, 1].

        Args:
            x0: First frames in [-1, 1], at the model's size.
            z: Latents.
        """
        return self.stage1.decode(x0, z).clamp(-1, 1)
