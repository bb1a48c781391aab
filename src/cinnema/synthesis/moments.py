"""The times of the motion that each frame of a video shows, and their weights."""

import math
from typing import Literal, NamedTuple, TypeAlias, get_args

from cinnema.core.errors import UserError

Loop: TypeAlias = Literal["none", "seamless", "pingpong", "crossfade"]
"""How a video repeats.

- "none": not at all.
- "seamless": the motion itself is periodic; the last frame is the photograph again. Nature models.
- "pingpong": forwards, then backwards.
- "crossfade": the end is faded into the beginning. Warping models.
"""

Extension: TypeAlias = Literal["onward", "continuous", "paper"]
"""How a video continues after one clip of the model.

- "onward": the motion continues, ever further from the photograph.
- "continuous": warps of the photograph that are at most 1.5 clips old, faded one into the next, so
  that nothing drifts away. A model that decodes its frames fades from clip to clip.
- "paper": each clip is generated from the last frame of the one before with the same nu.
"""

PERIOD = 2.0
"""Clips after which the extension "continuous" starts from the photograph again."""

FADE = 1.0
"""Clips that the fade from one warp to the next takes: no warp is older than 1.5 clips."""


class Moment(NamedTuple):
    """A time of the motion, and its weight in a frame.

    Attributes:
        time: Time in frames after the photograph; negative before it.
        share: Weight in (0, 1]; the shares of one frame add up to 1.
    """

    time: float
    share: float


def looped(loop: Loop, num_frames: int) -> list[tuple[Moment, ...]]:
    """Return the moments of each frame of a video that may repeat.

    - none: frame i shows time i, i = 1 ... num_frames. The same for seamless: the motion repeats.
    - pingpong: the same, then backwards without the two ends: 2 num_frames - 2 frames, no seam.
    - crossfade: with S = num_frames and a = i / S, (1 - a) of time i and a of time i - S. The last
      frame shows the photograph's own time, so the first follows it as the second the first.

    Source of the crossfade: Holynski et al., "Animating Pictures with Eulerian Motion Fields",
    2021, section 4.2, which mixes features with its own weights; we mix frames.

    Args:
        loop: How the video repeats.
        num_frames: Number of frames, at least 1; at least 2 for a loop.

    Raises:
        UserError: `loop` is unknown, or a loop has fewer than 2 frames.
    """
    if loop not in get_args(Loop):
        raise UserError(f"loop: must be one of {', '.join(get_args(Loop))}, got {loop!r}")
    if loop != "none" and num_frames < 2:
        raise UserError(
            f"num_frames: a {loop} loop needs at least 2, got {num_frames}: ask for more"
        )
    forward: list[tuple[Moment, ...]] = [(Moment(i, 1.0),) for i in range(1, num_frames + 1)]
    if loop == "pingpong":
        return forward + forward[-2:0:-1]
    if loop == "crossfade":
        return [_crossfade(i, num_frames) for i in range(1, num_frames + 1)]
    return forward


def _crossfade(i: int, num_frames: int) -> tuple[Moment, ...]:
    share = i / num_frames
    mix = (Moment(i, 1 - share), Moment(i - num_frames, share))
    return tuple(moment for moment in mix if moment.share > 0)


def staggered(num_frames: int, *, clip: float) -> list[tuple[Moment, ...]]:
    """Return the moments of each frame of a long video, in which warps are limited in time.

    A warp of x0 starts every P = 2 clips. Warp k shows time t - k P, from before the photograph to
    after it, and is visible while |t - k P| <= P / 2. Around the middle between two warps it fades
    into the next over one clip F: with d = P / 2 - |t - k P| its share is

        s(1/2 + d / F),   s(x) = x^2 (3 - 2 x),

    and that of the other warp the rest. So the motion never stops or jumps, and every P the
    photograph itself is shown again. A video of at most 1.5 clips is one warp.

    Source: two staggered, limited warps are those of Vlachos, "Water Flow in Portal 2", 2010, and
    of the looping crossfade of Holynski et al., 2021; ours also run from before the photograph,
    which halves their age.

    Args:
        num_frames: Number of frames, at least 1.
        clip: Number of frames of one clip, above 0; not necessarily an integer.
    """
    if num_frames <= (PERIOD + FADE) / 2 * clip:
        return [(Moment(i, 1.0),) for i in range(1, num_frames + 1)]
    return [_two_warps(i, period=PERIOD * clip, fade=FADE * clip) for i in range(1, num_frames + 1)]


def _two_warps(i: int, *, period: float, fade: float) -> tuple[Moment, ...]:
    age = i - round(i / period) * period
    x = 0.5 + (period / 2 - abs(age)) / fade
    if x >= 1:
        return (Moment(age, 1.0),)
    share = x * x * (3 - 2 * x)
    return Moment(age, share), Moment(age - math.copysign(period, age), 1 - share)
