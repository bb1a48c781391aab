"""The most likely motion of nature that follows arrows, and stays near a drawn sample.

An arrow says the velocity d_i of a point p_i. A kind's velocity v is a smooth function of the
kind's own part of z = T(nu; x0, eta). Near a drawn nu_0 the motion is

    nu = argmin |nu - nu_0|^2 / 2 + sum_i |v(p_i; T(nu)) - d_i|^2 / (2 s_i^2),

the most likely one given nu_0 and measurements of the velocities with standard deviation s_i, a
twentieth of each arrow. So the arrows are followed, and what they leave open differs from sample
to sample as without arrows; with nu_0 = 0 (temperature 0) it is the most likely motion of all. In
a linear model this is Matheron's update of a sample of a Gaussian process; the flow is nearly
linear, and a few steps of the method of Levenberg and Marquardt do.

The idea of pokes is that of Blattmann et al., "iPOKE: Poking a Still Image for Controlled
Stochastic Video Synthesis" (ICCV 2021), who train a network for them.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.core.devices import one_thread
from cinnema.core.errors import UserError
from cinnema.models.control import Drift, resolve_control
from cinnema.models.nature.kinds import KINDS, STILL, SceneFeatures
from cinnema.models.nature.model import KIND_DIM, MOTION_DIM, NatureModel
from cinnema.models.nature.motion import GRID, cosines
from cinnema.synthesis.hints import Arrow, require_inside

# Standard deviation of an arrow: a share of its length, but no less than a share of the picture's
# size a second.
_TOLERANCE, _LEAST_TOLERANCE = 0.05, 0.001
_NUM_EVALUATIONS = 30
# Length of a step that changes nothing one could see.
_SMALL_STEP = 1e-3
# A kind with less than this in the whole picture has no mean velocity.
_ABSENT = 0.002
# Share of an arrow's length by which a motion may miss it before a warning says so.
_MISSED = 0.25


@dataclass(frozen=True, eq=False)
class Wanted:
    """Linear constraints on the velocity of one kind: weighted means, and the value of each.

    Attributes:
        kind: Index in `KINDS`.
        weights: Each mean of the velocity, as a mean of the functions `cosines`.
        scale: Pixels of the photograph a second of a measured velocity of one picture size a step.
        velocity: The value of each mean, in pixels of the photograph a second.
        tolerance: Its standard deviation.
        asked_by: Arguments that ask it: "arrows", "current" or both.
    """

    kind: int
    weights: Float[Tensor, "m n"]
    scale: Float[Tensor, " 2"]
    velocity: Float[Tensor, "m 2"]
    tolerance: Float[Tensor, " m"]
    asked_by: tuple[str, ...]


def wanted_by(
    arrows: Sequence[Arrow],
    current: Drift | None,
    share: Float[Tensor, "c h w"],
    model: NatureModel,
    *,
    size: tuple[int, int],
    rates: Sequence[float],
) -> list[Wanted]:
    """Return what arrows and a current ask of each kind.

    An arrow acts on the kind that has the largest share of the pixel at its point, a current on
    the mean velocity of the water. A warning names what can move nothing.

    Args:
        arrows: The arrows.
        current: Drift of the water; None leaves it open.
        share: Share of each class in each pixel, still first, see `shares`; of any size.
        model: The model.
        size: Height and width of the photograph in pixels.
        rates: Steps a second of each of `KINDS`.

    Returns:
        One entry for each kind that is to follow.

    Raises:
        UserError: An arrow is outside the photograph or too fast, or the current is out of range.
    """
    asked = [] if not arrows else _by_arrows(arrows, share, model, size=size, rates=rates)
    if current is not None:
        asked += _by_current(current, share, model, size=size, rates=rates)
    return joined(asked)


def _by_arrows(
    arrows: Sequence[Arrow],
    share: Tensor,
    model: NatureModel,
    *,
    size: tuple[int, int],
    rates: Sequence[float],
) -> list[Wanted]:
    require_inside(arrows, size)
    followed: dict[int, list[Arrow]] = {}
    for arrow, found in zip(arrows, _at(share, arrows, size).T, strict=True):
        kind = _kind_of(arrow, found, model)
        if kind is not None:
            followed.setdefault(kind, []).append(arrow)
    waves = cosines().to(share)
    return [
        _wanted(
            model,
            kind,
            _at(waves, group, size).T,
            share.new_tensor([(arrow.dx, arrow.dy) for arrow in group]),
            size=size,
            rate=rates[kind],
            asked_by="arrows",
        )
        for kind, group in sorted(followed.items())
    ]


def _by_current(
    current: Drift,
    share: Tensor,
    model: NatureModel,
    *,
    size: tuple[int, int],
    rates: Sequence[float],
) -> list[Wanted]:
    try:
        drift = resolve_control(current, model.control, model=model.name, size=size)
    except UserError as error:
        raise UserError(f"current: {error}") from error
    kind = KINDS.index("water")
    mass = functional.adaptive_avg_pool2d(share[None, 1 + kind], GRID)[0]
    if float(mass.mean()) < _ABSENT:
        _warn("current: this photograph shows no water, so it moves nothing")
        return []
    weights = torch.einsum("nij,ij->n", cosines().to(mass), mass / mass.sum())
    height, width = size
    pixels = drift.to(mass) * mass.new_tensor([width, height])
    velocity = pixels / model.num_frames * rates[kind]
    return [
        _wanted(
            model,
            kind,
            weights[None],
            velocity[None],
            size=size,
            rate=rates[kind],
            asked_by="current",
        )
    ]


def require_free(
    model: NatureModel,
    features: SceneFeatures,
    wanted: Sequence[Wanted],
    *,
    eta: Float[Tensor, " e"] | None,
) -> None:
    """Raise a UserError if arrows or a current act on the kind whose drift the control gives.

    Args:
        model: The model.
        features: Those of the photograph.
        wanted: From `wanted_by`.
        eta: The control; None without one.
    """
    kind = model.drifting_kind(features)
    asked = [one for one in wanted if one.kind == kind]
    if eta is not None and asked:
        where = "" if KINDS[kind] == "sky" else ", as this photograph shows no sky"
        raise UserError(
            f"{asked[0].asked_by[0]}: the {KINDS[kind]} has a direction and speed already{where}: "
            f"leave out those, or {' and '.join(asked[0].asked_by)}"
        )


def joined(wanted: Sequence[Wanted]) -> list[Wanted]:
    """Return one `Wanted` for each kind, with all that is asked of it."""
    out: dict[int, Wanted] = {}
    for one in wanted:
        other = out.get(one.kind)
        out[one.kind] = one if other is None else _together(other, one)
    return [out[kind] for kind in sorted(out)]


def _together(a: Wanted, b: Wanted) -> Wanted:
    return Wanted(
        a.kind,
        torch.cat([a.weights, b.weights]),
        a.scale,
        torch.cat([a.velocity, b.velocity]),
        torch.cat([a.tolerance, b.tolerance]),
        tuple(dict.fromkeys(a.asked_by + b.asked_by)),
    )


@one_thread()
@torch.inference_mode(mode=False)  # gradients are needed, whatever the caller's mode
@torch.no_grad()
def follow_arrows(
    model: NatureModel,
    nu: Float[Tensor, "b z"],
    c: Float[Tensor, "b c"],
    wanted: Sequence[Wanted],
) -> Float[Tensor, "b z"]:
    """Return the most likely residuals near drawn ones whose motion does what is wanted.

    Only the part of nu of the kinds in `wanted` changes; the churn and other kinds keep theirs.

    Args:
        model: The model in evaluation mode.
        nu: Drawn residuals, multiplied by the temperature; 0 gives the most likely motion.
        c: Conditions of the flow.
        wanted: From `wanted_by`.
    """
    # Tensors of inference mode have no gradients; their copies have.
    nu, c = nu.clone(), c.clone()
    rows = nu[:, :MOTION_DIM].view(len(nu), len(KINDS), KIND_DIM)
    conditions = c.view(len(c), len(KINDS), -1)
    for one in joined(wanted):
        rows[:, one.kind] = _followed(model, rows[:, one.kind].clone(), conditions, one)
    return nu


def velocities(
    model: NatureModel, z: Float[Tensor, "b z"], wanted: Wanted
) -> Float[Tensor, "b m 2"]:
    """Return the velocities of latents, in pixels of the photograph a second.

    Args:
        model: The model.
        z: Latents.
        wanted: What is asked, whose means of the velocity are returned.
    """
    coefficients, _ = model.read_motion(z)[wanted.kind]
    return torch.einsum("bcn,mn->bmc", coefficients, wanted.weights) * wanted.scale


def warn_of_missed(model: NatureModel, c: Float[Tensor, "1 c"], wanted: Sequence[Wanted]) -> None:
    """Warn if the most likely motion that follows arrows misses one of them by much.

    Arrows that contradict each other are fitted by least squares, so each is missed.

    Args:
        model: The model.
        c: Condition of the flow.
        wanted: What was asked.
    """
    still = torch.zeros(1, model.z_dim, device=c.device)
    z, _ = model.to_latent(follow_arrows(model, still, c, wanted), c)
    for one in joined(wanted):
        found = velocities(model, z, one)[0]
        missed = (found - one.velocity).norm(dim=1)
        allowed = _MISSED * one.velocity.norm(dim=1) + 2 * one.tolerance
        if bool((missed > allowed).any()):
            worst = int((missed - allowed).argmax())
            asked, got = (_pair(v[worst]) for v in (one.velocity, found))
            _warn(
                f"arrows: {KINDS[one.kind]} is asked to move by {asked} pixels a second and moves "
                f"by {got}, since other arrows near it ask for something else, or nothing that "
                "was learned moves so"
            )


def _pair(velocity: Tensor) -> str:
    return ",".join(f"{value:.3g}" for value in velocity.tolist())


def _wanted(
    model: NatureModel,
    kind: int,
    weights: Tensor,
    velocity: Tensor,
    *,
    size: tuple[int, int],
    rate: float,
    asked_by: str,
) -> Wanted:
    height, width = size
    scale = weights.new_tensor([width, height]) * model.config.dynamics[kind].gain * rate
    least = _LEAST_TOLERANCE * math.sqrt(height * width)
    tolerance = (_TOLERANCE * velocity.norm(dim=1)).clamp_min(least)
    return Wanted(kind, weights, scale, velocity, tolerance, (asked_by,))


def _at(
    field: Float[Tensor, "n i j"], arrows: Sequence[Arrow], size: tuple[int, int]
) -> Float[Tensor, "n m"]:
    """Return a field's values at the arrows' points, interpolated as the renderer does."""
    height, width = size
    points = [(2 * (a.x + 0.5) / width - 1, 2 * (a.y + 0.5) / height - 1) for a in arrows]
    grid = field.new_tensor(points).view(1, 1, -1, 2)
    found = functional.grid_sample(field[None], grid, padding_mode="border", align_corners=False)
    return found[0, :, 0]


def _kind_of(arrow: Arrow, share: Float[Tensor, " c"], model: NatureModel) -> int | None:
    """Return the kind that an arrow acts on; None, with a warning, if it can move nothing."""
    kind = int(share.argmax()) - 1
    names = ("still ground", *KINDS)
    if 1 + kind == STILL:
        others = [f"{names[i]} {share[i]:.0%}" for i in range(1, len(names)) if share[i] >= 0.005]
        seen = f" ({', '.join(others)})" if others else ""
        _warn(
            f"arrow {arrow} is on {names[STILL]}{seen}, so it moves nothing: put it on something "
            "that moves, or mark what should move with --move MASK"
        )
        return None
    if model.config.dynamics[kind].gain == 0:
        _warn(f"arrow {arrow} is on {KINDS[kind]}, which sway in place, so it moves nothing")
        return None
    return kind


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _followed(
    model: NatureModel,
    start: Float[Tensor, "b r"],
    conditions: Float[Tensor, "b k c"],
    wanted: Wanted,
) -> Float[Tensor, "b r"]:
    """Return the part of nu of one kind, by the method of Levenberg and Marquardt.

    Each step solves

        (J^T J + 1 + m) step = J^T r - (nu - nu_0),   r = (d - v) / s,   J = d v / d nu / s,

    in double precision, as J^T J is large where the tolerance is small. The damping m is 0 as long
    as steps make things better, as in the Gauss-Newton method. The search starts at nu_0 and at 0,
    as some nu_0 are so fast that small changes do nothing. The best of all is returned.
    """
    c = conditions[:, wanted.kind].repeat(2, 1)
    drawn = start.repeat(2, 1)
    nu = best = torch.cat([start, torch.zeros_like(start)])
    least = torch.full_like(nu[:, :1], torch.inf, dtype=torch.float64)
    damping = torch.zeros_like(least)
    one = torch.eye(nu.shape[1], device=nu.device, dtype=torch.float64)
    normal, pull = one.expand(len(nu), -1, -1), torch.zeros_like(nu, dtype=torch.float64)
    for _ in range(_NUM_EVALUATIONS):
        missed, slope = _measured(model, nu, c, wanted)
        away = (nu - drawn).double()
        cost = (missed.square().sum(1) + away.square().sum(1))[:, None]
        better = cost < least
        best, least = torch.where(better, nu, best), torch.minimum(cost, least)
        normal = torch.where(better[..., None], slope.mT @ slope + one, normal)
        uphill = torch.einsum("bkr,bk->br", slope, missed) - away
        pull = torch.where(better, uphill, pull)
        softer = torch.where(damping > 1, damping / 10, 0.0)
        damping = torch.where(better, softer, (10 * damping).clamp_min(1.0))
        step = torch.linalg.solve(normal + damping[..., None] * one, pull).to(nu)
        nu = best + step
        if float(step.norm(dim=1).max()) < _SMALL_STEP:
            break
    first, second = best.chunk(2)
    return torch.where(torch.le(*least.chunk(2)), first, second)


def _measured(
    model: NatureModel, nu: Float[Tensor, "b r"], c: Float[Tensor, "b c"], wanted: Wanted
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k r"]]:
    """Return what a motion misses in units of the tolerance, and the slope of its velocities."""
    with torch.enable_grad():
        nu = nu.detach().requires_grad_()
        row, _ = model.flow.to_latent(nu, c)
        coefficients = _coefficients(model, row, wanted.kind)
        flat = coefficients.flatten(1).sum(dim=0)
        # Rows are independent, so the derivatives of a sum over the batch are those of each row.
        which = torch.eye(len(flat), device=flat.device)
        (slopes,) = torch.autograd.grad(flat, nu, which, is_grads_batched=True)
    # A velocity is linear in its coefficients.
    scale = wanted.scale / wanted.tolerance[:, None]
    velocity = torch.einsum("bcn,mn->bmc", coefficients.detach(), wanted.weights)
    missed = wanted.velocity / wanted.tolerance[:, None] - velocity * scale
    slopes = slopes.unflatten(0, coefficients.shape[1:])
    slope = torch.einsum("cnbr,mn,mc->bmcr", slopes, wanted.weights, scale)
    return missed.flatten(1).double(), slope.flatten(1, 2).double()


def _coefficients(
    model: NatureModel, row: Float[Tensor, "b r"], kind: int
) -> Float[Tensor, "b 2 n"]:
    """Return the coefficients of the velocity of one kind, given its part of z."""
    others = row.new_zeros(len(row), len(KINDS), KIND_DIM)
    z = torch.cat([others[:, :kind], row[:, None], others[:, kind + 1 :]], dim=1)
    return model.read_motion(z.flatten(1))[kind][0]
