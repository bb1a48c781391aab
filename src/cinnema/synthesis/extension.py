"""Videos that are longer than the clip that a model knows."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cinnema.synthesis.loops import Moment
from cinnema.synthesis.scene import Sample, Scene
from cinnema.synthesis.settings import Settings

PERIOD = 2.0
"""Clips after which the continuous way starts from the photograph again."""

FADE = 1.0
"""Clips that the change from one warp to the next takes: no warp is older than 1.5 clips."""


def staggered(num_frames: int, *, clip: float) -> list[tuple[Moment, ...]]:
    """Return what each frame of a long video is mixed of, so that no warp grows old.

    Warps of x0 start every P = 2 clips. Warp k shows time t - k P, from before the photograph to
    after it, and is seen while that is within P / 2. Around the middle between two of them it fades
    into the next over one clip F: with d = P / 2 - |t - k P| the share is

        s(1/2 + d / F),   s(x) = x^2 (3 - 2 x),

    and that of the other warp the rest. So motion never stops or jumps, and every P the photograph
    itself is there again. A video of at most 1.5 clips is one warp.

    Source: two staggered, limited warps are those of Vlachos, "Water Flow in Portal 2", 2010, and
    of the looping cross-fade of Holynski et al., 2021; ours run from before the photograph too,
    which halves their age.

    Args:
        num_frames: At least 1.
        clip: Frames of one clip, above 0; it need not be whole.
    """
    if num_frames <= (PERIOD + FADE) / 2 * clip:
        return [(Moment(i, 1.0),) for i in range(1, num_frames + 1)]
    return [_mix(i, period=PERIOD * clip, fade=FADE * clip) for i in range(1, num_frames + 1)]


def _mix(i: int, *, period: float, fade: float) -> tuple[Moment, ...]:
    age = i - round(i / period) * period
    x = 0.5 + (period / 2 - abs(age)) / fade
    if x >= 1:
        return (Moment(age, 1.0),)
    share = x * x * (3 - 2 * x)
    return Moment(age, share), Moment(age - math.copysign(period, age), 1 - share)


class ChainedScene(Scene):
    """The paper's way: after each clip, the last frame is the next photograph, nu stays.

        z_k = T(nu; x0_k, eta),   x0_k the last frame of clip k - 1

    Each clip smooths what the one before left, and what has come in at an edge stays: it drifts.

    Args:
        open_scene: Opens a photograph with settings and a mask of what must not move.
        pixels: The first photograph.
        settings: Of the whole video.
        clip: Frames of one clip, at least 1.
        still: 1 where nothing may move, at the photograph's size.
    """

    def __init__(
        self,
        open_scene: Callable[..., Scene],
        pixels: UInt8[np.ndarray, "h w 3"],
        settings: Settings,
        *,
        clip: int,
        still: Float32[np.ndarray, "h w"] | None = None,
    ) -> None:
        self._open, self._settings, self._clip, self._still = open_scene, settings, clip, still
        self._first = open_scene(pixels, self._part(min(clip, settings.num_frames)), still=still)
        self.x0 = self._first.x0
        self.notes = {**self._first.notes, "note": f"decoded again from every frame {clip}"}

    def video(self, nu: Float[Tensor, " z"], eta: Float[Tensor, " e"] | None) -> Sample:
        """Return one future.

        Args:
            nu: A residual without the temperature, the same for every clip.
            eta: The control, the same for every clip.
        """
        total = self._settings.num_frames
        frames = np.empty((total, *self.x0.shape), np.uint8)
        first = self._first.video(nu, eta)
        done = len(first.frames)
        frames[:done] = first.frames
        while done < total:
            part = self._part(min(self._clip, total - done))
            scene = self._open(frames[done - 1], part, still=self._still)
            frames[done : done + part.num_frames] = scene.video(nu, eta).frames
            done += part.num_frames
        return Sample(frames, first.z, first.nu)

    def _part(self, num_frames: int) -> Settings:
        return replace(self._settings, num_frames=num_frames, extension="onward")
