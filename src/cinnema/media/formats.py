"""Which files hold pictures and videos, and how large and fast these may be.

Nothing heavy is imported here, so that the command line can refuse a file or an option at once.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from cinnema.core.errors import UserError

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic",
    ".heif", ".hif",
)  # fmt: skip
"""The suffixes of the pictures that are taken from a folder, in lower case."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
"""The suffixes of files that hold a video and never a picture, in lower case."""

VIDEO_FORMATS = ("mp4", "gif", "webp", "png", "npy")
"""The formats that videos are written in: suffixes without their dot."""

MIN_SIDE = 16
"""Least height and width of a photograph, in pixels."""
MAX_SIDE = 16_384
"""Greatest height and width of a picture or video, in pixels."""
MAX_PIXELS = 100_000_000
"""Greatest area of a picture or of a video's frames."""

DEFAULT_FPS = 25.0
"""Frame rate of frame folders, arrays and pictures, which carry none."""
MAX_FPS = 240.0
MAX_GIF_FPS = 50.0  # players slow faster ones down


def check_size(width: int, height: int, path: Path, *, min_side: int = 1) -> None:
    """Raise a UserError if a picture or video is too small or too large.

    Args:
        width: In pixels.
        height: In pixels.
        path: The file, for the message.
        min_side: Least width and height, in pixels.
    """
    size = f"{path} is {width}x{height} pixels"
    if min(width, height) < min_side:
        raise UserError(f"{size}, less than {min_side} on a side: use a larger picture")
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{size}, more than {MAX_SIDE} on a side: scale it down first")
    if width * height > MAX_PIXELS:
        raise UserError(f"{size}, over {MAX_PIXELS // 10**6} megapixels: scale it down first")


MOTION_SUFFIX = ".nu.safetensors"
"""The ending of motion files, which commands write beside their videos."""


def generated_in(names: Iterable[str]) -> set[str]:
    """Return the files of a folder that commands have written, by the files that they are with.

    Beside a video, or a folder of frames, `sky_s0_00` a command writes `sky_s0_00.json` and
    `sky_s0_00.nu.safetensors`; and `sky_s0_grid`, with any suffix, shows all of them.

    Args:
        names: Names of all files in the folder.

    Example:
        >>> names = ["a.png", "a_s0_00.mp4", "a_s0_00.json", "a_s0_00.nu.safetensors"]
        >>> "a_s0_grid.png" in generated_in([*names, "a_s0_grid.png"])
        True
    """
    present = set(names)
    stems = {name.removesuffix(MOTION_SUFFIX) for name in present if name.endswith(MOTION_SUFFIX)}
    samples = {stem for stem in stems if f"{stem}.json" in present and re.search(r"_\d{2,}$", stem)}
    shown = samples | {f"{stem.rpartition('_')[0]}_grid" for stem in samples}
    files = {f"{stem}{MOTION_SUFFIX}" for stem in samples}
    return files | {name for name in present if Path(name).stem in shown}


def find_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """Replace folders by the pictures in them, and keep the order otherwise.

    Args:
        paths: Files, returned unchecked, and folders, of which the visible files with a suffix of
            `PICTURE_SUFFIXES` are taken, in natural order (2 before 10). Subfolders are not
            searched.

    Returns:
        The files.

    Raises:
        UserError: A folder holds no picture, or cannot be listed.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        found += pictures_in(path) if path.is_dir() else [path]
    return found


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in natural order.

    Args:
        folder: The folder; its subfolders are not searched.

    Returns:
        At least one path.

    Raises:
        UserError: The folder holds no picture, or cannot be listed.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): check its rights") from None
    pictures = [
        path
        for path in entries
        if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "." and not path.is_dir()
    ]
    if not pictures:
        kinds = ", ".join(PICTURE_SUFFIXES)
        raise UserError(f"{folder} holds no picture ({kinds}): name another folder or a file")
    return sorted(pictures, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), part) if part.isdigit() else (-1, part.lower()) for part in parts]
