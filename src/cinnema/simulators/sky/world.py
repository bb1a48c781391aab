"""Skies of two or three cloud layers over a still foreground; their wind is known exactly.

A start is a picture (`SkyScene`): foreground, plane, clouds, light. A future is a motion of it
(`SkyMotion`): wind, how it turns aloft, gusts, and what the clouds evolve into. So all futures of
a start share their first frame to the bit.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.randomness import generator_for
from cinnema.data.records import BadRecord, Control, Item, RawClip
from cinnema.data.wind import WIND
from cinnema.media.pictures import to_pixels
from cinnema.simulators.sky.foregrounds import read_foregrounds
from cinnema.simulators.sky.motion import SkyMotion, draw_deformation, draw_plane, draw_speed
from cinnema.simulators.sky.scene import SkyScene, draw_scene
from cinnema.simulators.sky.tiles import Draws
from cinnema.simulators.starts import split_of

FPS = 8.0
# Frames in a clip, the unit of time of a motion.
_CLIP = 16
# A start has this many random streams: one for its picture, the others for its futures.
_STREAMS = 1024
_MAX_STARTS = 2**32 // _STREAMS
# A start is drawn anew until so much of the picture is sky, and so much of the sky is cloud.
_MIN_SKY, _MIN_CLOUD = 0.25, 0.12


@dataclass(frozen=True)
class Skies:
    """Synthetic skies as a source of clips, deterministic by (seed, start, future).

    The track "wind" is the mean displacement of the clouds that are seen in the sky, from each
    frame to the next: its row 0 is zero. The clear sky, the ground and mirror images on water do
    not count. Directions are uniform in the picture, speeds 0.015 to 0.4 picture sizes in 16
    frames, as often twice as half; one future in twenty has no wind.

    Every tenth start is for testing and the one before it for validation.

    Args:
        num_starts: Pictures, 1 to 4,194,304.
        futures: Motions of each picture, 1 to 1,023. More of them leave the first as they are.
        seed: Of all draws, at least 0.
        size: Width and height in pixels, at least 32.
        num_frames: Of each clip, x0 included, 2 to 128.
        foregrounds: Folder of photographs in which nothing moves; most foregrounds are cut from
            them. Procedural ones only if None.

    Raises:
        UserError: A number is out of its range.

    Example:
        >>> skies = Skies(20, futures=2, size=32, num_frames=3)
        >>> first, second = skies.read(skies.items()[0])
        >>> bool((first.frames[0] == second.frames[0]).all()), first.tracks["wind"].shape
        (True, (3, 2))
    """

    num_starts: int
    futures: int = 1
    seed: int = 0
    size: int = 128
    num_frames: int = 25
    foregrounds: Path | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        ranges = {
            "num_starts": (1, _MAX_STARTS),
            "futures": (1, _STREAMS - 1),
            "seed": (0, math.inf),
            "size": (32, 4096),
            "num_frames": (2, 128),
        }
        for name, (low, high) in ranges.items():
            if not low <= (value := getattr(self, name)) <= high:
                limit = f"at least {low}" if high == math.inf else f"{low} to {high}"
                raise UserError(f"{name} of skies must be {limit}, got {value}: choose another")

    @property
    def name(self) -> str:
        """What the packed data set is called."""
        return "sky"

    @property
    def control(self) -> Control:
        """The wind."""
        return WIND

    def settings(self) -> dict[str, Any]:
        """Return all that decides what comes of the source."""
        return {
            "num_starts": self.num_starts,
            "futures": self.futures,
            "seed": self.seed,
            "size": self.size,
            "num_frames": self.num_frames,
            "foregrounds": None if self.foregrounds is None else self.foregrounds.name,
        }

    def items(self) -> Sequence[Item]:
        """List the starts; each has `futures` clips."""
        return [
            Item(name=f"{start:07d}", split=split_of(start), clips=self.futures)
            for start in range(self.num_starts)
        ]

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the futures of one start.

        Raises:
            UserError: The folder of foregrounds is missing, or holds no pictures.
        """
        start = int(item.name)
        with _one_thread():
            scene = _draw_start(self._stream(start, 0), size=self.size, textures=self._textures())
        for future in range(self.futures):
            with _one_thread():
                draws = Draws(self._stream(start, 1 + future))
                motion = _draw_future(draws, scene, num_clips=(self.num_frames - 1) / _CLIP)
                clip = _film(scene, motion, num_frames=self.num_frames)
            yield replace(clip, name=f"{item.name}-{future}", source=item.name, start=item.name)

    def _stream(self, start: int, number: int) -> torch.Generator:
        return generator_for(self.seed, start * _STREAMS + number)

    def _textures(self) -> UInt8[Tensor, "k 3 s s"] | None:
        # Cuts are of 40 % and more of a square.
        return None if self.foregrounds is None else _read_once(self.foregrounds, 2 * self.size)


@lru_cache(maxsize=2)
def _read_once(folder: Path, side: int) -> UInt8[Tensor, "k 3 s s"]:
    return read_foregrounds(folder, side=side)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the bits then do not hang on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _draw_start(
    generator: torch.Generator, *, size: int, textures: UInt8[Tensor, "k 3 s s"] | None
) -> SkyScene:
    """Draw pictures until one shows enough of sky and of clouds."""
    draws = Draws(generator)
    while True:
        num_layers = 2 if draws.chance(0.7) else 3
        scene = draw_scene(generator, size=size, textures=textures, num_layers=num_layers)
        if draws.chance(0.85):
            # The clouds' horizon lies below that of the ground: clouds are as high as they are
            # wide, so they never get as thin as a plane would there.
            low = scene.horizon + 0.12
            scene = replace(scene, plane=draw_plane(draws, low=low, high=low + 0.7))
        sky = scene.moving.mean()
        if (
            sky >= _MIN_SKY
            and scene.view(_calm(scene), 0.0).clouds.sum(0).mean() / sky >= _MIN_CLOUD
        ):
            return scene


def _draw_future(draws: Draws, scene: SkyScene, *, num_clips: float) -> SkyMotion:
    """Draw the wind of one future, uniform in its direction in the picture."""
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
    """The matrix that turns the wind on the plane into the mean motion seen in the picture.

    Each layer counts by its share of clouds, and as if they were spread evenly over the sky: others
    will be in other places soon.
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


def _film(scene: SkyScene, motion: SkyMotion, *, num_frames: int) -> RawClip:
    """Draw the frames, and measure the wind between them."""
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
