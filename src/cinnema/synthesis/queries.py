"""Videos whose motion is asked for, brought to the length, rate and size of a model's clips."""

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
"""A file or folder that `read_video` takes, or what it returned"""

_LEAST_SHARE = 0.5
"""Of a clip's time that a video must last: what is slowed down further is no motion any more."""

_SHOWN = 640
"""Longest side of the frames that are kept to be shown, in pixels."""


@dataclass(frozen=True, eq=False)
class Query:
    """One clip of a video as a model sees it.

    Attributes:
        clip: x0 and the T frames after it, in [-1, 1], stretched to the model's square.
        x0: The first of these frames at the video's own size.
        shown: All of them at the video's own aspect, at most 640 px.
        about: What was taken of what, as JSON values.
        said: The same as a sentence.
    """

    clip: Float[Tensor, "t1 3 h w"]
    x0: UInt8[np.ndarray, "h0 w0 3"]
    shown: UInt8[np.ndarray, "t1 hs ws 3"]
    about: dict[str, Any]
    said: str


def read_query(
    video: QueryVideo, model: VideoModel, *, start: float = 0.0, fps: float | None = None
) -> Query:
    """Read one clip of a video, as training reads clips.

    Of a model with a frame rate, frames are taken at that rate, the nearest ones in time; a video
    that ends before the clip does, but lasts at least half of it, is slowed down to fit. Frame
    folders and arrays have no rate of their own, so each of their frames is taken unless `fps` says
    otherwise; and so is each frame of any video for a model without a rate. The picture is
    stretched to the model's square, whatever its aspect, as photographs are.

    Args:
        video: A file, a folder of frames, an array, or a video in memory.
        model: Whose clip it is to be.
        start: Where the clip begins, in seconds from the video's start.
        fps: The video's frames a second, where its file says nothing or something wrong.

    Raises:
        UserError: The video cannot be read or is too short; an option is out of range.
    """
    if not 0 <= start < float("inf"):
        raise UserError(f"start: must be finite and at least 0 seconds, got {start}: try 0")
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise UserError(f"query_fps: must be above 0 and at most {MAX_FPS:g}, got {fps}: leave it")
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
    """Return the path, and frames a second; None where nothing tells them."""
    if isinstance(video, VideoFile):
        return video.path, fps or video.fps
    path = Path(video)
    own = read_video(path, max_frames=1).fps
    has_rate = not path.is_dir() and path.suffix.lower() != ".npy"
    return path, fps or (own if has_rate else None)


def _pick(video: QueryVideo, wanted: list[int]) -> tuple[dict[int, np.ndarray], int]:
    """Return the frames of these numbers, as far as there are, and how many were gone through."""
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
            f"{path} is too short: {max(left, 0)} frames follow the one it starts from, and half "
            f"of a clip takes {max(least, 1):.3g}: give a longer video, an earlier start, or its "
            "true frame rate"
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
    pace = "each frame as it comes" if step == 1 else f"one every {step:.3g}"
    slower = "" if slowed == 1 else f", slowed down by {slowed:.3g} to fill a clip"
    said = (
        f"{path.name}: {len(wanted)} frames from number {wanted[0]} to {wanted[-1]}, {pace}"
        f"{slower}; {width}x{height} pixels seen as {model.size}x{model.size}"
    )
    shown = np.stack([resize(frames[i], shown_size) for i in wanted])
    return Query(clip=to_tensor(seen), x0=x0, shown=shown, about=about, said=said)


def batch_of(query: Query, model: VideoModel) -> Float[Tensor, "1 t1 3 h w"]:
    """Return the clip as a batch of one, where the model is."""
    device: torch.device = next(model.parameters()).device
    return query.clip[None].to(device)
