"""What the published networks computed, for weights that a formula fills in.

`reference/recorded.safetensors` holds, by component, the outputs (of the decoder's clip every 11th
value, in row-major order) and the few state entries that no formula gives; in its metadata stand
the configs and, in order, the key, shape and dtype of every state entry. Weights and inputs are
made here.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

_FILE = Path(__file__).parent / "paper" / "recorded.safetensors"

# Seed, shape and amplitude of each input.
_INPUTS: dict[str, dict[str, tuple[int, tuple[int, ...], float]]] = {
    "decoder": {"x0": (1, (2, 3, 64, 64), 1), "z": (2, (2, 16), 2)},
    "video_encoder": {"video": (3, (2, 3, 16, 64, 64), 1)},
    "temporal_discriminator": {"video": (4, (2, 3, 12, 64, 64), 1)},
    "patch_discriminator": {"image": (5, (4, 3, 64, 64), 1)},
    "flow": {"z": (6, (4, 16), 2), "cond": (7, (4, 12), 1), "nu": (8, (4, 16), 2)},
    "flow_control": {"z": (6, (4, 16), 2), "cond": (7, (4, 42), 1), "nu": (8, (4, 16), 2)},
    "image_encoder": {"x0": (9, (2, 3, 64, 64), 1)},
    "dti3d_16": {"video": (10, (1, 3, 16, 224, 224), 1)},
    "dti3d_32": {"video": (10, (1, 3, 32, 224, 224), 1)},
    "i3d_kinetics": {"video": (11, (1, 3, 16, 224, 224), 1)},
}


@dataclass(frozen=True)
class Recording:
    config: dict[str, Any]
    entries: list[tuple[str, list[int], str]]
    state: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@cache
def recording_of(component: str) -> Recording:
    stored = {
        name.removeprefix(f"{component}/"): tensor
        for name, tensor in load_file(_FILE).items()
        if name.startswith(f"{component}/")
    }
    about = described()[component]
    return Recording(
        config=about["config"],
        entries=[(key, shape, dtype) for key, shape, dtype in about["state"]],
        state={
            key: stored.get(f"state/{key}", by_formula(key, tuple(shape)))
            for key, shape, _ in about["state"]
        },
        inputs={
            name: amplitude * signal(seed, shape)
            for name, (seed, shape, amplitude) in _INPUTS[component].items()
        },
        outputs={
            name.removeprefix("out/"): tensor
            for name, tensor in stored.items()
            if name.startswith("out/")
        },
    )


@cache
def described() -> dict[str, Any]:
    with safe_open(_FILE, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
    return about


def by_formula(name: str, shape: tuple[int, ...]) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    num = math.prod(shape)
    i = np.arange(num, dtype=np.float64)
    u = np.sin(0.001 * i**2 + 0.7 * i + crc32(name.encode()) % 1000)
    if len(shape) >= 2:
        w = u * math.sqrt(3 * shape[0] / num) * (0.3 if ".coupling.s." in name else 1)
        w = {"scale": 1 + 0.25 * u, "loc": 0.25 * u}.get(leaf, w)
    else:
        w = {"running_var": 1 + 0.5 * u**2, "weight": 1 + 0.25 * u}.get(leaf, 0.1 * u)
    return torch.from_numpy(w.astype(np.float32)).view(shape)


def signal(seed: int, shape: tuple[int, ...]) -> Tensor:
    i = np.arange(math.prod(shape), dtype=np.float64)
    values = np.sin(0.0001 * i**2 + 0.37 * i + seed)
    return torch.from_numpy(values.astype(np.float32)).view(shape)
