"""In which number format I3D computes: the fastest that leaves FVD where it is.

All of it in bfloat16 moves FVD by over a per cent, most of which comes from the wide convolutions
at the beginning; the layers named here can be rounded without moving it (benchmarks/i3d.py).
"""

from typing import Literal

import torch

from cinnema.backbones.i3d import I3D

Precision = Literal["float32", "mixed", "bfloat16"]

MIXED: Precision = "mixed"

_HARMLESS = ("conv3d_1a", "mixed_3b", "mixed_4")


def choose_precision(device: torch.device) -> Precision:
    """Return the format for a device: mixed on CPUs that multiply bfloat16 in hardware.

    Args:
        device: Where the network computes.
    """
    if device.type != "cpu":
        return "float32"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return MIXED if has_bf16 else "float32"


def in_precision(i3d: I3D, precision: Precision) -> I3D:
    """Fold batch norms, lay channels out last, and round weights, in place.

    Args:
        i3d: In evaluation mode, float32.
        precision: "float32" changes no number but by rounding; "mixed" has the harmless layers,
            "bfloat16" all but the last in bfloat16.

    Returns:
        The network itself.
    """
    i3d.fold_batch_norm().channels_last()
    if precision == "float32":
        return i3d
    for name, layer in i3d.named_children():
        is_trunk = name.lower().startswith(("conv3d_1", "conv3d_2", "mixed"))
        if is_trunk and (precision == "bfloat16" or name.lower().startswith(_HARMLESS)):
            for weight in layer.parameters():
                weight.data = weight.data.to(torch.bfloat16)
    return i3d
