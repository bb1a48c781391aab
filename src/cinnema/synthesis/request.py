"""The request for a video: length, speed, size and extension, validated once.

No heavy module is imported here, so that the command line can refuse an option at once.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, get_args

from cinnema.core.errors import UserError
from cinnema.media.formats import MAX_FPS, MAX_PIXELS, MAX_SIDE, MIN_SIDE
from cinnema.synthesis.hints import Arrow, Arrows, as_arrows

if TYPE_CHECKING:
    from cinnema.media.pictures import Mask
    from cinnema.models.control import Drift

Protocol: TypeAlias = Literal["natural", "paper"]
"""Length, frame rate and speed of the videos.

- "natural": with a nature model, 4 s at 24 frames a second, in which each kind of thing moves at
  the speed that it has in nature; with other models the same as "paper".
- "paper": 16 frames at 8 a second, in which everything moves as in the clips of the evaluation.
"""

Loop: TypeAlias = Literal["none", "seamless", "pingpong"]
"""How a video repeats.

- "none": not at all.
- "seamless": the motion itself is periodic; the last frame is the photograph again. Nature models.
- "pingpong": forwards, then backwards.
"""

Extension: TypeAlias = Literal["onward", "continuous", "paper"]
"""How a video continues after one clip of the model.

- "onward": the motion continues; clips of a model that decodes its frames follow each other.
- "continuous": a model that decodes its frames fades from clip to clip; with a nature model the
  same as "onward", as nothing drifts away.
- "paper": each clip is generated from the last frame of the one before with the same nu.
"""

Size: TypeAlias = Literal["native", "model"] | tuple[int, int]
"""Size of the frames: that of the photograph, that of the networks, or (width, height)."""

MAX_VIDEO_BYTES = 4 << 30
"""Maximum size of the frames of one video in memory."""

_MAX_FRAMES = 10_000
_MAX_FACTOR = 100.0


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Length and frame rate of the videos for which none is requested.

    Attributes:
        fps: Frames per second.
        num_frames: Number of frames at any frame rate; None if the length is fixed in seconds.
        seconds: Length in seconds; None if `num_frames` is given.
        long: Factor on the length of a long video.
    """

    fps: float = 8.0
    num_frames: int | None = 16
    seconds: float | None = None
    long: int = 3


CLIP = Defaults()
"""One clip of the paper: 16 frames at 8 a second."""

NATURAL = Defaults(fps=24.0, num_frames=None, seconds=4.0)
"""Videos of a nature model."""


