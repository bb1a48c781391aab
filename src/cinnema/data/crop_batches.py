"""Training batches of the warping model: real and synthetic crops with optical flow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.core.errors import UserError
from cinnema.core.randomness import NumberedStreams
from cinnema.data.crops import SceneCrops

_CLIP = 1  # label of a clip's random stream; synthetic skies use others

# Displacements, in pixels over a clip, below which a point is still and above which it moves.
_STILL, _MOVING = 0.35, 1.2


@dataclass(frozen=True)
class ClipBatch:
    """Clips with their optical flow, for training.

    Attributes:
        x0: First frames, in [-1, 1].
        flow: Backward flow of frames 1..T to x0, in picture widths and heights.
        moving: 1 where something moves during the clip (or could: a sky without wind), 0 where
            nothing does.
        known: Weight of `moving`, in [0, 1]: 0 where the optical flow is inconclusive.
        frames: Some consecutive later frames of each clip, in [-1, 1].
        times: Times of those frames, as a fraction of the clip: 1 is frame T.
        ids: A readable name of each clip: scene and number of the crop, or number of the sky.
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
"""Names of the tensors in a batch."""


@runtime_checkable
class ClipBatches(Protocol):
    """Endless batches for training, which can continue from any clip."""

    def __next__(self) -> ClipBatch:
        """Return the next batch of this rank."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Continue after `state["clips"]` clips."""
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
    """Return one clip of a scene, with some consecutive later frames.

    Args:
        crops: Crops of the scene.
        index: Number of the clip.
        generator: Draws which later frames are returned.
        num_rendered: Number of later frames, from 0 to T.
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
    """Draw `num` consecutive numbers from 1 to `of`."""
    assert num <= of
    first = generator.integers(1, of - num + 2, size=min(num, 1))
    return first + np.arange(num)


def moving_target(
    motion: Float[Tensor, "*n m m"],
) -> tuple[Float[Tensor, "*n m m"], Float[Tensor, "*n m m"]]:
    """Turn the longest displacement over a clip into a target for the mask, and its weight.

    Args:
        motion: Longest displacement of each cell, in pixels at the model's size.

    Returns:
        1 where something moves, otherwise 0; and 1 where that is certain, 0 between two thresholds.
    """
    moving = (motion > 0.5 * (_STILL + _MOVING)).float()
    known = ((motion < _STILL) | (motion > _MOVING)).float()
    return moving, known


class CropVariation(NamedTuple):
    """Augmentation of a clip, the same for all of its frames.

    Attributes:
        mirrored: Whether left and right are exchanged.
        gain: Factor on the brightness.
        tint: Factors on red, green and blue.
        gamma: Exponent on the brightness.
    """

    mirrored: bool
    gain: float
    tint: tuple[float, ...]
    gamma: float


def draw_variation(generator: np.random.Generator) -> CropVariation:
    """Draw the augmentation of a clip; half of the clips are mirrored."""
    return CropVariation(
        mirrored=bool(generator.random() < 0.5),
        gain=generator.uniform(0.8, 1.2),
        tint=tuple(generator.uniform(0.93, 1.07, 3).tolist()),
        gamma=generator.uniform(0.75, 1.3),
    )


def varied(batch: ClipBatch, variations: Sequence[CropVariation]) -> ClipBatch:
    """Mirror some of the clips with their flow, and recolour each clip as a whole.

    Args:
        batch: Clips without augmentation.
        variations: Augmentation of each clip.

    Returns:
        New clips; `times` is shared.
    """
    mirrored = torch.tensor([v.mirrored for v in variations])
    flow = _mirror(batch.flow, mirrored)
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None, None]  # mirroring flips x
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
    """Stack frames; an empty list gives an empty tensor.

    Args:
        frames: All of one size.
        size: Width and height.
    """
    return torch.stack(list(frames)) if frames else torch.empty(0, 3, size, size)


def _as_tensor(pixels: UInt8[np.ndarray, "h w 3"]) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 127.5 - 1


@runtime_checkable
class SyntheticClips(Protocol):
    """Synthetic clips, indexed by turn: several turns may show the same clip."""

    @property
    def rendered(self) -> int:
        """Number of consecutive later frames of each clip."""
        ...

    def number_of(self, turn: int) -> int:
        """Return the number of the clip shown at a turn."""
        ...

    def shown(self, turn: int) -> ClipItem:
        """Return the clip shown at a turn."""
        ...


class MixedClips:
    """The clips of a training in order, without end: real scenes and synthetic skies.

    The n-th clip is a function of the seed and n alone: whether it is a sky, which scene and crop
    or which sky it shows, and how it is augmented.

    Args:
        crops: Crops of the real scenes; may be empty if `sky_share` is 1.
        weights: Relative frequency of each texture, by name; scenes of one texture are drawn
            equally often. If no scene has a texture in it, all scenes are.
        skies: Synthetic skies, or None if `sky_share` is 0.
        sky_share: Share of synthetic clips, in [0, 1], spread evenly over the numbers.
        num_rendered: Number of consecutive later frames of each clip, at most that of `skies`.
        seed: Seed of all draws here; `skies` have their own.

    Raises:
        UserError: Real clips are needed, and no scene has a texture with positive weight.
    """

    def __init__(
        self,
        crops: Sequence[SceneCrops],
        *,
        weights: Mapping[str, float],
        skies: SyntheticClips | None,
        sky_share: float,
        num_rendered: int,
        seed: int,
    ) -> None:
        assert skies is None or skies.rendered >= num_rendered
        self.crops, self.skies, self.num_rendered = crops, skies, num_rendered
        self.sky_share = 0.0 if skies is None else sky_share
        self.shares = self._shares(weights) if self.sky_share < 1 else np.zeros(0)
        self._streams = NumberedStreams(seed)

    def batch(self, numbers: Sequence[int]) -> ClipBatch:
        """Return the clips with these numbers."""
        with one_thread():
            ids, items, variations = zip(*map(self._clip, numbers), strict=True)
            stacked = {
                name: torch.stack([getattr(item, name) for item in items]) for name in TENSOR_FIELDS
            }
            return varied(ClipBatch(**stacked, ids=ids), variations)

    def names(self, batch: ClipBatch) -> tuple[str, ...]:
        """Return the names of a batch's clips."""
        return batch.ids

    def _clip(self, number: int) -> tuple[str, ClipItem, CropVariation]:
        generator = self._streams.of(_CLIP, number)
        variation = draw_variation(generator)
        turn = int(number * self.sky_share)
        if self.skies is not None and int((number + 1) * self.sky_share) > turn:
            sky, n = self.skies.shown(turn), self.num_rendered
            item = sky._replace(frames=sky.frames[:n], times=sky.times[:n])
            return f"sky:{self.skies.number_of(turn)}", item, variation
        crops = self.crops[int(generator.choice(len(self.crops), p=self.shares))]
        index = int(generator.integers(len(crops)))
        item = real_item(crops, index, generator=generator, num_rendered=self.num_rendered)
        return f"{crops.scene.name}:{index}", item, variation

    def _shares(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the probability of each scene."""
        textures = [c.scene.texture for c in self.crops]
        if textures and not any(texture in weights for texture in textures):
            return np.full(len(textures), 1 / len(textures))
        each = [weights.get(texture, 0.0) / textures.count(texture) for texture in textures]
        shares = np.array(each, dtype=np.float64)
        if shares.sum() <= 0:
            raise UserError(
                f"no scene to train on has one of the textures {', '.join(weights) or '(none)'}: "
                "use a folder that has some, or train on synthetic skies only"
            )
        probabilities: NDArray[np.float64] = shares / shares.sum()
        return probabilities
