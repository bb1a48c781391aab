"""Files from a browser: recognised by their content, and read by the library's own readers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8

from cinnema.app.limits import Limits
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, sha256_of
from cinnema.media.pictures import open_picture, read_photograph, resize
from cinnema.media.videos import read_video

# A reader is chosen by what a file begins with, never by the name that a visitor gave it. Formats
# that name other files, as playlists do, are not among these.
_VIDEO_STARTS = (
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"), ".mp4"),
    (0, (b"\x1a\x45\xdf\xa3",), ".webm"),
    (8, (b"AVI ",), ".avi"),
    (8, (b"WEBP",), ".webp"),
    (0, (b"GIF87a", b"GIF89a"), ".gif"),
    (0, (b"\x89PNG",), ".png"),
)
_MAX_NAME = 60

SavedKind: TypeAlias = Literal["json", "motion"]


class Picture(NamedTuple):
    """A picture that somebody dropped.

    Attributes:
        name: Name of the file, for messages and downloads.
        sha256: SHA-256 of the file.
        size: Width and height of the photograph in pixels.
        pixels: The photograph, scaled down to what videos may have.
    """

    name: str
    sha256: str
    size: tuple[int, int]
    pixels: UInt8[np.ndarray, "h w 3"]


def shown_name(name: str | None) -> str:
    """Return a file's name without folders and odd characters.

    Args:
        name: As the browser sent it.
    """
    last = re.split(r"[\\/]", name or "")[-1]
    return re.sub(r"[^\w. -]+", "_", last).strip(" .")[-_MAX_NAME:] or "file"


@contextmanager
def named(path: Path, name: str) -> Iterator[None]:
    """Call a file in errors as its owner does, instead of by its place on this machine."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from error


def read_picture(path: Path, name: str, limits: Limits) -> Picture:
    """Read a picture and scale it down to the size that videos may have.

    Args:
        path: The uploaded file.
        name: The name that its owner gave it.
        limits: Bytes and pixels.

    Raises:
        UserError: The file is not a picture, is damaged, or exceeds a limit.
    """
    name = shown_name(name)
    with named(path, name):
        _require_bytes(path, limits, kind="a picture")
        with open_picture(path, kind="a picture") as image:
            _require_pixels(path, image.width, image.height, limits)
        pixels = read_photograph(path)
    height, width, _ = pixels.shape
    small = resize(pixels, fit((height, width), limits.max_video_megapixels * 1e6))
    return Picture(name, sha256_of(path), (width, height), small)


def video_suffix(path: Path, name: str, limits: Limits) -> str:
    """Return the suffix by which the library reads a video.

    Args:
        path: The uploaded file.
        name: The name that its owner gave it.
        limits: Bytes.

    Raises:
        UserError: The file is not a video, or exceeds a limit.
    """
    name = shown_name(name)
    with named(path, name):
        _require_bytes(path, limits, kind="a video")
    with path.open("rb") as file:
        start = file.read(16)
    for offset, words, suffix in _VIDEO_STARTS:
        if start[offset:].startswith(words):
            return suffix
    raise UserError(
        f"{name} is not a video that can be read: use mp4, mov, webm, mkv, avi, gif or webp"
    )


def check_video(path: Path, name: str, limits: Limits) -> tuple[int, int]:
    """Return height and width of a video's frames.

    Args:
        path: The file, with a suffix from `video_suffix`.
        name: The name that its owner gave it.
        limits: Pixels.

    Raises:
        UserError: It cannot be read, or exceeds a limit.
    """
    with named(path, shown_name(name)):
        height, width = read_video(path, max_frames=1).frames.shape[1:3]
        _require_pixels(path, width, height, limits)
    return height, width


def saved_kind(path: Path, name: str, limits: Limits) -> SavedKind:
    """Return what a file is that should hold a future: a JSON or a motion file.

    Args:
        path: The uploaded file.
        name: The name that its owner gave it.
        limits: Bytes.

    Raises:
        UserError: It is empty, or exceeds a limit.
    """
    with named(path, shown_name(name)):
        _require_bytes(path, limits, kind="a JSON or motion file")
    with path.open("rb") as file:
        return "json" if file.read(64).lstrip().startswith(b"{") else "motion"


def fit(size: tuple[int, int], most: float, *, side: float = float("inf")) -> tuple[int, int]:
    """Return height and width of a picture that is scaled down, not up.

    Args:
        size: Height and width.
        most: Maximum number of pixels.
        side: Maximum of height and width.
    """
    height, width = size
    scale = min(1.0, (most / (height * width)) ** 0.5, side / max(size))
    return max(1, round(scale * height)), max(1, round(scale * width))


def _require_bytes(path: Path, limits: Limits, *, kind: str) -> None:
    check_input_file(path, kind=kind)
    megabytes = path.stat().st_size / 1e6
    if megabytes > limits.max_megabytes:
        raise UserError(
            f"{path} has {megabytes:.0f} MB, more than {limits.max_megabytes:g}: save it smaller, "
            "or start the page with a larger --max-megabytes"
        )


def _require_pixels(path: Path, width: int, height: int, limits: Limits) -> None:
    megapixels = width * height / 1e6
    if megapixels > limits.max_megapixels:
        raise UserError(
            f"{path} is {width}x{height} pixels, {megapixels:.0f} megapixels and more than "
            f"{limits.max_megapixels:g}: scale it down, or start the page with a larger "
            "--max-megapixels"
        )
