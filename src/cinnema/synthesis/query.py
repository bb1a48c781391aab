"""Query videos: one clip of a video, converted to the length, frame rate and size of a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.formats import MAX_FPS
from cinnema.media.pictures import resize, resize_for_model, to_tensor
from cinnema.media.videos import VideoFile, iterate_frames, read_video
from cinnema.models.base import VideoModel

QueryVideo: TypeAlias = str | Path | VideoFile
"""A path that `read_video` accepts, or a video that it returned."""

_LEAST_SHARE = 0.5
"""Smallest length of a video, in clips; a video is slowed down by at most the inverse."""

_SHOWN = 640
"""Longest side of the frames that are kept for display, in pixels."""


@dataclass(frozen=True, eq=False)
class Query:
    """One clip of a video, as input of a model.

    Attributes:
        clip: x0 and the T frames after it, in [-1, 1], resized to the model's square.
        x0: The first of these frames, at the video's size.
        shown: All of these frames with the video's aspect ratio, at most 640 pixels on a side.
        about: Name of the video and indices of the frames, as JSON values.
        summary: The content of `about` as one line of text.
    """

    clip: Float[Tensor, "t1 3 h w"]
    x0: UInt8[np.ndarray, "h0 w0 3"]
    shown: UInt8[np.ndarray, "t1 hs ws 3"]
    about: dict[str, Any]
    summary: str


def read_query(
    video: QueryVideo, model: VideoModel, *, start: float = 0.0, fps: float | None = None
) -> Query:
    """Read one clip of a video.

    For a model with a frame rate, the frames nearest in time are taken at that rate; a video that
    is shorter than the clip, but at least half as long, is slowed down to fit. Folders of frames
    and arrays have no frame rate, so every frame is taken unless `fps` is given; for a model
    without a frame rate, every frame of any video is taken. Frames are resized to the model's
    square without keeping their aspect ratio, like photographs.

    Args:
        video: A video file, a folder of frames, an .npy array, or a video that was read.
        model: The model that will encode the clip.
        start: Time at which the clip begins, in seconds from the start of the video.
        fps: Frames per second of the video, if its file states none or a wrong one.

    Raises:
        UserError: The video cannot be read or is too short, or an option is out of range.
    """
    if not 0 <= start < float("inf"):
        raise UserError(f"start: must be finite and at least 0 seconds, got {start}: try 0")
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise UserError(f"query_fps: must be above 0 and at most {MAX_FPS:g}, got {fps}: omit it")
    path, rate = _rate_of(video, fps)
    step = 1.0 if rate is None or model.fps is None else rate / model.fps
    first = round(start * (rate or model.fps or 1.0))
    wanted = [first + round(t * step) for t in range(model.num_frames + 1)]
    frames, num_seen = _pick(video, wanted)
    slowed = 1.0
    if num_seen <= wanted[-1]:
        left = num_seen - 1 - first
        shorter = left / model.num_frames
        _require_long_enough(path, left=left, least=_LEAST_SHARE * model.num_frames * step)
        slowed, step = step / shorter, shorter
        wanted = [first + round(t * step) for t in range(model.num_frames + 1)]
        frames, _ = _pick(video, wanted)
    return _query_of(frames, wanted, model, path=path, rate=rate, step=step, slowed=slowed)


def _rate_of(video: QueryVideo, fps: float | None) -> tuple[Path, float | None]:
    """Return the path, and the frames per second; None if they are unknown."""
    if isinstance(video, VideoFile):
        return video.path, fps or video.fps
    path = Path(video)
    own = read_video(path, max_frames=1).fps
    has_rate = not path.is_dir() and path.suffix.lower() != ".npy"
    return path, fps or (own if has_rate else None)


def _pick(video: QueryVideo, wanted: list[int]) -> tuple[dict[int, np.ndarray], int]:
    """Return the existing frames of these numbers, and the number of frames that were read."""
    frames: Iterator[np.ndarray]
    frames = iter(video.frames) if isinstance(video, VideoFile) else iterate_frames(video)
    chosen, kept, num = set(wanted), {}, 0
    for num, frame in enumerate(islice(frames, wanted[-1] + 1), start=1):
        if num - 1 in chosen:
            kept[num - 1] = np.array(frame)
    return kept, num


def _require_long_enough(path: Path, *, left: int, least: float) -> None:
    if left < max(least, 1):
        raise UserError(
            f"{path} is too short: {max(left, 0)} frames follow the start, and half of a clip "
            f"takes {max(least, 1):.3g}: give a longer video, an earlier start, or the true frame "
            "rate"
        )


def _query_of(
    frames: dict[int, np.ndarray],
    wanted: list[int],
    model: VideoModel,
    *,
    path: Path,
    rate: float | None,
    step: float,
    slowed: float,
) -> Query:
    x0 = frames[wanted[0]]
    height, width, _ = x0.shape
    scale = min(1.0, _SHOWN / max(height, width))
    shown_size = (max(1, round(height * scale)), max(1, round(width * scale)))
    seen = np.stack([resize_for_model(frames[i], model.size) for i in wanted])
    about = {
        "file": path.name,
        "first_frame": wanted[0],
        "last_frame": wanted[-1],
        "frames": len(wanted),
        "frame_step": round(step, 4),
        "fps": rate,
        "model_fps": model.fps,
        "slowed_by": round(slowed, 4),
        "size": [width, height],
        "seen_as": [model.size, model.size],
    }
    pace = "every frame" if step == 1 else f"one every {step:.3g}"
    slower = "" if slowed == 1 else f", slowed down by {slowed:.3g} to fill a clip"
    summary = (
        f"{path.name}: {len(wanted)} frames from number {wanted[0]} to {wanted[-1]}, {pace}"
        f"{slower}; {width}x{height} pixels resized to {model.size}x{model.size}"
    )
    shown = np.stack([resize(frames[i], shown_size) for i in wanted])
    return Query(clip=to_tensor(seen), x0=x0, shown=shown, about=about, summary=summary)


def batch_of(query: Query, model: VideoModel) -> Float[Tensor, "1 t1 3 h w"]:
    """Return the clip as a batch of one, on the model's device."""
    device: torch.device = next(model.parameters()).device
    return query.clip[None].to(device)
