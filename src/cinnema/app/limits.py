"""What visitors of the page may ask for.

Nothing heavy is imported here, so that the command line can refuse a limit at once.
"""

from dataclasses import dataclass, fields

from cinnema.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest files, pictures, videos and queues.

    Attributes:
        max_megabytes: Size of an uploaded file in megabytes.
        max_megapixels: Size of an uploaded picture, or of a frame of an uploaded video.
        max_video_megapixels: Size of a frame of a finished video; larger pictures are scaled down.
        max_seconds: Length of a video, and largest start in an uploaded one.
        max_queue: Number of requests that wait; one is computed at a time.
        max_sessions: Number of visitors whose files are kept; the longest idle one loses its.

    Raises:
        UserError: One of them is not above 0.
    """

    max_megabytes: float = 40.0
    max_megapixels: float = 50.0
    max_video_megapixels: float = 2.1
    max_seconds: float = 12.0
    max_queue: int = 40
    max_sessions: int = 50

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                option = field.name.replace("_", "-")
                raise UserError(f"--{option} must be above 0, got {value:g}: try {field.default}")
