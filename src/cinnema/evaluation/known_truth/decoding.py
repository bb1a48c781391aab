"""Decoding of real clips by a model, with and without their control."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.evaluation.metrics.base import RealBatch, TableMetric, Task
from cinnema.evaluation.protocol import RealClip, Start, find_partners
from cinnema.evaluation.results import Row
from cinnema.media.pictures import to_pixels
from cinnema.models.base import VideoModel

Video: TypeAlias = UInt8[np.ndarray, "t1 h w 3"]
Controls: TypeAlias = Sequence[Float[Tensor, " e"]]

OTHER_ETA, NO_ETA = "eta of another clip", "no eta"
CONTROL_ROWS = (
    Row(
        name=OTHER_ETA,
        kind="baseline",
        about="the model's samples, compared with another clip's control: what ignoring it gives",
    ),
    Row(name=NO_ETA, kind="baseline", about="the model without a control"),
)


class TaskMetric(TableMetric):
    """A table metric that pairs each real clip with a clip of another source video.

    Args:
        task: The evaluation.
        length: Number of values per clip.
    """

    def __init__(self, task: Task, *, length: int) -> None:
        super().__init__(task.order, length=length)
        self._model, self._clips, self._seed = task.model, task.clips, task.seed

    def see_real(self, real: RealBatch) -> None:
        """Measure the clips of a batch."""
        own = self.own(real)
        if own is None:
            return
        with torch.inference_mode():
            rows = self.measure(own.clips)
        for clip, row in zip(own.clips, rows, strict=True):
            self.clips.add(clip.start.key, clip.source, row)

    def measure(self, clips: Sequence[RealClip]) -> Sequence[Sequence[float]]:
        """Return the values of each clip; NaN for those that cannot be measured.

        Args:
            clips: Clips of a batch.
        """
        raise NotImplementedError


def all_partners(starts: Sequence[Start]) -> dict[str, Start]:
    """Return a partner from another source for each start, by the key of the start.

    Raises:
        UserError: All starts come from one source video.
    """
    found = find_partners(starts)
    if len(found) < len(starts):
        raise UserError("clips of 2 source videos are needed to exchange them: give more data")
    return found


def conditioned(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], etas: Controls | None
) -> Float[Tensor, "b c"]:
    """Return the condition of the flow.

    Args:
        model: The model in evaluation mode.
        x0: First frames.
        etas: A control for each; None leaves it out.
    """
    eta = None if etas is None else torch.stack(list(etas)).to(x0)
    return model.condition(x0, eta)


def corrected(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], nu: Float[Tensor, "b z"], etas: Controls
) -> Float[Tensor, "b c"]:
    """Return the condition with which residuals follow a control, corrected as `Pipeline` does it.

    Args:
        model: The model in evaluation mode.
        x0: First frames.
        nu: A residual for each.
        etas: A control for each.
    """
    eta = torch.stack(list(etas)).to(x0)
    return model.condition(x0, model.corrected_control(x0, nu, eta))


def required_controls(model: VideoModel, clips: Sequence[RealClip]) -> Controls | None:
    """Return the clips' true controls for a model that needs one; None for other models.

    Raises:
        UserError: The model needs a control that the data do not have.
    """
    if model.control is None or model.control.optional:
        return None
    etas = [
        torch.from_numpy(clip.eta)
        for clip in clips
        if clip.eta is not None and len(clip.eta) == model.control_dim
    ]
    if len(etas) < len(clips):
        raise UserError(
            f"the model {model.name} needs the {model.control.name} as its control, which these "
            "data do not have: pack them with their control"
        )
    return etas


def decode_residual(
    model: VideoModel,
    x0: Float[Tensor, "b 3 h w"],
    nu: Float[Tensor, "b z"],
    c: Float[Tensor, "b c"],
) -> list[Video]:
    """Return x0 and the frames that the model decodes from residuals, as pixels.

    Args:
        model: The model in evaluation mode.
        x0: First frames.
        nu: Residuals.
        c: Conditions of the flow.
    """
    return decode_latent(model, x0, model.to_latent(nu, c)[0])


def decode_latent(
    model: VideoModel, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
) -> list[Video]:
    """Return x0 and the frames that the model decodes from latents, as pixels."""
    return list(to_pixels(torch.cat([x0[:, None], model.decode(x0, z)], dim=1)))
