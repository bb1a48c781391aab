"""Transfer of a robot hand's path to a picture in which the hand starts elsewhere."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.models.base import VideoModel
from cinnema.models.control import END_POINT, ControlSpec

# Tolerance of a path, as a share of the control's typical size: 2 cm of a hand, about the error of
# the path that z predicts.
_TOLERANCE = 0.2
# Evaluations in the Gauss-Newton method, the start included: with the bundled weights, more than
# three steps gain nothing.
_NUM_EVALUATIONS = 4


@runtime_checkable
class PredictsPath(Protocol):
    """A model that predicts the path of landmarks from z, as `KeypointModel` does."""

    def read_landmarks(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t1 l"]:
        """Predict the landmarks of x0 and of each frame after it."""
        ...


@dataclass(frozen=True, eq=False)
class TransferredPath:
    """Motions for other pictures, one for each row.

    Attributes:
        nu: Residuals.
        eta: End points in these pictures, within the range of the control.
        displacement: Displacement of the hand in the query, from x0 to the last frame, in the
            control's unit.
        kept: Displacement in the picture, shortened if the path would leave the control's range.
    """

    nu: Float[Tensor, "b z"]
    eta: Float[Tensor, "b e"]
    displacement: Float[Tensor, "b e"]
    kept: Float[Tensor, "b e"]


def has_path(model: VideoModel) -> bool:
    """Return whether a model has an end point as control and predicts the path to it from z."""
    spec = model.control
    if spec is None or spec.name != END_POINT or not isinstance(model, PredictsPath):
        return False
    device = next(model.parameters()).device
    x0 = torch.zeros(1, 3, model.size, model.size, device=device)
    with torch.no_grad():
        path = model.read_landmarks(x0, torch.zeros(1, model.z_dim, device=device))
    return path.shape[-1] == model.control_dim


@one_thread()
@torch.inference_mode(mode=False)  # gradients are needed, whatever the caller's mode
@torch.no_grad()
def transfer_path(
    model: VideoModel,
    x0: Float[Tensor, "b 3 h w"],
    z: Float[Tensor, "b z"],
    other: Float[Tensor, "b 3 h w"],
    *,
    eta: Float[Tensor, "b e"] | None = None,
    nu: Float[Tensor, "b z"] | None = None,
) -> TransferredPath:
    """Return residuals with which hands in other pictures follow the path that z predicts.

    nu alone describes an end point relative to the typical one for x0, so in another picture the
    hand takes another path. Here the control carries the displacement, and nu the rest:

        eta'_t = p'_0 + path_t(z) - p_0,   within the control's range,  eta' = eta'_T
        nu~    = T^-1(z; x0, eta)
        nu'    = argmin |nu' - nu~|^2 / 2 + sum_t |path_t(T(nu'; x0', eta')) - eta'_t|^2 / (2 s^2)

    where path_t is the predicted position of the hand at frame t, p_0 and p'_0 its positions in x0
    and x0', and s a fifth of the control's typical size. nu' is the most likely residual given nu~
    and a measurement of the path with standard deviation s. Without the second term the hand would
    reach the end of the query's path, but not along it.

    Args:
        model: A model in evaluation mode for which `has_path` holds.
        x0: First frames of the queries, in [-1, 1], at the model's size.
        z: Latents of the queries.
        other: First frames of the pictures, in [-1, 1], at the model's size.
        eta: End points of the queries. Defaults to those that z predicts.
        nu: nu~. Defaults to the residuals of the queries.

    Returns:
        One motion for each row, without gradients.
    """
    spec = model.control
    assert spec is not None
    assert isinstance(model, PredictsPath)
    # Tensors of inference mode have no gradients; their copies have.
    x0, z, other = x0.clone(), z.clone(), other.clone()
    path = model.read_landmarks(x0, z)
    own = _within(path[:, -1], spec) if eta is None else eta.to(path).clone()
    away = path - path[:, :1] + _ramp(own - path[:, -1], num=path.shape[1])
    # The position in x0 does not depend on z.
    here = model.read_landmarks(other, z)[:, :1]
    wanted = _within(here + away, spec)
    start = model.to_residual(z, model.condition(x0, own))[0] if nu is None else nu.clone()
    c = model.condition(other, wanted[:, -1])
    found = _following(model, start, other, c, wanted, tolerance=_TOLERANCE * spec.typical)
    return TransferredPath(found, wanted[:, -1], own - path[:, 0], wanted[:, -1] - here[:, 0])


def _within(place: Tensor, spec: ControlSpec) -> Tensor:
    return place.clamp(place.new_tensor(spec.low), place.new_tensor(spec.high))


def _ramp(end: Float[Tensor, "b e"], *, num: int) -> Float[Tensor, "b t1 e"]:
    """Return `num` steps from 0 to `end`."""
    return end[:, None] * torch.linspace(0, 1, num, device=end.device)[:, None]


def _following(
    model: VideoModel,
    start: Float[Tensor, "b z"],
    x0: Float[Tensor, "b 3 h w"],
    c: Float[Tensor, "b c"],
    wanted: Float[Tensor, "b t1 e"],
    *,
    tolerance: float,
) -> Float[Tensor, "b z"]:
    """Return the residuals nearest to `start` whose path is the wanted one.

    The Gauss-Newton method on the sum of squares of `transfer_path`. Each step solves

        (J^T J + 1) step = J^T r - (nu - nu~),   r = (wanted - path) / s,   J = d path / d nu / s,

    and the best of all residuals is returned, which is never worse than `start`.
    """
    nu = best = start
    least = torch.full_like(start[:, 0], torch.inf)
    for _ in range(_NUM_EVALUATIONS):
        path, jacobian = _path_of(model, nu, x0, c)
        missed, moved = (wanted[:, 1:].flatten(1) - path) / tolerance, nu - start
        cost = missed.square().sum(dim=1) + moved.square().sum(dim=1)
        best = torch.where((cost < least)[:, None], nu, best)
        least = torch.minimum(cost, least)
        slope = jacobian / tolerance
        curvature = slope.mT @ slope + torch.eye(nu.shape[1], device=nu.device)
        pull = torch.einsum("bkz,bk->bz", slope, missed) - moved
        nu = nu + torch.linalg.solve(curvature, pull)
    return best


def _path_of(
    model: VideoModel,
    nu: Float[Tensor, "b z"],
    x0: Float[Tensor, "b 3 h w"],
    c: Float[Tensor, "b c"],
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k z"]]:
    """Return the path after x0 as one row of numbers, and its Jacobian with respect to nu."""
    assert isinstance(model, PredictsPath)
    with torch.enable_grad():
        nu = nu.detach().requires_grad_()
        z, _ = model.to_latent(nu, c)
        path = model.read_landmarks(x0, z)[:, 1:].flatten(1)
        # Rows are independent, so the derivatives of a sum over the batch are those of each row.
        which = torch.eye(path.shape[1], device=path.device)
        (slopes,) = torch.autograd.grad(path.sum(dim=0), nu, which, is_grads_batched=True)
    return path.detach(), slopes.transpose(0, 1)