class RequestOptions(TypedDict, total=False):
    """Keyword arguments that make a `Request`.

    Attributes:
        num_frames: Number of frames after the photograph, from 1 to 10,000. Defaults to 16, with a
            nature model to 4 s.
        seconds: Length of the video in seconds, instead of `num_frames`.
        long: Whether the default length is that of a long video, three times the other.
        fps: Frames per second. Defaults to 8, with a nature model to 24.
        protocol: "natural" or "paper". See `Request` for this and the following.
        temperature: Factor on nu.
        motion_strength: Factor on the flow.
        size: Size of the frames.
        loop: How the video repeats: "none", "seamless" or "pingpong".
        extension: How the video continues after one clip.
        keep_still: Mask of regions that must not move.
        move: Mask of regions that move, though the model takes them for still.
        arrows: Velocities of points, see `Arrow`.
        current: Mean drift of the water.
        render: Whether to render the frames.
    """

    num_frames: int | None
    seconds: float | None
    long: bool
    fps: float | None
    protocol: Protocol
    temperature: float
    motion_strength: float
    size: Size
    loop: Loop
    extension: Extension
    keep_still: "Mask | None"
    move: "Mask | None"
    arrows: Arrows
    current: "Drift | None"
    render: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Length, speed, size and kind of a video.

    Attributes:
        num_frames: Number of frames after the photograph, from 1 to 10,000; a pingpong loop shows
            them forwards, then backwards.
        fps: Frames per second, above 0 and at most 240.
        protocol: How fast a nature model's kinds move: "natural" or "paper", see `Protocol`.
        temperature: Factor on nu, from 0 to 100; 0 gives the same motion for all seeds.
        motion_strength: Factor on the flow, from 0 to 100; 1 moves as in the training data.
        size: Size of the frames: "native", "model", or (width, height) in pixels.
        loop: How the video repeats, see `Loop`.
        extension: How the video continues after one clip, see `Extension`; not with a loop.
        keep_still: Mask of regions that must not move: a picture file of the photograph's size,
            white where nothing may move, or an array (height, width); None if everything may move.
        move: Mask, given like `keep_still`, of regions that move although the model takes them for
            still; only for nature models. Where both masks are white, `keep_still` counts.
        arrows: Velocities of points, at most 100; only for nature models. Each motion is the most
            likely one near its sample that follows them; `motion_strength` is a factor on them.
        current: Mean drift of the water, as a `Drift` of the sky; only for nature models.
        render: Whether a nature model renders frames; a page that plays the motion needs none.

    Raises:
        UserError: One of them is out of range.
    """

    num_frames: int = 16
    fps: float = 8.0
    protocol: Protocol = "natural"
    temperature: float = 1.0
    motion_strength: float = 1.0
    size: Size = "native"
    loop: Loop = "none"
    extension: Extension = "onward"
    keep_still: "Mask | None" = None
    move: "Mask | None" = None
    arrows: tuple[Arrow, ...] = ()
    current: "Drift | None" = None
    render: bool = True

    @classmethod
    def of(cls, defaults: Defaults = CLIP, **options: Unpack[RequestOptions]) -> "Request":
        """Return a request from keyword arguments; the length may be given in seconds.

        Args:
            defaults: Length and frame rate of the model's videos, for options that are missing or
                None.
            options: See `RequestOptions`.

        Raises:
            UserError: An option is out of range, or both `num_frames` and `seconds` are given.

        Example:
            >>> Request.of(seconds=2.5).num_frames
            20
        """
        values: dict[str, Any] = {**options}
        if values.get("protocol") == "paper":
            defaults = CLIP
        fps = values.pop("fps", None)
        fps = defaults.fps if fps is None else fps
        num_frames = values.pop("num_frames", None)
        seconds, factor = values.pop("seconds", None), 1
        if seconds is not None and num_frames is not None:
            raise UserError("seconds: num_frames also gives the length: omit one of them")
        if seconds is not None and not 0 < seconds < math.inf:
            raise UserError(f"seconds: must be finite and above 0, got {seconds}: try 2")
        is_long = values.pop("long", False)
        if seconds is None and num_frames is None:
            factor = defaults.long if is_long else 1
            seconds, num_frames = defaults.seconds, defaults.num_frames
        if num_frames is None:
            # A wrong fps is refused below.
            num_frames = max(1, round((seconds or 0) * fps)) if 0 < fps <= MAX_FPS else 1
        values["arrows"] = as_arrows(values.get("arrows", ()))
        return cls(num_frames=factor * num_frames, fps=fps, **values)

    def __post_init__(self) -> None:
        if not 1 <= self.num_frames <= _MAX_FRAMES:
            raise UserError(
                f"num_frames: must be from 1 to {_MAX_FRAMES}, got {self.num_frames}; "
                "16 is what the model was trained on"
            )
        if not 0 < self.fps <= MAX_FPS:
            raise UserError(f"fps: must be above 0 and at most {MAX_FPS:g}, got {self.fps}: try 8")
        for name in ("temperature", "motion_strength"):
            value = getattr(self, name)
            if not 0 <= value <= _MAX_FACTOR:
                raise UserError(
                    f"{name}: must be from 0 to {_MAX_FACTOR:g}, got {value}; 1 is as in training"
                )
        if self.protocol not in get_args(Protocol):
            raise UserError(
                f"protocol: must be one of {', '.join(get_args(Protocol))}, got {self.protocol!r}"
            )
        shown_frames(self.loop, self.num_frames)
        _require_extension(self.extension, self.loop)
        _require_size(self.size)

    def as_dict(self) -> dict[str, Any]:
        """Return the request as JSON values."""
        return {
            "num_frames": self.num_frames,
            "fps": self.fps,
            "protocol": self.protocol,
            "temperature": self.temperature,
            "motion_strength": self.motion_strength,
            "size": self.size if isinstance(self.size, str) else list(self.size),
            "loop": self.loop,
            "extension": self.extension,
            "keep_still": self.keep_still is not None,
            "move": self.move is not None,
            "arrows": [list(arrow) for arrow in self.arrows],
            "current": None if self.current is None else asdict(self.current),
        }

    def frame_size(self, photograph: tuple[int, int], model_size: int) -> tuple[int, int]:
        """Return height and width of the frames.

        Args:
            photograph: Height and width of the photograph, in pixels.
            model_size: Width and height of the networks' pictures, in pixels.
        """
        if self.size == "model":
            return (model_size, model_size)
        return photograph if isinstance(self.size, str) else self.size[::-1]

    def require_memory(self, size: tuple[int, int]) -> None:
        """Require that the frames of one video can be held in memory.

        Args:
            size: Height and width of the frames.

        Raises:
            UserError: They would take more than `MAX_VIDEO_BYTES`.
        """
        height, width = size
        count = len(shown_frames(self.loop, self.num_frames))
        if 3 * count * height * width > MAX_VIDEO_BYTES:
            raise UserError(
                f"size: {count} frames of {width}x{height} pixels take "
                f"{3 * count * height * width / 2**30:.1f} GB, more than "
                f"{MAX_VIDEO_BYTES >> 30}: ask for fewer frames or a smaller size "
                "(--size 1920x1080), or write them as mp4 or png"
            )


def shown_frames(loop: Loop, num_frames: int) -> list[int]:
    """Return the number of the frame that a video shows at each time, from 1.

    A pingpong loop shows them forwards, then backwards without the two ends: 2 num_frames - 2
    frames, no seam.

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
    forward = list(range(1, num_frames + 1))
    return forward + forward[-2:0:-1] if loop == "pingpong" else forward


def _require_extension(extension: Extension, loop: Loop) -> None:
    known = get_args(Extension)
    if extension not in known:
        raise UserError(f"extension: must be one of {', '.join(known)}, got {extension!r}")
    possible = ("none", "seamless") if extension == "continuous" else ("none",)
    if extension != "onward" and loop not in possible:
        raise UserError(
            f"loop: a video with the extension {extension} cannot loop, got {loop!r}: leave one of "
            "the two out"
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
