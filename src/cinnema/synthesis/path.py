"""The way of a robot's hand, carried over to a picture in which the hand starts elsewhere."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.models.base import VideoModel
from cinnema.models.control import END_POINT, ControlSpec

# How loosely a path is followed, as a share of the control's typical size: 2 cm of a hand, which is
# about what z is off by.
_LOOSE = 0.2
# Of Gauss-Newton, that of the start among them: three steps, of which with the bundled weights the
# third gains what little is left to gain.
_ROUNDS = 4


@runtime_checkable
class TellsPath(Protocol):
    """What says where landmarks go without looking at a frame, as `KeypointModel` does."""

    def read_landmarks(
        self, x0: Float[Tensor, "b 3 h w"], z: Float[Tensor, "b z"]
    ) -> Float[Tensor, "b t1 l"]:
        """Return the path that z tells, frame by frame from x0 on."""
        ...


@dataclass(frozen=True, eq=False)
class Carried:
    """Motions, ready for the pictures that they were carried to.

    Attributes:
        nu: Residuals.
        eta: Where the hand is to end, within the range of the control.
        way: From where the hand is in the query to where it ends there, in the control's unit.
        kept: The same of the picture: the way, cut where it would have left the range.
    """

    nu: Float[Tensor, "b z"]
    eta: Float[Tensor, "b e"]
    way: Float[Tensor, "b e"]
    kept: Float[Tensor, "b e"]


def has_way(model: VideoModel) -> bool:
    """Say whether a model can be told where a hand ends, and tells by which way z gets there."""
    spec = model.control
    if spec is None or spec.name != END_POINT or not isinstance(model, TellsPath):
        return False
    device = next(model.parameters()).device
    x0 = torch.zeros(1, 3, model.size, model.size, device=device)
    with torch.no_grad():
        path = model.read_landmarks(x0, torch.zeros(1, model.z_dim, device=device))
    return path.shape[-1] == model.control_dim


@one_thread()
@torch.inference_mode(mode=False)  # gradients are needed, whatever the caller computes under
@torch.no_grad()
def carry_way(
    model: VideoModel,
    x0: Float[Tensor, "b 3 h w"],
    z: Float[Tensor, "b z"],
    other: Float[Tensor, "b 3 h w"],
    *,
    eta: Float[Tensor, "b e"] | None = None,
    nu: Float[Tensor, "b z"] | None = None,
) -> Carried:
    """Return residuals that let the hands of other pictures go the way that z tells.

    nu alone says where a hand ends, as seen from what is usual for its x0, so that in another
    picture it goes another way. Here the control carries the displacement, and nu the rest:

        eta'_t = p'_0 + path_t(z) - p_0,   within the control's range,  eta' = eta'_T
        nu~    = T^-1(z; x0, eta)
        nu'    = argmin |nu' - nu~|^2 / 2 + sum_t |path_t(T(nu'; x0', eta')) - eta'_t|^2 / (2 s^2)

    where path_t is where the hand is at frame t, as the model tells, p_0 and p'_0 where it is in x0
    and x0', and s a fifth of the control's typical size. nu' is the likeliest residual about nu~,
    had one seen the path with an error of s; without its second term only the end would be as in
    the query, and what is between not.

    Args:
        model: In evaluation mode, of which `has_way` holds.
        x0: First frames of the queries, in [-1, 1], at the model's size.
        z: Latents of the queries.
        other: First frames that are to move so.
        eta: Where the queries' hands end; as z tells if None.
        nu: Another nu~, for what the way alone brings along; the queries' own if None.

    Returns:
        One for each row, without gradients.
    """
    spec = model.control
    assert spec is not None
    assert isinstance(model, TellsPath)
    x0, z, other = x0.clone(), z.clone(), other.clone()  # those of inference mode have no gradients
    path = model.read_landmarks(x0, z)
    own = _within(path[:, -1], spec) if eta is None else eta.to(path).clone()
    away = path - path[:, :1] + _bent(own - path[:, -1], num=path.shape[1])
    # The place in x0 does not depend on z.
    here = model.read_landmarks(other, z)[:, :1]
    asked = _within(here + away, spec)
    start = model.to_residual(z, model.condition(x0, own))[0] if nu is None else nu.clone()
    c = model.condition(other, asked[:, -1])
    found = _following(model, start, other, c, asked, loose=_LOOSE * spec.typical)
    return Carried(found, asked[:, -1], own - path[:, 0], asked[:, -1] - here[:, 0])


def _within(place: Tensor, spec: ControlSpec) -> Tensor:
    return place.clamp(place.new_tensor(spec.low), place.new_tensor(spec.high))


def _bent(miss: Float[Tensor, "b e"], *, num: int) -> Float[Tensor, "b t1 e"]:
    """Return what to add to a path so that it ends elsewhere by `miss`: ever more of it."""
    return miss[:, None] * torch.linspace(0, 1, num, device=miss.device)[:, None]


def _following(
    model: VideoModel,
    start: Float[Tensor, "b z"],
    x0: Float[Tensor, "b 3 h w"],
    c: Float[Tensor, "b c"],
    asked: Float[Tensor, "b t1 e"],
    *,
    loose: float,
) -> Float[Tensor, "b z"]:
    """Return the residuals nearest to `start` of which the path is the one that is asked for.

    Gauss-Newton on the sum of squares of `carry_way`. Each step solves

        (J^T J + 1) step = J^T r - (nu - nu~),   r = (asked - path) / s,   J = d path / d nu / s,

    and the best residual met is returned, never worse than `start`.
    """
    nu = best = start
    least = torch.full_like(start[:, 0], torch.inf)
    for _ in range(_ROUNDS):
        path, jacobian = _path_of(model, nu, x0, c)
        missed, moved = (asked[:, 1:].flatten(1) - path) / loose, nu - start
        cost = missed.square().sum(dim=1) + moved.square().sum(dim=1)
        best = torch.where((cost < least)[:, None], nu, best)
        least = torch.minimum(cost, least)
        slope = jacobian / loose
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
    """Return the path behind x0 in one row of numbers, and its derivatives by nu."""
    assert isinstance(model, TellsPath)
    with torch.enable_grad():
        nu = nu.detach().requires_grad_()
        z, _ = model.to_latent(nu, c)
        path = model.read_landmarks(x0, z)[:, 1:].flatten(1)
        # Rows do not mix, so the derivatives of a sum over the batch are those of each row.
        which = torch.eye(path.shape[1], device=path.device)
        (slopes,) = torch.autograd.grad(path.sum(dim=0), nu, which, is_grads_batched=True)
    return path.detach(), slopes.transpose(0, 1)
