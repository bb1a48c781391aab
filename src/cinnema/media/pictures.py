"""Photographs from files, as arrays and as tensors."""

import re
import struct
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""The suffixes by which a folder's pictures are known, in lower case."""

MIN_SIDE = 16
MAX_SIDE = 16_384
MAX_PIXELS = 100_000_000

# JPEG covers the MPO that phones write. Formats that run code (EPS) are left out.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# What Pillow raises for a damaged file depends on the format.
_DAMAGE = (OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, struct.error)


@dataclass(frozen=True)
class Picture:
    """A photograph as read from its file, turned upright.

    Attributes:
        pixels: sRGB colours, uint8, (height, width, 3).
        alpha: opacity, uint8, (height, width), or None where the picture is opaque throughout.
        path: the file.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None
    path: Path

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, in this order."""
        height, width, _ = self.pixels.shape
        return height, width


def read_picture(path: str | Path, *, min_side: int = MIN_SIDE) -> Picture:
    """Read a photograph: JPEG, PNG, WebP, BMP or TIFF (of an animation, the first frame).

    The EXIF orientation is applied, an embedded colour profile is converted to sRGB, 16-bit greys
    are scaled to 8 bits. Transparent parts: `pixels` shows the colour over **white**, as a page
    would, and `alpha` keeps the opacity.

    Args:
        path: the file.
        min_side: the smallest height and width taken, in pixels.

    Returns:
        The picture.

    Raises:
        UserError: the file is missing, a folder, empty, cut short or no picture; a side is less
            than `min_side` or more than 16384 px, or the picture has over 100 megapixels (both are
            told from the header, before anything is decoded).

    Example:
        >>> picture = read_picture("beach.jpg")
        >>> x0 = to_tensor(picture.pixels)
    """
    path = Path(path)
    image = _to_8_bits(_load(path, kind="a picture", min_side=min_side), path)
    alpha = None
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        image = _over(image, "white")
    pixels = np.array(_to_srgb(image))
    opaque = alpha is None or bool((alpha == 255).all())
    return Picture(pixels=pixels, alpha=None if opaque else alpha, path=path)


