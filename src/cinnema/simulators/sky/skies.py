"""Skies of two or three cloud layers over a static foreground, with exactly known wind.

A start is an appearance (`SkyScene`): foreground, plane, clouds, light. A future is a motion of it
(`SkyMotion`): wind, its rotation with height, deformation, and evolution of the clouds.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.devices import one_thread
from cinnema.core.randomness import generator_for
from cinnema.data.records import BadRecord, Control, Item, RawClip
from cinnema.data.wind import WIND
from cinnema.media.pictures import to_pixels
from cinnema.simulators.simulator import Simulator
from cinnema.simulators.sky.foregrounds import read_foregrounds
from cinnema.simulators.sky.motion import SkyMotion, draw_deformation, draw_plane, draw_speed
from cinnema.simulators.sky.scene import SkyScene, draw_scene
from cinnema.simulators.sky.tiles import Draws

FPS = 8.0
# Number of frames in the unit of time of a motion.
_CLIP = 16
# Number of random streams of a start: one for its appearance, the others for its futures.
_STREAMS = 1024
_MAX_STARTS = 2**32 // _STREAMS
# Smallest share of the sky in the picture, and of clouds in the sky; others are drawn again.
_MIN_SKY, _MIN_CLOUD = 0.25, 0.12


@dataclass(frozen=True)
class Skies(Simulator):
    """Synthetic skies with drifting clouds.

    Track: "wind" is the mean displacement of the visible clouds from the previous frame, in
    picture sizes; its first row is zero. Clear sky, ground and reflections on water do not count.
    Directions are uniform in the picture; speeds are log-uniform from 0.015 to 0.4 picture sizes
    per 16 frames, and one future in twenty has no wind.

    Args:
        num_starts: Number of starts, 1 to 4,194,304.
        futures: Number of clips for each start, 1 to 1,023.
        seed: Seed of all random draws, at least 0.
        size: Height and width of the frames, in pixels, 32 to 4,096.
        num_frames: Number of frames in a clip, including x0, 2 to 128, at 8 fps.
        foregrounds: Folder of photographs in which nothing moves, from which most foregrounds are
            cut. Defaults to procedural foregrounds only.

    Raises:
        UserError: A number is outside its limits.

    Example:
        >>> skies = Skies(20, futures=2, size=32, num_frames=3)
        >>> first, second = skies.read(skies.items()[0])
        >>> bool((first.frames[0] == second.frames[0]).all()), first.tracks["wind"].shape
        (True, (3, 2))
    """

    name: ClassVar[str] = "sky"
    control: ClassVar[Control] = WIND
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {
        "num_starts": (1, _MAX_STARTS),
        "futures": (1, _STREAMS - 1),
        "seed": (0, math.inf),
        "size": (32, 4096),
        "num_frames": (2, 128),
    }

    size: int = 128
    num_frames: int = 25
    foregrounds: Path | None = None

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the futures of one start.

        Args:
            item: An item of `items`.

        Raises:
            UserError: The folder of foregrounds is missing, or contains no pictures.
        """
        start = self.start_of(item)
        with one_thread():
            scene = draw_start(self._stream(start, 0), size=self.size, textures=self._textures())
        for future in range(self.futures):
            with one_thread():
                draws = Draws(self._stream(start, 1 + future))
                motion = _draw_future(draws, scene, num_clips=(self.num_frames - 1) / _CLIP)
                clip = film(scene, motion, num_frames=self.num_frames)
            yield replace(clip, name=f"{item.name}-{future}", source=item.name, start=item.name)

    def _stream(self, start: int, number: int) -> torch.Generator:
        return generator_for(self.seed, start * _STREAMS + number)

    def _textures(self) -> UInt8[Tensor, "k 3 s s"] | None:
        # Foregrounds are crops of 40 % and more of a square.
        return None if self.foregrounds is None else _read_once(self.foregrounds, 2 * self.size)


@lru_cache(maxsize=2)
def _read_once(folder: Path, side: int) -> UInt8[Tensor, "k 3 s s"]:
    return read_foregrounds(folder, side=side)


