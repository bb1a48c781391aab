"""What stage 2 needs of clips: the features of x0 and z, encoded once by a frozen stage 1."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Float16
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cinnema.core.config import config_to_dict
from cinnema.core.files import atomic_path
from cinnema.data.crop_batches import ClipBatch
from cinnema.models.flow.conditioning import pool_features
from cinnema.models.warping.drift import drift_of
from cinnema.models.warping.stage1 import Stage1


@runtime_checkable
class LatentStage(Protocol):
    """A stage 1 whose latents a flow can be trained on: any `nn.Module` with these."""

    @property
    def config(self) -> Any:  # noqa: ANN401 - each kind has its own, all with `noise`
        """What it is made of."""

    def latent_parts(self) -> Mapping[str, nn.Module]:
        """Return the networks that decide z and the features of x0, by name."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return its weights."""

    def to(self, device: torch.device) -> object:
        """Go to a device."""

    def eval(self) -> object:
        """Leave training."""


_Stage = TypeVar("_Stage", bound=LatentStage)
_Batch = TypeVar("_Batch")


@dataclass(frozen=True)
class LatentPool:
    """Encoded clips.

    Attributes:
        joint: Features of x0, averaged to 8 x 8: what the conditioner reads.
        z: Codes of the clips' motion, without noise.
        eta: The control, as the conditioner takes it: where what moves drifts to
            (`cinnema.models.warping.drift`), or where a body ends.
        known: How far eta tells the motion, in [0, 1].
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
        """Return the first `num` clips of several pools, all of them if None."""
        columns = {f.name: [getattr(p, f.name) for p in pools] for f in fields(cls)}
        return cls(**{name: torch.cat(parts)[:num] for name, parts in columns.items()})


@torch.no_grad()
def encode(
    stage1: Stage1,
    x0: Float[Tensor, "b 3 h w"],
    flow: Float[Tensor, "b 2 t 16 16"],
    moving: Float[Tensor, "b m m"],
) -> LatentPool:
    """Encode some clips where stage 1 is.

    Args:
        stage1: In evaluation mode.
        x0: First frames, in [-1, 1].
        flow: Backward flow to them, in picture widths and heights.
        moving: 1 where something moves during the clip, 0 where nothing does.
    """
    like = next(stage1.parameters())
    joint = stage1.scene(x0.to(like, memory_format=torch.channels_last)).joint
    z = stage1.encode(flow.to(like))
    # Contiguous as from a file: convolutions round differently in another memory format.
    eta, known = drift_of(flow.float(), moving)
    return LatentPool(
        joint=pool_features(joint).half().contiguous(),
        z=z.float(),
        eta=eta.to(z.device),
        known=known.to(z.device),
    )


def encode_drifting(stage1: Stage1, batch: ClipBatch) -> LatentPool:
    """Encode a batch of clips in which something drifts; its drift is the control."""
    return encode(stage1, batch.x0, batch.flow, batch.moving * batch.known)


def encode_pool(
    stage1: _Stage,
    batches: Iterator[_Batch],
    num: int,
    *,
    device: torch.device,
    encode_batch: Callable[[_Stage, _Batch], LatentPool],
) -> LatentPool:
    """Encode the next clips of a stream; stage 1 is set to evaluation.

    Args:
        stage1: Trained.
        batches: Where the clips come from.
        num: How many clips.
        device: Where stage 1 computes; the pool stays on the CPU.
        encode_batch: What stage 1 makes of a batch.
    """
    stage1.to(device)
    stage1.eval()
    console = Console(stderr=True)
    pools: list[LatentPool] = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("encoding clips", total=num)
        while (done := sum(map(len, pools))) < num:
            progress.update(task, completed=done)
            pools.append(encode_batch(stage1, next(batches)).to(torch.device("cpu")))
    return LatentPool.joined(pools, num)


def load_or_encode(
    path: Path,
    stage1: _Stage,
    batches: Iterator[_Batch],
    num: int,
    *,
    device: torch.device,
    encode_batch: Callable[[_Stage, _Batch], LatentPool],
) -> LatentPool:
    """Return the pool that a file holds, or encode one and write it there.

    A file of other weights of stage 1, of another number of clips, or that cannot be read is
    replaced.

    Args:
        path: The file, safetensors.
        stage1: Trained.
        batches: Where the clips come from.
        num: How many clips.
        device: Where stage 1 computes; the pool stays on the CPU.
        encode_batch: What stage 1 makes of a batch.
    """
    about = json.dumps({"stage1": fingerprint(stage1), "num": num})
    kept = _load(path, about)
    if kept is not None:
        return kept
    pool = encode_pool(stage1, batches, num, device=device, encode_batch=encode_batch)
    with atomic_path(path, overwrite=True) as part:
        save_file(dict(vars(pool)), part, metadata={"cinnema_pool": about})
    return pool


def fingerprint(stage1: LatentStage) -> str:
    """Return a hash of all that decides what stage 1 makes of a clip: its config and weights."""
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
