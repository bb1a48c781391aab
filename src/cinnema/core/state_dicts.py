"""State dicts of other programs: read without running code, checked entry by entry."""

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.core.memory import is_lack_of_memory

_GLOBAL = re.compile(r"GLOBAL (\S+)")  # how torch's message names what a pickle refers to
_PARALLEL = "module."  # torch's DataParallel puts it before every name


def read_state_dict(path: str | Path, *, kind: str) -> dict[str, Tensor]:
    """Read tensors by name from a torch or safetensors file.

    They may be under the key `state_dict`; other entries (epoch, optimiser) are ignored. The prefix
    `module.` of data-parallel training is removed if all names have it.

    Args:
        path: A torch file (.pth, .pt, .pth.tar), of which only tensors and plain values are read,
            or a file with the suffix .safetensors.
        kind: What it should be, with its article ("the weights of an I3D"), for messages.

    Returns:
        The tensors, on the CPU.

    Raises:
        UserError: The file is missing or damaged, cannot be read without running code, or does not
            hold a state dict.
    """
    path = check_input_file(path, kind=kind)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a state dict (tensors by name): "
            "save network.state_dict()"
        )
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if state and all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    return state


def require_entries(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, path: Path, network: str
) -> None:
    """Raise a UserError unless a state dict has exactly the expected names and shapes.

    Args:
        state: The state dict that was read.
        expected: A state dict of the network, of which names and shapes are used.
        path: The file, for the message.
        network: Name of the network, for the message.
    """
    problems = {
        "lacks": [name for name in expected if name not in state],
        "has unknown": [name for name in state if name not in expected],
        "has the wrong shape in": [
            f"{name} {tuple(state[name].shape)}, not {tuple(value.shape)}"
            for name, value in expected.items()
            if name in state and state[name].shape != value.shape
        ],
    }
    found = [f"{verb} {_some(names)}" for verb, names in problems.items() if names]
    if found:
        raise UserError(
            f"{path} does not fit {network}: it {'; it '.join(found)}: name a file with the whole "
            f"state dict of {network}, and the config that it was trained with"
        )


def load_state(network: nn.Module, state: Mapping[str, Tensor], *, otherwise: str) -> None:
    """Give a network the weights of a file.

    Args:
        network: The network.
        state: The weights.
        otherwise: What is wrong if they do not fit, and what to do.

    Raises:
        UserError: They do not fit.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        if is_lack_of_memory(error):
            raise
        raise UserError(otherwise) from error


@contextmanager
def no_larger_than(state: Mapping[str, Tensor], *, times: int = 2) -> Iterator[None]:
    """Give up a network that is built in the block once it is larger than its weights.

    Args:
        state: The weights.
        times: How many times as many parameters, and numbers in them, it may have; parameters that
            modules share count for each.

    Raises:
        RuntimeError: It has more; no time or memory is taken for the rest.
    """
    numbers, parameters = (
        times * sum(tensor.numel() for tensor in state.values()),
        times * len(state),
    )

    def count(_: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal numbers, parameters
        if parameter is not None:
            numbers, parameters = numbers - parameter.numel(), parameters - 1
        if numbers < 0 or parameters < 0:
            raise RuntimeError(f"at {name}, it has more parameters than the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a complete safetensors file ({error}): copy or download it again"
        ) from error


def _read_torch(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        # weights_only builds tensors and runs no code.
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        reason = wanted[1] if wanted else _first_line(str(error).rpartition("error:")[2])
        raise UserError(
            f"{path} needs more than tensors to be read, which could run code (it refers to "
            f"{reason}): save its state dict alone, or as .safetensors"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive, or pickle in it, raises almost anything
        raise UserError(
            f"{path} is not a complete torch file ({_first_line(str(error))}): "
            "copy or download it again"
        ) from error


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].rstrip(".")


def _some(names: Iterable[str], *, most: int = 3) -> str:
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
