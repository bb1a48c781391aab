"""Networks so small that a step takes a fraction of a second, and how their states compare."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from cinnema.data.loader import VideoBatch
from cinnema.paper.recipes import bair, tiny

RECIPE = tiny(bair())

# Stage 1 at 32 px, which is less than the image encoder takes.
STAGE1 = replace(
    RECIPE.stage1,
    encoder=replace(RECIPE.stage1.encoder, stride_s=(1, 1, 2, 2)),
    decoder=replace(RECIPE.stage1.decoder, upsample_s=(1, 1)),
    temporal=replace(RECIPE.stage1.temporal, stride_s=(1, 1, 1, 2)),
)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Stands in for LPIPS."""
    return (a - b).square().mean(dim=(1, 2, 3))


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def is_same(a: dict[str, Tensor], b: dict[str, Tensor], *, within: str = "") -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items() if name.startswith(within))


def batch_of(video: Tensor, *, control: Tensor | None = None) -> VideoBatch:
    """Return clips as the loader does; x0 is the first frame, in [-1, 1]."""
    num, numbers = len(video), torch.arange(len(video))
    return VideoBatch(
        video=video,
        control=video.new_zeros(num, 0) if control is None else control,
        confidence=torch.full((num,), float(control is not None)),
        track=video.new_zeros(num, video.shape[1], 0),
        fps=torch.full((num,), 25.0),
        index=numbers,
        number=numbers,
    )
