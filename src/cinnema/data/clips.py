"""Clips for training: what a batch of them holds, how one is cut, mirrored and recoloured."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cinnema.data.scenes import SceneCrops

# Displacements, in pixels over a clip, below which a point is still and above which it moves.
_STILL, _MOVING = 0.35, 1.2


@dataclass(frozen=True)
class ClipBatch:
    """Clips as training wants them.

    Attributes:
        x0: First frames, in [-1, 1].
        flow: Backward flow of frames 1..T to x0, in picture widths and heights.
        moving: 1 where something moves during the clip (or could: a sky without wind), 0 where
            nothing does.
        known: Weight of `moving`: 0 where the optical flow does not tell.
        frames: Some later frames in a row of each clip, in [-1, 1].
        times: Of those frames, in clips: 1 is frame T.
        ids: What each clip is, for people: scene and number of the crop, or number of the sky.
    """

    x0: Float[Tensor, "b 3 h w"]
    flow: Float[Tensor, "b 2 t g g"]
    moving: Float[Tensor, "b m m"]
    known: Float[Tensor, "b m m"]
    frames: Float[Tensor, "b n 3 h w"]
    times: Float[Tensor, "b n"]
    ids: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "ClipBatch":
        """Return the batch on a device."""
        moved = {name: getattr(self, name).to(device) for name in TENSOR_FIELDS}
        return ClipBatch(**moved, ids=self.ids)


TENSOR_FIELDS = tuple(f.name for f in fields(ClipBatch) if f.name != "ids")
"""What a batch holds beside the names of its clips."""


@runtime_checkable
class ClipBatches(Protocol):
    """Endless batches of a training, which go on from any clip."""

    def __next__(self) -> ClipBatch:
        """Return the next batch of this rank."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Go on from where `clips`, a number in the state, have been handed out."""
        ...


class ClipItem(NamedTuple):
    """One clip: a `ClipBatch` without its first dimension."""

    x0: Tensor
    flow: Tensor
    moving: Tensor
    known: Tensor
    frames: Tensor
    times: Tensor


def real_item(
    crops: SceneCrops, index: int, *, generator: np.random.Generator, num_rendered: int
) -> ClipItem:
    """Return one clip of a scene, with some of its later frames in a row.

    Args:
        crops: Of the scene.
        index: Of the clip.
        generator: Draws which later frames.
        num_rendered: How many of them, from 0 to T.

    Returns:
        One clip: a `ClipBatch` without its first dimension.
    """
    num_frames = crops.frames.shape[1] - 1
    chosen = _in_a_row(generator, num_rendered, of=num_frames)
    moving, known = moving_target(torch.from_numpy(crops.motion[index]))
    return ClipItem(
        x0=_as_tensor(crops.frames[index, 0]),
        flow=torch.from_numpy(crops.flow[index]),
        moving=moving,
        known=known,
        frames=stack_frames(
            [_as_tensor(crops.frames[index, t]) for t in chosen], crops.frames.shape[2]
        ),
        times=torch.from_numpy(chosen.astype(np.float32) / num_frames),
    )


def _in_a_row(generator: np.random.Generator, num: int, *, of: int) -> NDArray[np.int64]:
    """Draw numbers that follow one another, of those from 1 to `of`."""
    assert num <= of
    first = generator.integers(1, of - num + 2, size=min(num, 1))
    return first + np.arange(num)


def moving_target(
    motion: Float[Tensor, "*n m m"],
) -> tuple[Float[Tensor, "*n m m"], Float[Tensor, "*n m m"]]:
    """Turn the longest displacement over a clip into "moves", and how sure that is.

    Args:
        motion: In pixels of the model's size.

    Returns:
        1 where something moves, else 0; and 1 where that is sure, 0 between the two thresholds.
    """
    moving = (motion > 0.5 * (_STILL + _MOVING)).float()
    known = ((motion < _STILL) | (motion > _MOVING)).float()
    return moving, known


class Variation(NamedTuple):
    """How a clip is varied, all its frames alike.

    Attributes:
        mirrored: Whether left and right change places.
        gain: Factor on the light.
        tint: Factors on red, green and blue.
        gamma: Exponent on the light.
    """

    mirrored: bool
    gain: float
    tint: tuple[float, ...]
    gamma: float


def draw_variation(generator: np.random.Generator) -> Variation:
    """Draw how a clip is varied: half of them are mirrored."""
    return Variation(
        mirrored=bool(generator.random() < 0.5),
        gain=generator.uniform(0.8, 1.2),
        tint=tuple(generator.uniform(0.93, 1.07, 3).tolist()),
        gamma=generator.uniform(0.75, 1.3),
    )


def varied(batch: ClipBatch, variations: Sequence[Variation]) -> ClipBatch:
    """Mirror some of the clips, and their flow with them; recolour each clip as a whole.

    Args:
        batch: Clips as they are.
        variations: One for each.

    Returns:
        New clips; `times` is shared.
    """
    mirrored = torch.tensor([v.mirrored for v in variations])
    flow = _mirror(batch.flow, mirrored)
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None, None]  # what drifts left drifts right
    flow = torch.stack([flow[:, 0] * sign, flow[:, 1]], dim=1)
    light = torch.tensor([[v.gain * tint for tint in v.tint] for v in variations])
    gamma = torch.tensor([[v.gamma] for v in variations])
    return ClipBatch(
        x0=_recolour(_mirror(batch.x0, mirrored), light, gamma),
        flow=flow,
        moving=_mirror(batch.moving, mirrored),
        known=_mirror(batch.known, mirrored),
        frames=_recolour(_mirror(batch.frames, mirrored), light, gamma),
        times=batch.times,
        ids=batch.ids,
    )


def _mirror(x: Tensor, mirrored: Tensor) -> Tensor:
    chosen = mirrored.view(-1, *[1] * (x.ndim - 1))
    return torch.where(chosen, x.flip(-1), x)


def _recolour(x: Tensor, gain: Tensor, gamma: Tensor) -> Tensor:
    shape = (len(x), *[1] * (x.ndim - 4), 3, 1, 1)
    unit = ((x + 1) / 2).clamp(1e-4, 1)
    unit = unit ** gamma.expand(-1, 3).reshape(shape) * gain.reshape(shape)
    return unit.clamp(0, 1) * 2 - 1


def stack_frames(frames: Sequence[Float[Tensor, "3 h w"]], size: int) -> Float[Tensor, "n 3 h w"]:
    """Stack frames, none of them too.

    Args:
        frames: Of one size.
        size: Their width and height.
    """
    return torch.stack(list(frames)) if frames else torch.empty(0, 3, size, size)


def _as_tensor(pixels: UInt8[np.ndarray, "h w 3"]) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 127.5 - 1
