"""How sure a model is: whether it has seen such a photograph, and how likely a motion of it is."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.core.randomness import generator_for
from cinnema.media.pictures import resize_for_model, to_tensor
from cinnema.models.base import VideoModel
from cinnema.models.nature.kinds import SceneFeatures
from cinnema.models.nature.model import NatureModel
from cinnema.synthesis.recognition import Recognition

FAMILIAR = 19.0
"""Distance of a photograph from the training clips beyond which it counts as unlike them, for the
features of the kind network; see `benchmarks/familiar.py`."""

_NUM_DRAWS = 200


class Certainty:
    """What a model knows about one photograph.

    Args:
        model: The model, in evaluation mode.
        pixels: The photograph.
        features: What a nature model sees in it, from `Pipeline.recognise`; None to look at it now.

    Example:
        >>> certainty = Certainty(pipe.model, read_photograph("beach.jpg"))
        >>> certainty.rank(video.z)
        0.35
    """

    @one_thread()
    @torch.inference_mode()
    def __init__(
        self,
        model: VideoModel,
        pixels: UInt8[np.ndarray, "h w 3"],
        features: SceneFeatures | None = None,
    ) -> None:
        device = next(model.parameters()).device
        self._model = model
        if features is None and isinstance(model, NatureModel):
            features = Recognition(model)(pixels)
        self._features = features
        self._x0 = to_tensor(resize_for_model(pixels, model.size))[None].to(device)
        self._draws: dict[tuple[float, ...] | None, tuple[Tensor, Tensor]] = {}
        self.distance = _distance(model, features)

    @property
    def is_familiar(self) -> bool | None:
        """Whether the model was trained on such photographs; None if it cannot tell."""
        return None if self.distance is None else self.distance <= FAMILIAR

    @one_thread()
    @torch.inference_mode()
    def rank(self, z: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None = None) -> float:
        """Return the share of the model's own draws for the photograph that are less likely.

        Draws themselves have ranks that are uniform in [0, 1]; motions that are less likely than
        nearly all draws have ranks near 0.

        Args:
            z: Latent of a motion of the photograph.
            eta: The control that it is conditioned on; None without one.
        """
        key = None if eta is None else tuple(eta.tolist())
        if key not in self._draws:
            self._draws[key] = self._drawn(eta)
        c, log_probs = self._draws[key]
        log_prob = self._model.log_prob(z[None].to(c), c)
        return float((log_probs < log_prob).double().mean())

    def _drawn(self, eta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the condition, and the log-densities of draws."""
        c = self._condition(None if eta is None else eta[None].to(self._x0.device))
        nu = torch.randn(_NUM_DRAWS, self._model.z_dim, generator=generator_for(0, 0)).to(c)
        rows = c.repeat(_NUM_DRAWS, 1)
        z, _ = self._model.to_latent(nu, rows)
        return c, self._model.log_prob(z, rows)

    def _condition(self, eta: Tensor | None) -> Tensor:
        if isinstance(self._model, NatureModel) and self._features is not None:
            return self._model.describe(self._features, eta).flatten(1)
        return self._model.condition(self._x0, eta)


def _distance(model: VideoModel, features: SceneFeatures | None) -> float | None:
    """Return how far the look of what moves is from the mean of the training clips.

    It is the distance of the kinds' deep features, of which the flow sees a few directions only;
    squares are averaged over all kinds that are shown, weighted by their areas.
    """
    if not isinstance(model, NatureModel) or features is None:
        return None
    summary = model.summarise(features)
    shown = model.blocks(model.describe_summary(summary).flatten(1))[0]
    if not bool(shown.any()):
        return None
    area = torch.where(shown, summary.geometry[0, :, 0], 0)
    square = (summary.look[0] - model.look_mean).square().sum(1)
    return float(((square * area).sum() / area.sum()).sqrt())
