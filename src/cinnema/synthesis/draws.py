"""Which residual each sample has, and the control that goes with it: drawn, or given."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.models.base import VideoModel
from cinnema.synthesis.residuals import SavedNu, load_nu

Nu: TypeAlias = Float[Tensor, " z"] | Float[Tensor, "n z"] | SavedNu | str | Path
"""Residuals: a tensor, a nu file, or what `load_nu` read of one"""


@dataclass(frozen=True, eq=False)
class Draw:
    """One residual with the control that goes with it, and where they are from.

    Attributes:
        nu: Of shape (z,), without the temperature, on the CPU.
        eta: The control; None where there is none.
        seed: What nu was drawn with; None where it was given.
        sample: The sample's number.
        about: What there is to tell of this draw beyond that, as JSON values.
    """

    nu: Tensor
    eta: Tensor | None
    seed: int | None
    sample: int
    about: dict[str, Any] = field(default_factory=dict)


def drawn(model: VideoModel, *, num_samples: int, seed: int, eta: Tensor | None) -> list[Draw]:
    """Return the first samples of a seed.

    Args:
        model: Whose residuals.
        num_samples: From 1 to 10,000.
        seed: Of all draws, at least 0.
        eta: The control of all; None lets a model that cannot do without draw one for each.

    Raises:
        UserError: A number is out of range.
    """
    if not 1 <= num_samples <= 10_000:
        raise UserError(
            f"num_samples: must be from 1 to 10000, got {num_samples}: ask for some, and for more "
            "by another seed"
        )
    return [drawn_one(model, seed=seed, sample=i, eta=eta) for i in range(num_samples)]


def drawn_one(model: VideoModel, *, seed: int, sample: int, eta: Tensor | None) -> Draw:
    """Return one sample of a seed.

    Args:
        model: Whose residual.
        seed: At least 0.
        sample: Its number within the seed.
        eta: As in `drawn`.

    Raises:
        UserError: A number is out of range.
    """
    generator = generator_for(seed, sample)
    nu = torch.randn(model.z_dim, generator=generator)
    control = model.draw_eta(generator=generator) if eta is None else eta
    return Draw(nu, control, seed, sample)


def given(model: VideoModel, nu: Nu, *, eta: Tensor | None, weights: str) -> list[Draw]:
    """Return residuals that were made before.

    Args:
        model: Whose residuals they are to be.
        nu: One, or several as the rows of a tensor.
        eta: The control of all; None takes that of the nu file, if it has one.
        weights: SHA-256 of the model's file; a nu file of other weights is warned of.

    Raises:
        UserError: They are of another length, not finite, or come without the control that the
            model needs; the file cannot be read.
    """
    saved = load_nu(nu) if isinstance(nu, str | Path) else nu
    values = saved.nu if isinstance(saved, SavedNu) else saved
    rows = _checked(model, values)
    if isinstance(saved, SavedNu) and eta is None:
        eta = _saved_eta(saved, model.control_dim)
    if eta is None and model.control is not None and not model.control.optional:
        raise UserError(
            f"eta: nu alone does not tell the control of {model.name}: give it too, "
            f"{model.control.describe()}"
        )
    if not isinstance(saved, SavedNu):
        return [Draw(row, eta, None, i) for i, row in enumerate(rows)]
    if saved.weights != weights:
        warnings.warn(
            f"nu was made with other weights ({saved.weights[:12] or 'never saved'}) than "
            f"{model.name} ({weights[:12] or 'never saved'}): the motion will differ",
            stacklevel=4,
        )
    return [Draw(rows[0], eta, saved.seed, saved.sample)]


def _checked(model: VideoModel, nu: Tensor) -> Tensor:
    z_dim = model.z_dim
    if nu.ndim not in (1, 2) or nu.shape[-1] != z_dim or nu.numel() == 0:
        raise UserError(
            f"nu: the model {model.name} needs ({z_dim},) or (n, {z_dim}) numbers, got "
            f"{tuple(nu.shape)}: replay it with the weights that it was made with"
        )
    if not bool(nu.isfinite().all()):
        raise UserError("nu: must be finite, but some values are not: draw it anew")
    return nu.detach().float().cpu().reshape(-1, z_dim)


def _saved_eta(saved: SavedNu, num: int) -> Tensor | None:
    """The control that a nu file's video was made with, if this model takes such a one."""
    values = saved.settings.get("eta")
    return torch.tensor(values) if num and isinstance(values, list) and len(values) == num else None
