"""Weights files: one safetensors file holds the weights of a model and its configuration."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cinnema import __version__
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file

_KEY = "cinnema"  # our entry in the file's metadata
_FORMAT = 1
_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class WeightsFile:
    """Contents of a weights file.

    Attributes:
        state: Tensors by name; floating ones are converted to float32.
        config: Configuration of the model, as JSON values.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    sha256: str


def save_weights(
    path: str | Path,
    state: dict[str, Tensor],
    config: dict[str, Any],
    *,
    dtype: torch.dtype = torch.bfloat16,
    overwrite: bool = False,
) -> str:
    """Write the weights and the configuration of a model to one safetensors file.

    Args:
        path: The file to write.
        state: Tensors by name, on any device.
        config: The configuration, as JSON values, for the file's metadata.
        dtype: Type that floating tensors are stored in; others are stored as they are.
        overwrite: Whether an existing file may be replaced.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        UserError: `path` exists, or cannot be written.
    """
    about = {"format": _FORMAT, "version": __version__, "config": config}
    stored = {name: _stored(tensor, dtype) for name, tensor in state.items()}
    content = save(stored, metadata={_KEY: json.dumps(about)})
    with atomic_path(path, overwrite=overwrite) as partial:
        partial.write_bytes(content)
    return sha256(content).hexdigest()


def load_weights(path: str | Path) -> WeightsFile:
    """Read a file that `save_weights` wrote.

    Args:
        path: The file.

    Returns:
        Its tensors (on the CPU, floating ones as float32), configuration and hash.

    Raises:
        UserError: The file is missing, empty, damaged, not a safetensors file, not of cinnema, of
            a newer version, or a number in it is not finite.
    """
    path = check_input_file(path, kind="a weights file")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise UserError(
            f"{path} has {size / 2**30:.1f} GB, and weights files at most {_MAX_BYTES >> 30}: "
            "name another file"
        )
    content = path.read_bytes()
    try:
        state = load(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({error}): "
            "name a weights file of cinnema, or download it again"
        ) from error
    config = _config(content, path)
    state = {name: _loaded(tensor) for name, tensor in state.items()}
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"{path}: {name} contains NaN or infinity, as a training leaves that diverged: "
                "name a file that was written before"
            )
    return WeightsFile(
        state=state,
        config=config,
        sha256=sha256(content).hexdigest(),
    )


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    # Copied, as safetensors refuses tensors that share memory (tied weights).
    stored = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", stored, copy=True).contiguous()


def _loaded(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _config(content: bytes, path: Path) -> dict[str, Any]:
    """Read the configuration from the header: 8 bytes of length, then JSON."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"][_KEY])
        version, config = about["format"], about["config"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"{path} is a safetensors file but not one of cinnema's (its metadata has no "
            f"'{_KEY}' entry): name a file that cinnema wrote"
        ) from None
    if version != _FORMAT or not isinstance(config, dict):
        raise UserError(
            f"{path} has format {version}, this version reads {_FORMAT}: update cinnema"
        )
    return config
