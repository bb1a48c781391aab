"""Weights files: one safetensors file holds one model, with its configuration as metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from cinnema.core.bundled import bundled_name, bundled_sha256, find_weights
from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.devices import one_thread
from cinnema.core.errors import UserError
from cinnema.core.state_dicts import no_larger_than
from cinnema.core.weights import WeightsFile, load_weights, save_weights
from cinnema.models.base import VideoModel

_MAX_NUMBER = 4096  # in a configuration, unless a tensor has a larger side
_MAX_DEPTH = 8
_MAX_VALUES = 10_000


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and the file that it was loaded from.

    Attributes:
        model: In evaluation mode, float32, on the CPU.
        sha256: SHA-256 of the file, 64 hexadecimal digits; empty for a model from memory.
        path: The file; None for a model from memory.
    """

    model: VideoModel
    sha256: str = ""
    path: Path | None = None


def save_model(path: str | Path, model: VideoModel, *, overwrite: bool = False) -> str:
    """Write a model to one file, its weights and its configuration.

    Weights are rounded to the model's `stored_dtype`.

    Args:
        path: The file, usually with the ending ".safetensors".
        model: A model on any device.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The file's SHA-256, 64 hexadecimal digits.

    Raises:
        UserError: `path` exists, or cannot be written.
    """
    return save_weights(
        path,
        model.state_dict(),
        config_to_dict(model.config),
        dtype=model.stored_dtype,
        overwrite=overwrite,
    )


@one_thread()
def load_model(name_or_path: str | Path, *, sha256: str | None = None) -> LoadedModel:
    """Load a model by a bundled name, from a file, or from the Hugging Face hub.

    Args:
        name_or_path: "landscape" or another name of `bundled_names`; a file that `save_model`
            wrote; or a hub id "owner/name" or "owner/name@revision" (needs the extra `hub`), whose
            model.safetensors is downloaded. A file of that name takes precedence.
        sha256: SHA-256 that the file must have, 64 hexadecimal digits. Defaults to any; of a hub
            id, the one that its repository states is checked anyway.

    Returns:
        The model, its hash and its file. The configuration in the file determines the kind of
        model.

    Raises:
        UserError: There is no such name or file, the file is not a weights file, or has another
            hash.

    Example:
        >>> load_model("landscape").model.size
        128
    """
    path = find_weights(name_or_path)
    file = load_weights(path)
    if bundled_sha256(path) not in (None, file.sha256):
        raise UserError(
            f"{path} is not the file that cinnema came with (its SHA-256 is {file.sha256}, which "
            "SHA256SUMS beside it does not state): install cinnema again"
        )
    if sha256 is not None and file.sha256 != sha256.lower():
        raise UserError(
            f"{path} has the SHA-256 {file.sha256}, and {sha256} was asked for: name the file or "
            "revision that has it, or leave the hash out if you trust this one"
        )
    return LoadedModel(model=_build(file, path), sha256=file.sha256, path=path)


# Module, class of the configuration and class of the model, by the configuration's field `kind`. A
# module is imported when a file needs it.
_KINDS: dict[str, tuple[str, str, str]] = {
    "painting": ("cinnema.paper.model", "PaperModelConfig", "PaperModel"),
    "nature": ("cinnema.models.nature.model", "NatureModelConfig", "NatureModel"),
    "articulated": ("cinnema.models.keypoint.model", "KeypointModelConfig", "KeypointModel"),
}
_FORMER = "warping"  # also of the first files, which had no such field


def _build(file: WeightsFile, path: Path) -> VideoModel:
    kind = file.config.get("kind", _FORMER)
    if kind == _FORMER:
        raise UserError(
            f"{path} holds a warping model, the predecessor of landscape, which this version does "
            "not read: use the weights landscape, or train on your clips with cinnema finetune, or "
            "with cinnema train kinds, constants and flow"
        )
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(
            f"{path} holds a model of kind {kind!r}, and this version reads {', '.join(_KINDS)}: "
            "update cinnema, or name another file"
        )
    module_name, config_name, model_name = _KINDS[kind]
    module = import_module(module_name)
    model_type: type[VideoModel] = getattr(module, model_name)
    name = bundled_name(path)
    values = file.config if name is None else {**file.config, "name": name}
    _check_numbers(values, file.state, path)
    config: object = config_from_dict(getattr(module, config_name), values, source=str(path))
    try:
        with no_larger_than(file.state):
            return model_type.with_weights(config, file.state)
    except (RuntimeError, ValidationError) as error:
        first = str(error).split("\n\t")[1:2]
        raise UserError(
            f"{path} does not hold the weights that its configuration describes "
            f"({first[0].strip()[:200] if first else error}): name another file or save it again"
        ) from error


def _check_numbers(values: object, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise a UserError for a number in a configuration that no model of these weights needs.

    Widths are not larger than the largest side of a tensor, and counts not larger than the number
    of tensors; sizes and lengths of videos have room to spare.
    """
    sides = (side for tensor in state.values() for side in tensor.shape)
    limit = max(_MAX_NUMBER, len(state), *sides)
    stack: list[tuple[str, object, int]] = [("", values, 0)]
    num_values = 0
    while stack:
        name, value, depth = stack.pop()
        num_values += 1
        number = value if isinstance(value, int | float) and name != "seed" else 0
        if depth > _MAX_DEPTH or not -limit <= number <= limit:  # true of NaN, too
            raise UserError(
                f"{path}: {name} is {str(value)[:40]} in its configuration, which no model of its "
                "tensors needs: name another file"
            )
        if isinstance(value, dict):
            stack += [(str(key), item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list):
            stack += [(name, item, depth + 1) for item in value]
    if num_values > _MAX_VALUES:
        raise UserError(f"{path}: its configuration has {num_values} values: name another file")