def read_mask(path: str | Path, size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Read a mask drawn over a photograph: black is 0, white is 1, transparent counts as black.

    Args:
        path: the mask's file, any picture that `read_picture` takes; colours count by their luma.
        size: the photograph's height and width, which the mask must have too.

    Returns:
        The mask, float32 in [0, 1], (height, width).

    Raises:
        UserError: the file is no picture, or of another size than the photograph.
    """
    path = Path(path)
    image = _load(path, kind="a mask", min_side=1)
    if (image.height, image.width) != size:
        raise UserError(
            f"{path} is {image.width}x{image.height} pixels, the photograph {size[1]}x{size[0]}: "
            "save the mask at the photograph's size"
        )
    image = _to_8_bits(image, path)
    if image.has_transparency_data:
        image = _over(image, "black")
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def find_pictures(paths: Iterable[str | Path]) -> list[Path]:
    """Replace folders by the pictures in them, and keep the order otherwise.

    Args:
        paths: files, taken as they are (they may turn out missing when read), and folders, of
            which the visible files with a suffix of `PICTURE_SUFFIXES` are taken, by name in
            natural order (2 before 10). Folders inside are not entered.

    Returns:
        The files.

    Raises:
        UserError: a folder has no picture, or may not be listed.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        found += pictures_in(path) if path.is_dir() else [path]
    return found


def pictures_in(folder: Path) -> list[Path]:
    """Return a folder's pictures in natural order.

    Args:
        folder: the folder; folders inside are not entered.

    Returns:
        At least one path.

    Raises:
        UserError: there is none, or the folder may not be listed.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}): check its rights") from None
    pictures = [
        path
        for path in entries
        if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "." and path.is_file()
    ]
    if not pictures:
        kinds = ", ".join(PICTURE_SUFFIXES)
        raise UserError(f"{folder} holds no picture ({kinds}): name another folder or a file")
    return sorted(pictures, key=_natural_order)


def to_tensor(pixels: UInt8[np.ndarray, "*batch h w 3"]) -> Float[Tensor, "*batch 3 h w"]:
    """Map pixels from 0 ... 255 to [-1, 1], channels first: 2 v / 255 - 1.

    Args:
        pixels: uint8, (..., height, width, 3); a picture, or the frames of a video.

    Returns:
        float32, (..., 3, height, width). `to_pixels` gives back exactly `pixels`.
    """
    channels_first = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    return torch.from_numpy(channels_first).float().div_(127.5).sub_(1)


def to_pixels(x: Float[Tensor, "*batch 3 h w"]) -> UInt8[np.ndarray, "*batch h w 3"]:
    """Map a tensor from [-1, 1] to pixels, channels last: round(255 (v + 1) / 2), clamped.

    Args:
        x: floating, (..., 3, height, width), on any device; values beyond [-1, 1] are clamped.

    Returns:
        uint8, (..., height, width, 3), in memory of its own.
    """
    levels = x.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to("cpu", torch.uint8).movedim(-3, -1).contiguous().numpy()


def check_size(width: int, height: int, path: Path, *, min_side: int = 1) -> None:
    """Raise a UserError unless a picture or video of this size, in pixels, can be worked with."""
    size = f"{path} is {width}x{height} pixels"
    if min(width, height) < min_side:
        raise UserError(f"{size}, less than {min_side} on a side: use a larger picture")
    if max(width, height) > MAX_SIDE:
        raise UserError(f"{size}, more than {MAX_SIDE} on a side: scale it down first")
    if width * height > MAX_PIXELS:
        raise UserError(f"{size}, over {MAX_PIXELS // 10**6} megapixels: scale it down first")


def open_picture(path: Path, *, kind: str) -> Image.Image:
    """Open a picture by its header alone and check its size from there.

    Args:
        path: the file.
        kind: what it should be, with its article ("a picture"), for messages.

    Returns:
        The image, not decoded yet.

    Raises:
        UserError: the file is missing, a folder, empty, no picture, or too large.
    """
    check_input_file(path, kind=kind)
    try:
        with warnings.catch_warnings():  # Pillow warns from 89 megapixels on; our limit is 100
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        megapixels = f"{int(count[0]) / 1e6:.0f}" if count else "far more than 100"
        raise UserError(
            f"{path} has {megapixels} megapixels, over {MAX_PIXELS // 10**6}: scale it down first"
        ) from None
    except _DAMAGE:
        raise UserError(
            f"{path} is not {kind} that can be read: use a JPEG, PNG, WebP, BMP or TIFF file"
        ) from None
    try:
        check_size(image.width, image.height, path)
    except UserError:
        image.close()
        raise
    return image


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for a file whose header is fine but whose content is not."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path} is damaged or cut short ({reason}): copy or download it again, or use another file"
    )


def _load(path: Path, *, kind: str, min_side: int) -> Image.Image:
    """Open, check, decode and turn upright."""
    with open_picture(path, kind=kind) as image:
        check_size(image.width, image.height, path, min_side=min_side)
        try:
            image.load()
        except _DAMAGE as error:
            raise damaged(path, error) from error
        with suppress(*_DAMAGE):  # a damaged EXIF block is no reason to refuse the photograph
            return ImageOps.exif_transpose(image)
        return image.copy()


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale greys of 16 bits to 8, where Pillow's own conversion would clip them at 255."""
    if image.mode[0] not in "IF":
        return image
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65_535:
        raise UserError(f"{path} has greys of 32 bits, at most 16 are read: save it with 8 or 16")
    return Image.fromarray(np.round(levels / 257.0).astype(np.uint8))


def _over(image: Image.Image, background: str) -> Image.Image:
    """Lay a picture with transparent parts over one colour."""
    colours = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, background)
    flat = Image.alpha_composite(paper, colours).convert("RGB")
    flat.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return flat


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB by the embedded profile (phones: Display P3; print: CMYK), if it has one."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK"):
        with suppress(ImageCms.PyCMSError, OSError):  # a profile that does not fit says nothing
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return converted if converted is not None else image.convert("RGB")
    return image.convert("RGB")


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), part) if part.isdigit() else (-1, part.lower()) for part in parts]
