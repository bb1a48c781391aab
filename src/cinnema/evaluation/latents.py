"""Codes of real clips, and how likely a prior finds them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from cinnema.data.clips import moving_target
from cinnema.data.scenes import SceneCrops
from cinnema.evaluation.motion import pictures
from cinnema.models.warping.stage1 import Stage1
from cinnema.training.latent_pool import LatentPool, encode


@dataclass(frozen=True)
class SceneLatents:
    """Encoded clips of known scenes, not augmented.

    Attributes:
        pool: Features of x0 and z, without noise.
        groups: Number of each clip's scene.
        scenes: Names of the scenes.
        textures: Their textures.
    """

    pool: LatentPool
    groups: Int[Tensor, " n"]
    scenes: tuple[str, ...]
    textures: tuple[str, ...]


def encode_scenes(stage1: Stage1, crops: Sequence[SceneCrops], *, num: int) -> SceneLatents:
    """Encode clips of each scene where stage 1 is; the result is on the CPU.

    Args:
        stage1: Set to evaluation.
        crops: The scenes, at least one.
        num: Clips of each scene, at most.
    """
    stage1.eval()
    pools = [
        encode(
            stage1,
            pictures(c.frames[:num, 0]),
            torch.from_numpy(c.flow[:num]),
            _known_to_move(c.motion[:num]),
        ).to(torch.device("cpu"))
        for c in crops
    ]
    return SceneLatents(
        pool=LatentPool.joined(pools),
        groups=torch.cat([torch.full((len(p),), i) for i, p in enumerate(pools)]),
        scenes=tuple(c.scene.name for c in crops),
        textures=tuple(c.scene.texture for c in crops),
    )


def _known_to_move(motion: Float32[np.ndarray, "n m m"]) -> Float[Tensor, "n m m"]:
    moving, known = moving_target(torch.from_numpy(motion))
    return moving * known


def with_noise(
    z: Float[Tensor, "n z"], *, noise: float, draw: int, seed: int = 0
) -> Float[Tensor, "n z"]:
    """Return samples of q(z | X); the same ones for the same seed and draw, on the CPU."""
    generator = torch.Generator().manual_seed(seed * 1009 + draw)
    return z + noise * torch.randn(z.shape, generator=generator)
