"""Query videos: one clip of a video, converted to the length, frame rate and size of a model."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.files import readable_name
from cinnema.media.formats import MAX_FPS
from cinnema.media.pictures import resize, resize_for_model, to_tensor
from cinnema.media.videos import VideoFile, open_frames
from cinnema.models.base import VideoModel

QueryVideo: TypeAlias = str | Path | VideoFile
"""A path that `read_video` accepts, or a video that it returned."""

_LEAST_SHARE = 0.5
"""Smallest length of a video, in clips; a video is slowed down by at most the inverse."""

_TIE = 1e-6
"""Times in seconds, or steps of a clip, that differ by less are equal."""

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
    clip_fps = model.fps
    opened = _open(video, fps, clip_fps)
    if clip_fps is None:  # time is counted in frames
        start = round(start * (opened.fps or 1.0))
    wanted = start + np.arange(model.num_frames + 1) / (clip_fps or 1.0)
    chosen, end = _nearest(opened, wanted)
    slowed = 1.0
    if wanted[-1] > end + 0.5 / opened.rate + _TIE:
        slowed = _slowed(opened, end - start, wanted[-1] - start)
        wanted = start + (wanted - start) / slowed
        chosen, _ = _nearest(_open(video, fps, clip_fps), wanted)
    return _query_of(chosen, model, opened, slowed=slowed)


@dataclass(frozen=True)
class _Opened:
    """The frames of a video.

    Attributes:
        path: The file.
        fps: Usual frames per second; None if unknown.
        rate: Usual frames for each unit of time, which is a second, or a step of the clip if the
            frame rate is unknown.
        frames: Times, and frames.
    """

    path: Path
    fps: float | None
    rate: float
    frames: Iterator[tuple[float, np.ndarray]]


def _open(video: QueryVideo, fps: float | None, clip_fps: float | None) -> _Opened:
    frames: Iterator[tuple[float, np.ndarray]]
    own: float | None
    if isinstance(video, VideoFile):
        path, own = video.path, video.fps
        frames = ((index / video.fps, frame) for index, frame in enumerate(video.frames))
    else:
        source = open_frames(video)
        path, frames = Path(video), source.frames
        own = source.fps if source.has_times else None
    known = fps or own
    rate = known if known and clip_fps else clip_fps or 1.0
    if fps is not None or own is None or clip_fps is None:  # by number
        frames = ((index / rate, frame) for index, (_, frame) in enumerate(frames))
    return _Opened(path, known, rate, frames)


def _nearest(opened: _Opened, wanted: np.ndarray) -> tuple[list[tuple[int, np.ndarray]], float]:
    """Return number and content of the frames nearest to these times, and when the last frame is.

    The video is read as far as needed. Between two frames, the even one is taken.
    """
    chosen: list[tuple[int, np.ndarray]] = []
    last, count, before = 0.0, 0, None
    for index, (time, frame) in enumerate(opened.frames):
        if before is not None:
            middle = (last + time) / 2 + (_TIE if index % 2 else -_TIE)
            while len(chosen) < len(wanted) and wanted[len(chosen)] < middle:
                chosen.append((index - 1, before))
        if len(chosen) == len(wanted):
            return chosen, time
        last, count, before = time, index, np.array(frame)
    assert before is not None  # a video has a frame
    chosen += [(count, before)] * (len(wanted) - len(chosen))
    return chosen, last


def _slowed(opened: _Opened, left: float, length: float) -> float:
    """Return the factor by which what is left of a video has to be slowed down to fill a clip.

    Raises:
        UserError: It is less than half of a clip.
    """
    if left < max(_LEAST_SHARE * length, 1 / opened.rate) - _TIE:
        raise UserError(
            f"{opened.path} is too short: {max(round(left * opened.rate), 0)} frames follow the "
            f"start, and half of a clip takes {max(_LEAST_SHARE * length * opened.rate, 1):.3g}: "
            "give a longer video, an earlier start, or the true frame rate"
        )
    return length / left


def _require_motion(
    numbers: list[int], opened: _Opened, model: VideoModel, *, slowed: float
) -> None:
    """Raise a UserError if a clip is one and the same frame, and warn if frames are repeated."""
    num = len(set(numbers))
    if num == 1:
        raise UserError(
            f"{opened.path} shows one frame for a whole clip of the model, at "
            f"{opened.rate:.3g} frames per second: to take each frame as it comes, add query_fps "
            f"(--query-fps {model.fps or 1:g})"
        )
    if num < len(numbers) and slowed == 1:
        warnings.warn(
            f"{opened.path}: {num} different frames fill the {len(numbers)} of a clip, as the "
            "video has fewer frames per second than the model",
            stacklevel=4,
        )


def _query_of(
    chosen: list[tuple[int, np.ndarray]], model: VideoModel, opened: _Opened, *, slowed: float
) -> Query:
    numbers, frames = [number for number, _ in chosen], [frame for _, frame in chosen]
    _require_motion(numbers, opened, model, slowed=slowed)
    path, x0 = opened.path, frames[0]
    height, width, _ = x0.shape
    scale = min(1.0, _SHOWN / max(height, width))
    shown_size = (max(1, round(height * scale)), max(1, round(width * scale)))
    step = opened.rate / (model.fps or 1.0) / slowed
    if all(np.array_equal(frame, x0) for frame in frames):
        warnings.warn(f"{path}: nothing moves in this clip, so nothing will", stacklevel=3)
    seen = np.stack([resize_for_model(frame, model.size) for frame in frames])
    about = {
        "file": readable_name(path),
        "first_frame": numbers[0],
        "last_frame": numbers[-1],
        "frames": len(numbers),
        "frame_step": round(step, 4),
        "fps": opened.fps,
        "model_fps": model.fps,
        "slowed_by": round(slowed, 4),
        "size": [width, height],
        "seen_as": [model.size, model.size],
    }
    pace = "every frame" if step == 1 else f"one every {step:.3g}"
    slower = "" if slowed == 1 else f", slowed down by {slowed:.3g} to fill a clip"
    summary = (
        f"{readable_name(path)}: {len(frames)} frames from number {numbers[0]} to {numbers[-1]}, "
        f"{pace}{slower}; {width}x{height} pixels resized to {model.size}x{model.size}"
    )
    shown = np.stack([resize(frame, shown_size) for frame in frames])
    return Query(clip=to_tensor(seen), x0=x0, shown=shown, about=about, summary=summary)


def batch_of(query: Query, model: VideoModel) -> Float[Tensor, "1 t1 3 h w"]:
    """Return the clip as a batch of one, on the model's device."""
    device: torch.device = next(model.parameters()).device
    return query.clip[None].to(device)
