"""Between two motions: residuals on the arc from one to the other."""

from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.models.base import VideoModel
from cinnema.synthesis.draws import Draw, Nu, drawn_one, given
from cinnema.synthesis.residuals import SavedNu

End: TypeAlias = int | Nu
"""A sample's number within the seed, or a residual that was made before"""

_MAX_STEPS = 100


def slerp(a: Float[Tensor, " z"], b: Float[Tensor, " z"], share: float) -> Float[Tensor, " z"]:
    """Return the residual at a share of the way from a to b.

    With w the angle between a and b and l(s) = (1 - s) |a| + s |b|,

        nu(s) = l(s) (sin((1 - s) w) a / |a| + sin(s w) b / |b|) / sin w,

    so that the norm, on which nearly all of a standard normal lies, is kept: the straight line
    would pass through shorter residuals, which move less. Where a and b point the same way, or one
    is 0, it is the straight line.

    Source: Shoemake, "Animating Rotation with Quaternion Curves", 1985.

    Args:
        a: At share 0, exactly.
        b: At share 1, exactly.
        share: In [0, 1].

    Raises:
        UserError: a and b point in opposite directions: no arc is the shortest.

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
    # The angle by the lengths of sum and difference: exact near 0, where the cosine is blind.
    angle = 2 * torch.atan2((x - y).norm(), (x + y).norm())
    if angle < 1e-6:
        return torch.lerp(a, b, share)
    if (x + y).norm() < 1e-6:
        raise UserError("nu: the two ends point in opposite directions: take another end")
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
) -> list[Draw]:
    """Return residuals on the way from one end to the other, both ends among them.

    Args:
        model: Whose residuals.
        start: A sample's number within the seed, or a residual.
        end: The same.
        steps: How many, from 2 to 100.
        seed: Of the ends that are numbers.
        temperature: Factor on those ends; it is in the residuals that are returned.
        eta: The control of all; None goes from that of one end to that of the other.
        weights: SHA-256 of the model's file.

    Raises:
        UserError: A number is out of range, an end is no residual, or only one has a control.
    """
    if not 2 <= steps <= _MAX_STEPS:
        raise UserError(
            f"steps: must be from 2 to {_MAX_STEPS}, both ends counted, got {steps}: try 5"
        )
    ends = [
        _end(model, one, seed=seed, temperature=temperature, eta=eta, weights=weights)
        for one in (start, end)
    ]
    a, b = ends
    if (a.eta is None) != (b.eta is None):
        raise UserError(
            "eta: one of the two ends was made with a control and the other without: give one for "
            "all"
        )
    names = {"start": _name(start), "end": _name(end), "temperature": temperature}
    draws = []
    for step in range(steps):
        share = step / (steps - 1)
        control = None if a.eta is None or b.eta is None else torch.lerp(a.eta, b.eta, share)
        about = {"interpolation": {**names, "share": round(share, 6)}}
        number = seed if isinstance(start, int) and isinstance(end, int) else None
        draws.append(Draw(slerp(a.nu, b.nu, share), control, number, step, about))
    return draws


def _end(
    model: VideoModel,
    end: End,
    *,
    seed: int,
    temperature: float,
    eta: Tensor | None,
    weights: str,
) -> Draw:
    if isinstance(end, int):
        draw = drawn_one(model, seed=seed, sample=end, eta=eta)
        return replace(draw, nu=draw.nu * temperature)
    draws = given(model, end, eta=eta, weights=weights)
    if len(draws) != 1:
        raise UserError(f"nu: an end is one residual, got {len(draws)}: give one row")
    return draws[0]


def _name(end: End) -> Any:  # noqa: ANN401 - a JSON value
    if isinstance(end, int):
        return {"sample": end}
    if isinstance(end, Tensor):
        return "a tensor"
    if isinstance(end, SavedNu):
        return {"seed": end.seed, "sample": end.sample}
    return {"file": str(end).replace("\\", "/").rsplit("/", maxsplit=1)[-1]}
