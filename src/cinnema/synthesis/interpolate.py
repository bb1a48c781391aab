"""Spherical interpolation between two residuals."""

from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.synthesis.residual import Motions, Residual, draw_one, given
from cinnema.synthesis.video import Video

End: TypeAlias = int | Motions
"""One end of an interpolation: index of a sample of the seed, from 0, or a residual."""

_MAX_STEPS = 100


def slerp(a: Float[Tensor, " z"], b: Float[Tensor, " z"], share: float) -> Float[Tensor, " z"]:
    """Interpolate spherically between two residuals.

    With w the angle between a and b and l(s) = (1 - s) |a| + s |b|,

        nu(s) = l(s) (sin((1 - s) w) a / |a| + sin(s w) b / |b|) / sin w,

    which keeps the norm, near which almost all of a standard normal lies: a straight line would
    pass through shorter residuals, which move less. If a and b have the same direction, or one is
    0, it is the straight line.

    Source: Shoemake, "Animating Rotation with Quaternion Curves", 1985.

    Args:
        a: The residual at share 0.
        b: The residual at share 1.
        share: Position between a and b, from 0 to 1.

    Raises:
        UserError: a and b have opposite directions, so that no arc is the shortest.

    Example:
        >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
        tensor([0.7071, 0.7071])
    """
    if share in (0, 1):
        return (b if share else a).clone()
    x, y = a.double(), b.double()
    length = (1 - share) * x.norm() + share * y.norm()
    if not x.any() or not y.any():
        return torch.lerp(a, b, share)
    x, y = x / x.norm(), y / y.norm()
    # The angle from the norms of difference and sum, which is accurate near 0, unlike the cosine.
    angle = 2 * torch.atan2((x - y).norm(), (x + y).norm())
    if angle < 1e-6:
        return torch.lerp(a, b, share)
    if (x + y).norm() < 1e-6:
        raise UserError("nu: the two ends have opposite directions: use another end")
    arc: Tensor = ((1 - share) * angle).sin() * x + (share * angle).sin() * y
    arc = length * arc / angle.sin()
    return arc.to(a.dtype)


def between(
    model: VideoModel,
    start: End,
    end: End,
    *,
    steps: int,
    seed: int,
    temperature: float,
    eta: Tensor | None,
    weights: str,
) -> list[Residual]:
    """Return residuals from one end to the other, both included.

    Args:
        model: The model.
        start: Index of a sample of the seed, from 0, or a residual.
        end: Index of a sample of the seed, from 0, or a residual.
        steps: Number of residuals, from 2 to 100.
        seed: Seed of ends that are indices.
        temperature: Factor on those ends; the residuals that are returned include it.
        eta: Control of all residuals; None interpolates between the controls of the ends.
        weights: SHA-256 of the model's file.

    Raises:
        UserError: A number is out of range, an end is not one residual, or only one end has a
            control.
    """
    if not 2 <= steps <= _MAX_STEPS:
        raise UserError(
            f"steps: must be from 2 to {_MAX_STEPS}, both ends included, got {steps}: try 5"
        )
    a, b = (
        _end(model, one, seed=seed, temperature=temperature, eta=eta, weights=weights)
        for one in (start, end)
    )
    if (a.eta is None) != (b.eta is None):
        raise UserError(
            "eta: one of the two ends was made with a control and the other without: give one for "
            "all"
        )
    names = {"start": _name(start), "end": _name(end), "temperature": temperature}
    residuals = []
    for step in range(steps):
        share = step / (steps - 1)
        residuals.append(
            Residual(
                nu=slerp(a.nu, b.nu, share),
                eta=None if a.eta is None or b.eta is None else torch.lerp(a.eta, b.eta, share),
                seed=seed if isinstance(start, int) and isinstance(end, int) else None,
                sample=step,
                weights=weights,
                about={"interpolation": {**names, "share": round(share, 6)}},
            )
        )
    return residuals


def _end(
    model: VideoModel,
    end: End,
    *,
    seed: int,
    temperature: float,
    eta: Tensor | None,
    weights: str,
) -> Residual:
    if isinstance(end, int):
        drawn = draw_one(model, seed=seed, sample=end, eta=eta, weights=weights)
        return replace(drawn, nu=drawn.nu * temperature)
    residuals = given(model, end, eta=eta, weights=weights)
    if len(residuals) != 1:
        raise UserError(f"nu: an end is one residual, got {len(residuals)}: give one row")
    return residuals[0]


def _name(end: End) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(end, int):
        return {"sample": end}
    if isinstance(end, Tensor):
        return "a tensor"
    if isinstance(end, Residual | Video):
        return {"seed": end.seed, "sample": end.sample}
    return {"file": str(end).replace("\\", "/").rsplit("/", maxsplit=1)[-1]}
