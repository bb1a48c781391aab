"""How photographs are to be animated, checked before anything is computed."""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from cinnema.core.errors import UserError
from cinnema.media.formats import MAX_PIXELS, MAX_SIDE, MIN_SIDE
from cinnema.models.flow.flow import require_temperature
from cinnema.synthesis.loops import Loop, moments

Size: TypeAlias = Literal["native", "model"] | tuple[int, int]
"""The photograph's own size, the networks' own, or (width, height) in pixels"""

Extension: TypeAlias = Literal["onward", "continuous", "paper"]
"""How a video goes on beyond one clip: see `Settings`"""

MAX_VIDEO_BYTES = 2 << 30
"""Of one video's frames, which are held in memory."""

_MAX_FRAMES = 10_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What makes one video of a photograph, besides the sample.

    Attributes:
        num_frames: Frames after the photograph (there and back, a pingpong shows more).
        fps: Frames a second.
        temperature: Factor on nu.
        motion_strength: Factor on the flow.
        size: Of the frames.
        loop: How the video repeats.
        extension: How it goes on beyond one clip. "onward": the motion leads on, ever further from
            the photograph. "continuous": warps of limited age, faded one into the other, so that
            nothing drifts; a model that paints overlaps its clips instead. "paper": decoded again
            from the last frame with the same nu.

    Raises:
        UserError: One of them is out of range.
    """

    num_frames: int = 16
    fps: float = 8.0
    temperature: float = 1.0
    motion_strength: float = 1.0
    size: Size = "native"
    loop: Loop = "none"
    extension: Extension = "onward"

    def __post_init__(self) -> None:
        if not 1 <= self.num_frames <= _MAX_FRAMES:
            raise UserError(
                f"num_frames: must be from 1 to {_MAX_FRAMES}, got {self.num_frames}; "
                "16 is what the model was trained on"
            )
        if not 0 < self.fps <= 240:
            raise UserError(f"fps: must be above 0 and at most 240, got {self.fps}: try 8")
        require_temperature(self.temperature)
        if not 0 <= self.motion_strength < math.inf:
            raise UserError(
                f"motion_strength: must be finite and at least 0, got {self.motion_strength}; "
                "1 moves as in the training data"
            )
        moments(self.loop, self.num_frames)
        _require_extension(self.extension, self.loop)
        _require_size(self.size)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        size = self.size if isinstance(self.size, str) else list(self.size)
        return {
            "num_frames": self.num_frames,
            "fps": self.fps,
            "temperature": self.temperature,
            "motion_strength": self.motion_strength,
            "size": size,
            "loop": self.loop,
            "extension": self.extension,
        }

    def frame_size(self, photograph: tuple[int, int], model_size: int) -> tuple[int, int]:
        """Return the frames' height and width.

        Args:
            photograph: Its height and width.
            model_size: What the networks see.

        Raises:
            UserError: One video would not fit `MAX_VIDEO_BYTES`.
        """
        if self.size == "model":
            return (model_size, model_size)
        height, width = photograph if isinstance(self.size, str) else self.size[::-1]
        count = len(moments(self.loop, self.num_frames))
        if 3 * count * height * width > MAX_VIDEO_BYTES:
            raise UserError(
                f"{count} frames of {width}x{height} pixels take "
                f"{3 * count * height * width / 2**30:.1f} GB, more than "
                f"{MAX_VIDEO_BYTES >> 30}: ask for fewer frames or a smaller size "
                "(--size 1920x1080)"
            )
        return height, width


def _require_extension(extension: Extension, loop: Loop) -> None:
    known = get_args(Extension)
    if extension not in known:
        raise UserError(f"extension: must be one of {', '.join(known)}, got {extension!r}")
    if extension != "onward" and loop != "none":
        raise UserError(
            f"loop: a video that is extended the {extension} way cannot loop, got {loop!r}: "
            "leave one of the two out"
        )


def _require_size(size: Size) -> None:
    if isinstance(size, str):
        if size not in ("native", "model"):
            raise UserError(f"size: must be native, model or (width, height), got {size!r}")
        return
    if len(size) != 2:
        raise UserError(f"size: must be (width, height), got {size!r}: give two numbers")
    width, height = size
    low, high = sorted(size)
    if low < MIN_SIDE or high > MAX_SIDE or width * height > MAX_PIXELS:
        raise UserError(
            f"size: sides must be from {MIN_SIDE} to {MAX_SIDE} pixels and the area at most "
            f"{MAX_PIXELS // 10**6} megapixels, got {width}x{height}: choose another size"
        )
