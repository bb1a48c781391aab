"""Clips as pictures in a page: strips of frames, and animations."""

import base64
import io

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

Frames = UInt8[np.ndarray, "t h w 3"]

_GAP = 2


def strip_frames(num_frames: int, *, most: int = 6) -> list[int]:
    """Return the frames of a clip that a strip shows, spread evenly, with the first and the last.

    Args:
        num_frames: Number of frames of the clip.
        most: Largest number of frames that are shown, at least 2.

    Example:
        >>> strip_frames(16)
        [0, 3, 6, 9, 12, 15]
    """
    count = min(most, num_frames)
    return [int(i) for i in np.linspace(0, num_frames - 1, count).round()]


def strip_png(frames: Frames, *, most: int = 6, max_side: int = 128) -> bytes:
    """Return some frames of a clip side by side, on a transparent ground, as PNG.

    Args:
        frames: Frames of the clip.
        most: Largest number of frames that are shown.
        max_side: Largest height and width of a frame, in pixels; larger ones are scaled down.
    """
    small = shrunk(frames[strip_frames(len(frames), most=most)], max_side=max_side)
    count, height, width, _ = small.shape
    strip = np.zeros((height, count * (width + _GAP) - _GAP, 4), np.uint8)
    for i, frame in enumerate(small):
        left = i * (width + _GAP)
        strip[:, left : left + width, :3] = frame
        strip[:, left : left + width, 3] = 255
    return _saved(Image.fromarray(strip), "PNG", optimize=True)


def still_webp(frames: Frames, *, max_side: int = 192) -> bytes:
    """Return the first frame as WebP, for readers who prefer reduced motion.

    Args:
        frames: Frames of the clip.
        max_side: Largest height and width in pixels; larger frames are scaled down.
    """
    return _saved(Image.fromarray(shrunk(frames[:1], max_side=max_side)[0]), "WEBP", quality=85)


def animated_webp(frames: Frames, *, fps: float, max_side: int = 192) -> bytes:
    """Return a clip as an animated WebP that loops.

    Args:
        frames: Frames of the clip.
        fps: Frames per second.
        max_side: Largest height and width in pixels; larger frames are scaled down.
    """
    pages = [Image.fromarray(frame) for frame in shrunk(frames, max_side=max_side)]
    ends = np.round(np.arange(len(pages) + 1) * 1000 / fps).astype(int)
    durations = [int(d) for d in np.diff(ends)]
    return _saved(
        pages[0], "WEBP", save_all=True, append_images=pages[1:], duration=durations, loop=0,
        quality=85, method=4,
    )  # fmt: skip


def data_uri(content: bytes, mime: str) -> str:
    """Return content as a data URI.

    Args:
        content: Content of a file.
        mime: Its type: "image/png".
    """
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def shrunk(frames: Frames, *, max_side: int) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Return frames scaled down if they are larger than a size.

    Args:
        frames: Frames of any size.
        max_side: Largest height and width, in pixels.
    """
    height, width = frames.shape[1:3]
    scale = max_side / max(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
