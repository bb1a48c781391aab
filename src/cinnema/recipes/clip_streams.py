"""Endless batches of real crops and synthetic skies, the same whatever ends and resumes them.

The n-th clip of a training, counted over all ranks, is a function of the seed and n alone: whether
it is a sky, which scene and crop or which sky it shows, and how it is varied. Batch k of rank r of
R is the clips

    (k R + r) B, ..., (k R + r) B + B - 1

counted from where the training was resumed. Workers, resumption and the number of ranks (at the
same R B) therefore change nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.clips import (
    TENSOR_FIELDS,
    ClipBatch,
    ClipItem,
    Variation,
    draw_variation,
    real_item,
    stack_frames,
    varied,
)
from cinnema.data.scenes import SceneCrops
from cinnema.data.workers import batch_ranges, begin_worker, one_thread, unchanged
from cinnema.simulators.sky import draw_motion, draw_scene

# Of the two kinds of draws, so that no stream serves both.
_TURN, _CLIP = 0, 1


class SkyPool:
    """Synthetic skies, each shown a few times.

    Drawing a sky costs more than a training step on it, so each is used several times, mirrored and
    recoloured anew. Turn i, the i-th time that any sky is shown, shows sky

        i // uses + u,    u uniform in 0 ... pool - 1,

    where u follows from the seed and i: a window of skies that moves on by one every `uses` turns.
    Skies are drawn when first shown, and kept while the window covers them, in each process.

    Args:
        size: Width and height in pixels.
        num_frames: T.
        grid: Rows and columns of the flow.
        textures: Pictures from which foregrounds are cut, or None.
        seed: Of all draws.
        pool: Skies in the window, at least 1; a sky takes some 300 KB.
        uses: How often, on average, a sky is used.
        rendered: Later frames in a row drawn of each sky, from 0 to T.

    Example:
        >>> pool = SkyPool(size=128, num_frames=16, grid=16, textures=None, seed=0)
        >>> pool.sky(pool.number_of(turn=1000)).flow.shape
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
        assert rendered <= num_frames
        self.size, self.num_frames, self.grid = size, num_frames, grid
        self.textures, self.seed, self.pool, self.uses = textures, seed, pool, uses
        self.rendered = rendered
        self._streams = _Streams(seed)
        self._kept: dict[int, ClipItem] = {}

    def number_of(self, turn: int) -> int:
        """Return which sky a turn shows."""
        return turn // self.uses + int(self._streams.of(_TURN, turn).integers(self.pool))

    def shown(self, turn: int) -> ClipItem:
        """Return the sky of a turn, from memory where it has been shown before."""
        number, first = self.number_of(turn), turn // self.uses
        if number not in self._kept:
            self._kept = {n: sky for n, sky in self._kept.items() if first <= n < first + self.pool}
            self._kept[number] = self.sky(number)
        return self._kept[number]

    def sky(self, number: int) -> ClipItem:
        """Draw the sky of a number, one clip of it."""
        generator = generator_for(self.seed, number)
        motion = draw_motion(generator)
        scene = draw_scene(generator, size=self.size, plane=motion.plane, textures=self.textures)
        steps = range(1, self.num_frames + 1)
        flow = [scene.flow(motion, t / self.num_frames, size=2 * self.grid) for t in steps]
        volume = functional.avg_pool2d(torch.stack(flow, dim=1), 2)
        first = torch.randint(
            1, self.num_frames - self.rendered + 2, (min(self.rendered, 1),), generator=generator
        )
        times = (first + torch.arange(self.rendered)).float() / self.num_frames
        moving = functional.adaptive_avg_pool2d(scene.moving[None], 2 * self.grid)[0]
        return ClipItem(
            x0=scene.frame(motion, 0.0),
            flow=volume,
            moving=moving,
            known=torch.ones_like(moving),
            frames=stack_frames([scene.frame(motion, float(t)) for t in times], self.size),
            times=times,
        )


