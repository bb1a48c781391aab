"""The training data of stage 2: features of x0, z and control, encoded once by a frozen stage 1."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float, Float16
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cinnema.core.config import config_to_dict
from cinnema.core.files import atomic_path
from cinnema.data.loader import VideoBatch
from cinnema.models.keypoint.stage1 import KeypointStage1
from cinnema.training.run import counted

EncodeBatch = Callable[[KeypointStage1, VideoBatch], "LatentPool"]
"""Encodes a batch of clips with a stage 1 in evaluation mode."""


@dataclass(frozen=True)
class LatentPool:
    """Encoded clips.

    Attributes:
        joint: Features of x0, averaged to 8 x 8; the input of the conditioner.
        z: Latents of the clips' motion, without noise.
        eta: Control, as the end point.
        known: Confidence in eta, in [0, 1].
    """

    joint: Float16[Tensor, "n f 8 8"]
    z: Float[Tensor, "n z"]
    eta: Float[Tensor, "n e"]
    known: Float[Tensor, " n"]

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.z)

    def to(self, device: torch.device) -> "LatentPool":
        """Return the pool on a device."""
        return LatentPool(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @classmethod
    def joined(cls, pools: Sequence["LatentPool"], num: int | None = None) -> "LatentPool":
        """Return the first `num` clips of several pools, by default all."""
        columns = {f.name: [getattr(p, f.name) for p in pools] for f in fields(cls)}
        return cls(**{name: torch.cat(parts)[:num] for name, parts in columns.items()})


def encode_pool(
    stage1: KeypointStage1,
    batches: Iterator[VideoBatch],
    num: int,
    *,
    device: torch.device,
    encode_batch: EncodeBatch,
) -> LatentPool:
    """Encode the next clips of a stream; stage 1 is set to evaluation mode.

    Args:
        stage1: The trained stage 1.
        batches: Batches of clips.
        num: Number of clips to encode.
        device: Where stage 1 computes; the pool is on the CPU.
        encode_batch: Encodes a batch.
    """
    stage1.to(device)
    stage1.eval()
    pools: list[LatentPool] = []
    with counted("encoding clips", total=num) as count:
        while sum(map(len, pools)) < num:
            pools.append(encode_batch(stage1, next(batches)).to(torch.device("cpu")))
            count(min(num, sum(map(len, pools))))
    return LatentPool.joined(pools, num)


def load_or_encode(
    path: Path,
    stage1: KeypointStage1,
    batches: Iterator[VideoBatch],
    num: int,
    *,
    device: torch.device,
    encode_batch: EncodeBatch,
) -> LatentPool:
    """Return the pool that a file holds, or encode one and write it there.

    The file is replaced if it was made with other weights of stage 1, has another number of clips,
    or cannot be read.

    Args:
        path: The safetensors file.
        stage1: The trained stage 1.
        batches: Batches of clips.
        num: Number of clips in the pool.
        device: Where stage 1 computes; the pool is on the CPU.
        encode_batch: Encodes a batch.
    """
    about = json.dumps({"stage1": fingerprint(stage1), "num": num})
    kept = _load(path, about)
    if kept is not None:
        return kept
    pool = encode_pool(stage1, batches, num, device=device, encode_batch=encode_batch)
    with atomic_path(path, overwrite=True) as part:
        part.write_bytes(save(dict(vars(pool)), metadata={"cinnema_pool": about}))
    return pool


def fingerprint(stage1: KeypointStage1) -> str:
    """Return a hash of what determines the latents of a clip: config and weights of stage 1."""
    digest = hashlib.sha256(json.dumps(config_to_dict(stage1.config)).encode())
    for name, part in stage1.latent_parts().items():
        digest.update(name.encode())
        for value in part.state_dict().values():
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _load(path: Path, about: str) -> LatentPool | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("cinnema_pool") != about:
                return None
            return LatentPool(**{f.name: file.get_tensor(f.name) for f in fields(LatentPool)})
    except (SafetensorError, OSError):
        return None
