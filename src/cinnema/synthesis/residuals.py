"""nu in a file, so that a motion can be seen again, on its own photograph or on another."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cinnema import __version__
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file
from cinnema.synthesis.animation import Animation

_KEY = "cinnema-nu"  # the entry of the file's metadata that is ours
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class SavedNu:
    """What a nu file holds.

    Attributes:
        nu: The residual, temperature included.
        z: The latent that it became on its photograph.
        weights: SHA-256 of the weights it belongs to; empty for a model that was never saved.
        seed: What it was drawn with; None where it was given as a tensor.
        sample: The sample's number within its seed.
        settings: What its video was made with.
    """

    nu: Float[Tensor, " z"]
    z: Float[Tensor, " z"]
    weights: str
    seed: int | None
    sample: int
    settings: dict[str, Any]


def save_nu(path: str | Path, animation: Animation, *, overwrite: bool = False) -> None:
    """Write an animation's nu and z, with where they are from, to a safetensors file.

    Args:
        path: Where to.
        animation: What the pipeline made.
        overwrite: Whether a file that is there already may be replaced.

    Raises:
        UserError: `path` exists, or cannot be written.

    Example:
        >>> save_nu("beach-0.safetensors", animation)
        >>> pipe.animate("beach.jpg", nu="beach-0.safetensors")
    """
    about = {
        "format": _FORMAT,
        "version": __version__,
        "weights": animation.weights,
        "seed": animation.seed,
        "sample": animation.sample,
        "settings": animation.settings,
    }
    tensors = {"nu": animation.nu, "z": animation.z}
    stored = {name: value.detach().float().cpu().clone() for name, value in tensors.items()}
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_bytes(save(stored, metadata={_KEY: json.dumps(about)}))


def load_nu(path: str | Path) -> SavedNu:
    """Read what `save_nu` wrote.

    Args:
        path: The file.

    Returns:
        nu, z (float32, on the CPU) and where they are from.

    Raises:
        UserError: The file is missing, empty, damaged, or no nu file.
    """
    path = check_input_file(path, kind="a nu file")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            nu, z = file.get_tensor("nu"), file.get_tensor("z")
        return SavedNu(
            nu=nu,
            z=z,
            weights=str(about["weights"]),
            seed=None if about["seed"] is None else int(about["seed"]),
            sample=int(about["sample"]),
            settings=dict(about["settings"]),
        )
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a nu file of cinnema ({' '.join(str(error).split())}): "
            "name one that `cinnema animate` wrote"
        ) from error
