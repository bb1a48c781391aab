"""Synthetic skies for the training of the warping model, with their exact flow."""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.core.randomness import NumberedStreams, generator_for
from cinnema.data.crop_batches import ClipItem, stack_frames
from cinnema.simulators.sky import draw_motion, draw_scene

_TURN = 0  # kind of these draws; those of a training's clips have another


class SkyPool:
    """Synthetic skies for training, each shown a few times.

    Drawing a sky costs more than a training step on it, so each is used several times, mirrored and
    recoloured differently. Turn i, the i-th time that any sky is shown, shows sky

        i // uses + u,    u uniform in 0 ... pool - 1,

    where u follows from the seed and i: a window of skies that moves on by one every `uses` turns.
    Skies are drawn when first shown, and kept while they are in the window, in each process.

    Args:
        size: Width and height in pixels.
        num_frames: T.
        grid: Rows and columns of the flow.
        textures: Pictures from which foregrounds are cut; None for procedural ones.
        seed: Seed of all draws.
        pool: Number of skies in the window, at least 1; a sky takes about 300 KB.
        uses: How often a sky is used, on average.
        rendered: Number of consecutive later frames drawn of each sky, from 0 to T.

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
        self._streams = NumberedStreams(seed)
        self._kept: dict[int, ClipItem] = {}

    def number_of(self, turn: int) -> int:
        """Return the number of the sky that a turn shows."""
        return turn // self.uses + int(self._streams.of(_TURN, turn).integers(self.pool))

    def shown(self, turn: int) -> ClipItem:
        """Return the sky that a turn shows, from memory if it was shown before."""
        number, first = self.number_of(turn), turn // self.uses
        if number not in self._kept:
            self._kept = {n: sky for n, sky in self._kept.items() if first <= n < first + self.pool}
            self._kept[number] = self.sky(number)
        return self._kept[number]

    def sky(self, number: int) -> ClipItem:
        """Draw the sky with a number, as one clip."""
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
