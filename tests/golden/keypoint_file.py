"""A tiny keypoint model's weights file as it was first written, its numbers made by a formula.

`fixtures/keypoint.json` holds the file's metadata, and the name, shape and kind of each tensor, so
that a few kB stand for a megabyte.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from golden.formula import values_of

_FILE = Path(__file__).parent / "fixtures" / "keypoint.json"
_KINDS = {str(kind): kind for kind in (torch.bfloat16, torch.float32, torch.int64, torch.bool)}


def write_keypoint_weights(path: Path) -> Path:
    """Write the weights file."""
    about = json.loads(_FILE.read_text())
    tensors = {}
    for name, (shape, kind, values) in about["tensors"].items():
        made = values_of(name, tuple(shape)) if values is None else torch.tensor(values)
        tensors[name] = made.to(_KINDS[kind]).reshape(shape)
    save_file(tensors, path, metadata=about["metadata"])
    return path


def describe(weights: Path) -> None:
    """Write the description of a weights file; whole numbers are kept as they are."""
    with safe_open(weights, framework="pt") as file:
        tensors = {}
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            values = None if tensor.is_floating_point() else tensor.tolist()
            tensors[name] = (list(tensor.shape), str(tensor.dtype), values)
        about = {"metadata": file.metadata(), "tensors": tensors}
    _FILE.write_text(json.dumps(about, indent=0, separators=(",", ":")) + "\n")
