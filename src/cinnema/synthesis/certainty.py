"""How sure a model is: whether it has seen such a photograph, and how likely a motion of it is."""

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.core.randomness import generator_for
from cinnema.models.base import VideoModel
from cinnema.models.nature.model import NatureModel

FAMILIAR = 3.0
"""Distance of a photograph from the training's beyond which it counts as unlike them."""

_NUM_DRAWS = 200


class Certainty:
    """What a model knows about one photograph.

    Args:
        model: The model, in evaluation mode.
        x0: The photograph in [-1, 1], at the model's size.

    Example:
        >>> certainty = Certainty(pipe.model, x0)
        >>> certainty.rank(video.z)
        0.35
    """

    @one_thread()
    @torch.inference_mode()
    def __init__(self, model: VideoModel, x0: Float[Tensor, "3 h w"]) -> None:
        self._model, self._x0 = model, x0[None]
        self._draws: dict[tuple[float, ...] | None, tuple[Tensor, Tensor]] = {}
        self.distance = _distance(model, self._x0)

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
        row = None if eta is None else eta[None].to(self._x0.device)
        c = self._model.condition(self._x0, row)
        nu = torch.randn(_NUM_DRAWS, self._model.z_dim, generator=generator_for(0, 0)).to(c)
        rows = c.repeat(_NUM_DRAWS, 1)
        z, _ = self._model.to_latent(nu, rows)
        return c, self._model.log_prob(z, rows)


def _distance(model: VideoModel, x0: Tensor) -> float | None:
    """Return how far the looks of a photograph's kinds are from those of the training clips.

    The looks that condition the flow have mean 0 and standard deviation 1 over the training clips;
    the distance is their root mean square over all kinds that are shown, weighted by their areas.
    """
    if not isinstance(model, NatureModel):
        return None
    summary = model.summarise(model.recognise(x0))
    looks = (summary.look - model.look_mean) @ model.look_projection
    shown = model.blocks(model.describe_summary(summary).flatten(1))[0]
    area = torch.where(shown, summary.geometry[0, :, 0], 0)
    if not bool(shown.any()):
        return None
    square = (looks[0].square().mean(1) * area).sum() / area.sum()
    return float(square.sqrt())
