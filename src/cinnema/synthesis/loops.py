"""Which moments each frame of a video shows: once through, there and back, or round and round."""

from typing import Literal, NamedTuple, get_args

from cinnema.core.errors import UserError

Loop = Literal["none", "pingpong", "crossfade"]
LOOPS: tuple[Loop, ...] = get_args(Loop)


class Moment(NamedTuple):
    """A rendered frame, and its share of what is seen.

    Attributes:
        time: In frames after the photograph; negative is before it; whole in a loop.
        share: In (0, 1]; the shares of one output frame add up to 1.
    """

    time: float
    share: float


def moments(loop: Loop, num_frames: int) -> list[tuple[Moment, ...]]:
    """Return what each frame of a video is mixed of.

    - none: frame i shows time i, i = 1 ... num_frames.
    - pingpong: the same, then back without the two ends: 2 num_frames - 2 frames, no seam.
    - crossfade: with S = num_frames and a = i / S, (1 - a) of time i and a of time i - S. The last
      frame is the photograph's own time, so the first follows it as the second follows the first.

    Source of the crossfade: Holynski et al., "Animating Pictures with Eulerian Motion Fields",
    2021, section 4.2, which mixes features with weights of its own; we mix frames.

    Args:
        loop: How the video repeats.
        num_frames: At least 1.

    Raises:
        UserError: The loop is none of these, or a loop has fewer than 2 frames.
    """
    if loop not in LOOPS:
        raise UserError(f"loop: must be one of {', '.join(LOOPS)}, got {loop!r}")
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
