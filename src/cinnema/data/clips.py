"""Batches of clips for training: real crops and synthetic skies, mirrored and recoloured."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from cinnema.core.errors import UserError
from cinnema.data.scenes import SceneCrops
from cinnema.data.worlds.sky import draw_motion, draw_scene

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
        frames: Some later frames of each clip, in [-1, 1].
        times: Of those frames, in clips: 1 is frame T.
    """

    x0: Float[Tensor, "b 3 h w"]
    flow: Float[Tensor, "b 2 t g g"]
    moving: Float[Tensor, "b m m"]
    known: Float[Tensor, "b m m"]
    frames: Float[Tensor, "b n 3 h w"]
    times: Float[Tensor, "b n"]

    def to(self, device: torch.device) -> "ClipBatch":
        """Return the batch on a device."""
        return ClipBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def join(batches: Sequence[ClipBatch]) -> ClipBatch:
    """Concatenate batches of clips of one size, length and number of later frames."""
    names = [f.name for f in fields(ClipBatch)]
    return ClipBatch(**{n: torch.cat([getattr(b, n) for b in batches]) for n in names})


class _Item(NamedTuple):
    x0: Tensor
    flow: Tensor
    moving: Tensor
    known: Tensor
    frames: Tensor
    times: Tensor


class SkyPool(IterableDataset[_Item]):
    """An endless stream of synthetic skies.

    Drawing a sky costs more than a training step on it, so a pool of them is kept and each one is
    used a few times, mirrored and recoloured anew, before another takes its place.

    Args:
        size: Width and height in pixels.
        num_frames: T.
        grid: Rows and columns of the flow.
        textures: Pictures from which foregrounds are cut, or None.
        seed: Of all draws; each worker adds its number.
        pool: Skies kept, at least 1.
        uses: How often, on average, a sky is used.
        rendered: Later frames drawn of each sky.

    Example:
        >>> pool = SkyPool(size=128, num_frames=16, grid=16, textures=None, seed=0)
        >>> next(iter(pool)).flow.shape
        torch.Size([2, 16, 16, 16])
    """

    def __init__(
        self,
        *,
        size: int,
        num_frames: int,
        grid: int,
        textures: UInt8[Tensor, "k 3 s s"] | None,
        seed: int,
        pool: int = 384,
        uses: int = 6,
        rendered: int = 2,
    ) -> None:
        super().__init__()
        self.size, self.num_frames, self.grid = size, num_frames, grid
        self.textures, self.seed, self.pool, self.uses = textures, seed, pool, uses
        self.rendered = rendered

    def __iter__(self) -> Iterator[_Item]:
        """Yield skies, each of one clip, forever."""
        worker = torch.utils.data.get_worker_info()
        number = 0 if worker is None else worker.id
        generator = torch.Generator().manual_seed(self.seed * 1009 + number)
        chance = random.Random(self.seed * 1009 + number)
        pool: list[_Item] = []
        while True:
            if len(pool) < max(1, self.pool // 4) or chance.random() < 1 / self.uses:
                item = self.draw(generator)
                if len(pool) < self.pool:
                    pool.append(item)
                else:
                    pool[chance.randrange(self.pool)] = item
                yield item
            else:
                yield chance.choice(pool)

    def draw(self, generator: torch.Generator) -> _Item:
        """Draw one sky."""
        motion = draw_motion(generator)
        scene = draw_scene(generator, size=self.size, plane=motion.plane, textures=self.textures)
        steps = range(1, self.num_frames + 1)
        flow = [scene.flow(motion, t / self.num_frames, size=2 * self.grid) for t in steps]
        volume = functional.avg_pool2d(torch.stack(flow, dim=1), 2)
        chosen = torch.randint(1, self.num_frames + 1, (self.rendered,), generator=generator)
        times = chosen.float() / self.num_frames
        moving = functional.adaptive_avg_pool2d(scene.moving[None], 2 * self.grid)[0]
        return _Item(
            x0=scene.frame(motion, 0.0),
            flow=volume,
            moving=moving,
            known=torch.ones_like(moving),
            frames=_stack_frames([scene.frame(motion, float(t)) for t in times], self.size),
            times=times,
        )


class ClipStream:
    """Endless batches: a share of synthetic skies, the rest from real scenes.

    Clips are mirrored and recoloured at random (`augment`).

    Args:
        crops: Crops of the real scenes; may be empty if `sky_share` is 1.
        weights: How often each texture is drawn, by its name; scenes of one texture share alike.
        skies: Synthetic skies, or None where `sky_share` is 0.
        sky_share: Share of synthetic clips in a batch, in [0, 1].
        batch_size: Clips in a batch.
        num_rendered: Later frames of each clip; no more than `skies` draw.
        seed: Of all draws here; `skies` have their own.
        num_workers: Processes that draw skies; 0 draws them here.

    Raises:
        UserError: Real clips are wanted, and no scene has a texture of positive weight.
    """

    def __init__(
        self,
        crops: Sequence[SceneCrops],
        *,
        weights: Mapping[str, float],
        skies: SkyPool | None,
        sky_share: float,
        batch_size: int,
        num_rendered: int,
        seed: int,
        num_workers: int = 1,
    ) -> None:
        self.crops = crops
        self.num_sky = round(sky_share * batch_size) if skies is not None else 0
        self.num_real = batch_size - self.num_sky
        self.num_rendered = num_rendered
        self.generator = np.random.default_rng(seed)
        self.shares = self._shares(weights) if self.num_real else np.zeros(0)
        self.skies: Iterator[_Item] | None = None
        if skies is not None and self.num_sky:
            assert skies.rendered >= num_rendered
            self.skies = _sky_batches(skies, batch_size=self.num_sky, num_workers=num_workers)

    def __iter__(self) -> "ClipStream":
        """Return the stream itself: it has no end and no beginning."""
        return self

    def __next__(self) -> ClipBatch:
        """Return the next batch."""
        parts = []
        if self.num_real:
            picks = self.generator.choice(len(self.crops), size=self.num_real, p=self.shares)
            items = [real_item(self.crops[i], self.generator, self.num_rendered) for i in picks]
            parts.append(_stack(items))
        if self.skies is not None:
            sky, n = next(self.skies), self.num_rendered
            some = sky._replace(frames=sky.frames[:, :n], times=sky.times[:, :n])
            parts.append(ClipBatch(*some))
        return augment(join(parts), self.generator)

    def _shares(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the probability of each scene."""
        textures = [c.scene.texture for c in self.crops]
        each = [weights.get(texture, 0.0) / textures.count(texture) for texture in textures]
        shares = np.array(each, dtype=np.float64)
        if shares.sum() <= 0:
            raise UserError(
                f"no scene to train on has one of the textures {', '.join(weights) or '(none)'}: "
                "give a folder that has some, or train on synthetic skies only"
            )
        probabilities: NDArray[np.float64] = shares / shares.sum()
        return probabilities


def _sky_batches(skies: SkyPool, *, batch_size: int, num_workers: int) -> Iterator[_Item]:
    # The loader's own generator, so that the global stream is left alone. It starts its processes
    # at the first batch: a run that has nothing left to do starts none.
    loader: DataLoader[_Item] = DataLoader(
        skies,
        batch_size=batch_size,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(skies.seed),
    )
    yield from loader


def real_item(crops: SceneCrops, generator: np.random.Generator, num_rendered: int) -> _Item:
    """Draw one clip of a scene, with some of its later frames.

    Args:
        crops: Of the scene.
        generator: Of the draw.
        num_rendered: Later frames.

    Returns:
        One clip: a `ClipBatch` without its first dimension.
    """
    index = int(generator.integers(len(crops)))
    num_frames = crops.frames.shape[1] - 1
    chosen = generator.integers(1, num_frames + 1, size=num_rendered)
    moving, known = moving_target(torch.from_numpy(crops.motion[index]))
    return _Item(
        x0=_as_tensor(crops.frames[index, 0]),
        flow=torch.from_numpy(crops.flow[index]),
        moving=moving,
        known=known,
        frames=_stack_frames(
            [_as_tensor(crops.frames[index, t]) for t in chosen], crops.frames.shape[2]
        ),
        times=torch.from_numpy(chosen.astype(np.float32) / num_frames),
    )


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


def augment(batch: ClipBatch, generator: np.random.Generator) -> ClipBatch:
    """Mirror half of the clips, and their flow with them; recolour each clip as a whole.

    Args:
        batch: Clips as they are.
        generator: Of the draws.

    Returns:
        New clips; `times` is shared.
    """
    size = len(batch.x0)
    mirrored = torch.from_numpy(generator.random(size) < 0.5)
    flow = _mirror(batch.flow, mirrored)
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None, None]  # what drifts left drifts right
    flow = torch.stack([flow[:, 0] * sign, flow[:, 1]], dim=1)
    gain = torch.from_numpy(generator.uniform(0.8, 1.2, (size, 1)).astype(np.float32))
    tint = torch.from_numpy(generator.uniform(0.93, 1.07, (size, 3)).astype(np.float32))
    gamma = torch.from_numpy(generator.uniform(0.75, 1.3, (size, 1)).astype(np.float32))
    return ClipBatch(
        x0=_recolour(_mirror(batch.x0, mirrored), gain * tint, gamma),
        flow=flow,
        moving=_mirror(batch.moving, mirrored),
        known=_mirror(batch.known, mirrored),
        frames=_recolour(_mirror(batch.frames, mirrored), gain * tint, gamma),
        times=batch.times,
    )


def _mirror(x: Tensor, mirrored: Tensor) -> Tensor:
    chosen = mirrored.view(-1, *[1] * (x.ndim - 1))
    return torch.where(chosen, x.flip(-1), x)


def _recolour(x: Tensor, gain: Tensor, gamma: Tensor) -> Tensor:
    shape = (len(x), *[1] * (x.ndim - 4), 3, 1, 1)
    unit = ((x + 1) / 2).clamp(1e-4, 1)
    unit = unit ** gamma.expand(-1, 3).reshape(shape) * gain.reshape(shape)
    return unit.clamp(0, 1) * 2 - 1


def _stack(items: Sequence[_Item]) -> ClipBatch:
    return ClipBatch(*(torch.stack(column) for column in zip(*items, strict=True)))


def _stack_frames(frames: Sequence[Tensor], size: int) -> Tensor:
    return torch.stack(list(frames)) if frames else torch.empty(0, 3, size, size)


def _as_tensor(pixels: UInt8[np.ndarray, "h w 3"]) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 127.5 - 1
