"""Residuals: drawn, given by the user, or stored in motion files, each with its control."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cinnema import __version__
from cinnema.core.documents import parse_json
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file
from cinnema.core.randomness import generator_for
from cinnema.models.base import VideoModel
from cinnema.synthesis.video import Generated, Video

_KEY = "cinnema-nu"  # key of the entry in the file's metadata
_FORMAT = 1
_MAX_SAMPLES = 10_000


@dataclass(frozen=True, eq=False, kw_only=True)
class Residual:
    """A motion without the photograph: nu and the control that belongs to it.

    Attributes:
        nu: The residual, on the CPU.
        eta: The control; None without one.
        seed: Seed that nu was drawn with; None if it was not drawn.
        sample: Index of the sample within its seed, from 0.
        weights: SHA-256 of the weights that nu belongs to; empty for a model from memory.
        about: Where the residual comes from, as JSON values. For one from a motion file these are
            the settings of its video.
        z: Latent of the video that nu was computed from; None if nu was drawn.
    """

    nu: Float[Tensor, " z"]
    eta: Float[Tensor, " e"] | None = None
    seed: int | None = None
    sample: int = 0
    weights: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    z: Float[Tensor, " z"] | None = None


Motions: TypeAlias = (
    Float[Tensor, " z"] | Float[Tensor, "n z"] | Residual | Sequence[Residual] | Video | str | Path
)
"""A tensor, one or several residuals, a generated video, or a motion file."""


def draw(
    model: VideoModel, *, num_samples: int, seed: int, eta: Tensor | None, weights: str
) -> list[Residual]:
    """Draw the first samples of a seed.

    Args:
        model: The model.
        num_samples: Number of samples, from 1 to 10,000.
        seed: Seed, at least 0.
        eta: The control of all samples; if None, models that need one draw one for each sample.
        weights: SHA-256 of the model's file.

    Raises:
        UserError: A number is out of range.
    """
    if not 1 <= num_samples <= _MAX_SAMPLES:
        raise UserError(
            f"num_samples: must be from 1 to {_MAX_SAMPLES}, got {num_samples}: ask for more with "
            "another seed"
        )
    return [
        draw_one(model, seed=seed, sample=i, eta=eta, weights=weights) for i in range(num_samples)
    ]


def draw_one(
    model: VideoModel, *, seed: int, sample: int, eta: Tensor | None, weights: str
) -> Residual:
    """Draw one sample of a seed.

    Args:
        model: The model.
        seed: Seed, at least 0.
        sample: Index of the sample within the seed, from 0.
        eta: As in `draw`.
        weights: SHA-256 of the model's file.

    Raises:
        UserError: A number is out of range.
    """
    generator = generator_for(seed, sample)
    nu = torch.randn(model.z_dim, generator=generator)
    eta = model.draw_eta(generator=generator) if eta is None else eta
    return Residual(nu=nu, eta=eta, seed=seed, sample=sample, weights=weights)


def given(model: VideoModel, nu: Motions, *, eta: Tensor | None, weights: str) -> list[Residual]:
    """Validate residuals given by the user.

    Args:
        model: The model that is to use them.
        nu: One residual, or several.
        eta: Control of all residuals. Defaults to the control that is stored with `nu`.
        weights: SHA-256 of the model's file; a warning is issued if `nu` belongs to other weights.

    Raises:
        UserError: nu has the wrong length or is not finite, a control that the model needs is
            missing, or the file cannot be read.
    """
    if isinstance(nu, Sequence) and not isinstance(nu, str):
        return [one for each in nu for one in given(model, each, eta=eta, weights=weights)]
    if isinstance(nu, str | Path):
        nu = load_motion(nu)
    elif isinstance(nu, Video):
        nu = residual_of(nu)
    rows = _checked(model, nu.nu if isinstance(nu, Residual) else nu)
    residual = nu if isinstance(nu, Residual) else None
    if eta is None and residual is not None and residual.eta is not None:
        # A control of another length belongs to another kind of model.
        eta = residual.eta if len(residual.eta) == model.control_dim else None
    if eta is None and model.control is not None and not model.control.optional:
        raise UserError(
            f"eta: the model {model.name} needs a control beside nu: give it, "
            f"{model.control.describe()}"
        )
    if residual is None:
        return [Residual(nu=row, eta=eta, sample=i, weights=weights) for i, row in enumerate(rows)]
    if residual.weights != weights:
        warnings.warn(
            f"nu was made with other weights ({residual.weights[:12] or 'never saved'}) than "
            f"{model.name} ({weights[:12] or 'never saved'}): the motion will differ",
            stacklevel=4,
        )
    seed, sample = residual.seed, residual.sample
    return [Residual(nu=rows[0], eta=eta, seed=seed, sample=sample, weights=weights)]


def residual_of(video: Video) -> Residual:
    """Return the residual that a video was made from."""
    return Residual(
        nu=video.nu,
        eta=video.eta,
        seed=video.seed,
        sample=video.sample,
        weights=video.weights,
        about=video.settings,
        z=video.z,
    )


def save_motion(path: str | Path, video: Generated, *, overwrite: bool = False) -> None:
    """Write nu and z of a video, and their origin, to a safetensors file.

    Args:
        path: The file, usually with the ending ".nu.safetensors".
        video: The video whose motion is stored.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UserError: The file exists, or cannot be written.

    Example:
        >>> save_motion("beach-0.nu.safetensors", video)
        >>> pipe.animate("beach.jpg", nu="beach-0.nu.safetensors")
    """
    about = {
        "format": _FORMAT,
        "version": __version__,
        "weights": video.weights,
        "seed": video.seed,
        "sample": video.sample,
        "settings": video.settings,
    }
    tensors = {"nu": video.nu, "z": video.z}
    stored = {name: value.detach().float().cpu().clone() for name, value in tensors.items()}
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_bytes(save(stored, metadata={_KEY: json.dumps(about)}))


def load_motion(path: str | Path) -> Residual:
    """Read a file that `save_motion` wrote.

    Args:
        path: The file.

    Returns:
        The residual, with z and in `about` the settings of its video, on the CPU.

    Raises:
        UserError: The file is missing, empty, damaged, or not a motion file.
    """
    path = check_input_file(path, kind="a motion file")
    try:
        with safe_open(path, framework="pt") as file:
            about = parse_json((file.metadata() or {})[_KEY])
            nu, z = file.get_tensor("nu"), file.get_tensor("z")
        settings = dict(about["settings"])
        eta = settings.get("eta")
        return Residual(
            nu=nu,
            eta=torch.tensor([float(x) for x in eta]) if isinstance(eta, list) else None,
            seed=None if about["seed"] is None else int(about["seed"]),
            sample=int(about["sample"]),
            weights=str(about["weights"]),
            about=settings,
            z=z,
        )
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a motion file of cinnema ({' '.join(str(error).split())}): "
            "name one that `cinnema animate` wrote"
        ) from error


def _checked(model: VideoModel, nu: Tensor) -> Tensor:
    z_dim = model.z_dim
    if nu.ndim not in (1, 2) or nu.shape[-1] != z_dim or nu.numel() == 0:
        raise UserError(
            f"nu: the model {model.name} needs ({z_dim},) or (n, {z_dim}) numbers, got "
            f"{tuple(nu.shape)}: use the weights that it was made with"
        )
    if not bool(nu.isfinite().all()):
        raise UserError("nu: must be finite, but some values are not: draw it again")
    return nu.detach().float().cpu().reshape(-1, z_dim)