class MixedClips:
    """The clips of a training, in order, without end: real scenes and synthetic skies.

    Args:
        crops: Crops of the real scenes; may be empty if `sky_share` is 1.
        weights: How often each texture is drawn, by its name; scenes of one texture share alike.
        skies: Synthetic skies, or None where `sky_share` is 0.
        sky_share: Share of synthetic clips, in [0, 1], spread evenly over the numbers.
        num_rendered: Later frames in a row of each clip; no more than `skies` draw.
        seed: Of all draws here; `skies` have their own.

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
        num_rendered: int,
        seed: int,
    ) -> None:
        assert skies is None or skies.rendered >= num_rendered
        self.crops, self.skies, self.num_rendered = crops, skies, num_rendered
        self.sky_share = 0.0 if skies is None else sky_share
        self.shares = self._shares(weights) if self.sky_share < 1 else np.zeros(0)
        self._streams = _Streams(seed)

    def batch(self, numbers: Sequence[int]) -> ClipBatch:
        """Return the clips of some numbers."""
        with one_thread():
            ids, items, variations = zip(*map(self._clip, numbers), strict=True)
            stacked = {
                name: torch.stack([getattr(item, name) for item in items]) for name in TENSOR_FIELDS
            }
            return varied(ClipBatch(**stacked, ids=ids), variations)

    def _clip(self, number: int) -> "tuple[str, ClipItem, Variation]":
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
        each = [weights.get(texture, 0.0) / textures.count(texture) for texture in textures]
        shares = np.array(each, dtype=np.float64)
        if shares.sum() <= 0:
            raise UserError(
                f"no scene to train on has one of the textures {', '.join(weights) or '(none)'}: "
                "give a folder that has some, or train on synthetic skies only"
            )
        probabilities: NDArray[np.float64] = shares / shares.sum()
        return probabilities


class ClipStream:
    """Endless batches of mixed clips, resumable to the clip.

    Under several processes each makes a stream of its own, with the same options but `rank`. Its
    workers are forked at the first batch and end with the stream. Each process keeps the skies that
    it has drawn, so that W workers on R ranks draw up to W R times as many.

    Args:
        source: What the batches are made of.
        batch_size: B, clips of a batch of this rank.
        rank: r, of this process, from 0.
        num_ranks: R, processes that train together.
        num_workers: Processes that prepare batches; 0 does it here, when a batch is wanted.

    Attributes:
        clips: The number of clips that all ranks together have handed out.
    """

    def __init__(
        self,
        source: MixedClips,
        *,
        batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
        num_workers: int = 1,
    ) -> None:
        self.source, self.batch_size = source, batch_size
        self.rank, self.num_ranks, self.num_workers = rank, num_ranks, num_workers
        self.clips = 0
        self._batches: Iterator[ClipBatch] | None = None

    def __iter__(self) -> "ClipStream":
        """Return the stream itself: it has no end, and goes on where it was."""
        return self

    def __next__(self) -> ClipBatch:
        """Return the next batch."""
        if self._batches is None:
            self._batches = iter(self._loader())
        batch = next(self._batches)
        self.clips += self.batch_size * self.num_ranks
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is: the number of clips that all ranks have handed out."""
        return {"clips": self.clips}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another stream was; batch size and number of ranks may be others."""
        self.close()
        self.clips = state["clips"]

    def close(self) -> None:
        """End the workers. The next batch, if another is wanted, starts new ones."""
        self._batches = None  # its finaliser ends them

    def _loader(self) -> "DataLoader[ClipBatch]":
        # The loader's own generator, so that the global stream is left alone.
        first = self.clips + self.rank * self.batch_size
        return DataLoader(
            _Batches(self.source),
            batch_size=None,  # a worker makes whole batches
            sampler=batch_ranges(
                first, length=self.batch_size, step=self.num_ranks * self.batch_size
            ),
            collate_fn=unchanged,
            num_workers=self.num_workers,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),
        )


class _Batches(Dataset[ClipBatch]):
    """Batches by the range of their numbers."""

    def __init__(self, source: MixedClips) -> None:
        self.source = source

    def __getitem__(self, numbers: range) -> ClipBatch:
        return self.source.batch(numbers)


class _Streams:
    """Random streams by kind and number, no two of which share bits."""

    def __init__(self, seed: int) -> None:
        self._key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])

    def of(self, kind: int, number: int) -> np.random.Generator:
        # Philox maps each key and counter to bits of their own.
        key = np.array([self._key, number], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, kind]))