def draw_start(
    generator: torch.Generator, *, size: int, textures: UInt8[Tensor, "k 3 s s"] | None
) -> SkyScene:
    """Draw scenes until one shows enough sky and clouds.

    Args:
        generator: Source of randomness.
        size: Height and width of the pictures, in pixels.
        textures: Photographs from which foregrounds are cut, or None.
    """
    draws = Draws(generator)
    while True:
        num_layers = 2 if draws.chance(0.7) else 3
        scene = draw_scene(generator, size=size, textures=textures, num_layers=num_layers)
        if draws.chance(0.85):
            # The clouds' horizon is below that of the ground: clouds have a thickness, so they
            # never look as flat as a plane does near its horizon.
            low = scene.horizon + 0.12
            scene = replace(scene, plane=draw_plane(draws, low=low, high=low + 0.7))
        sky = scene.moving.mean()
        if (
            sky >= _MIN_SKY
            and scene.view(_calm(scene), 0.0).clouds.sum(0).mean() / sky >= _MIN_CLOUD
        ):
            return scene


def _draw_future(draws: Draws, scene: SkyScene, *, num_clips: float) -> SkyMotion:
    """Draw the motion of one future, with a uniform wind direction in the picture."""
    speed = 0.0 if draws.chance(1 / 20) else draw_speed(draws)
    angle = draws.uniform(0, 2 * math.pi)
    motion = replace(_calm(scene), veer=draws.uniform(-0.5, 0.5))
    seen = torch.tensor([math.cos(angle), math.sin(angle)]) * speed
    generator = torch.zeros(3, 3)
    generator[:2, 2] = torch.linalg.solve(_response(scene, motion), seen)
    strength = speed * draws.uniform(0, 0.3)
    return replace(
        motion,
        generator=generator,
        deformation=draw_deformation(draws, strength=strength, num_clips=num_clips),
        acceleration=draws.uniform(-0.3, 0.3) / max(1.0, num_clips),
        evolution=draws.uniform(-0.35, 0.35),
    )


def _calm(scene: SkyScene) -> SkyMotion:
    return SkyMotion(
        plane=scene.plane,
        generator=torch.zeros(3, 3),
        deformation=torch.zeros(2, 4, 4),
        acceleration=0.0,
        evolution=0.0,
    )


def _response(scene: SkyScene, motion: SkyMotion) -> Float[Tensor, "2 2"]:
    """Return the matrix from the wind on the plane to the mean motion in the picture.

    Layers are weighted by their share of clouds, assumed to be uniform over the sky because clouds
    do not stay where they are.
    """
    view, short = scene.view(motion, 0.0), 0.05
    shares = view.clouds.mean(dim=(1, 2), keepdim=True)
    view = replace(view, clouds=shares * scene.moving)
    columns = []
    for axis in range(2):
        generator = torch.zeros(3, 3)
        generator[axis, 2] = 1.0
        blowing = replace(motion, generator=generator)
        columns.append(scene.wind(blowing, view, start=-short, end=0.0) / short)
    return torch.stack(columns, dim=1)


def film(scene: SkyScene, motion: SkyMotion, *, num_frames: int) -> RawClip:
    """Render the frames of a clip and measure the wind between them.

    Args:
        scene: Appearance of the sky.
        motion: Motion of the clouds.
        num_frames: Number of frames, including x0.
    """
    pictures, wind = [], [torch.zeros(2)]
    for t in range(num_frames):
        view = scene.view(motion, t / _CLIP)
        pictures.append(view.picture)
        if t:
            wind.append(scene.wind(motion, view, start=(t - 1) / _CLIP, end=t / _CLIP))
    return RawClip(
        name="",
        source="",
        frames=to_pixels(torch.stack(pictures)),
        fps=FPS,
        tracks={WIND.name: torch.stack(wind).numpy().astype(np.float32)},
        still=(scene.coverage > 0.998).numpy(),
    )
