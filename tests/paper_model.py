"""A tiny model of the paper's networks, with random weights."""

from typing import Any

import torch

from cinnema.paper import build
from cinnema.paper.model import PaperModel
from cinnema.paper.spectral import SpectralWeight

# 8 frames of 64 px.
DECODER = {
    "channel_factor": 8, "z_dim": 8, "upsample_s": (2, 1), "upsample_t": (1, 1),
    "spectral_norm": True,
}  # fmt: skip
VIDEO_ENCODER = {
    "res_type_encoder": "resnet18", "use_max_pool": False, "channels": (16,) * 5, "z_dim": 8,
    "stride_t": (1, 2, 2, 1), "stride_s": (1, 2, 2, 2),
}  # fmt: skip
IMAGE_ENCODER = {"encoder_type": "resnet18", "norm": "bn", "z_dim": 5, "in_size": 64}
FLOW = {"in_channels": 8, "embedding_dim": 5, "hidden_dim": 16, "hidden_depth": 1, "n_flows": 3}
CONTROL_FLOW = {**FLOW, "embedding_dim": 35, "control": True}
PARTS = {
    "decoder": DECODER, "video_encoder": VIDEO_ENCODER, "image_encoder": IMAGE_ENCODER,
    "flow": FLOW,
}  # fmt: skip


def networks(*, control: bool) -> dict[str, Any]:
    """Random weights under which z and x0 matter, and so does the control."""
    torch.manual_seed(3)
    configs = {**PARTS, "flow": CONTROL_FLOW if control else FLOW}
    made = {part: build(part, config).eval() for part, config in configs.items()}
    with torch.no_grad():
        for parameter in made["flow"].parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
        for module in made["decoder"].modules():
            if isinstance(module, SpectralWeight):
                module.weight_orig.copy_(torch.randn(module.weight_orig.shape))
                module.iterate(num_iterations=20)
    return made


def tiny_paper_model(*, control: bool = False) -> PaperModel:
    return PaperModel.of_networks("arm" if control else "small", **networks(control=control))
