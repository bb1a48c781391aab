"""Photographs and masks: read from files, scaled, converted between pixels and tensors."""

import os
import re
import struct
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import cv2
import numpy as np
import pi_heif
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path, check_input_file
from cinnema.media.colour import ColourSpace, are_primaries, colour_space, to_srgb
from cinnema.media.formats import MAX_PIXELS, MIN_SIDE, check_size

# JPEG covers the MPO that phones write. Formats that run code (EPS) are left out.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "HEIF")
# What Pillow raises for a damaged file depends on the format.
DAMAGE = (
    OSError, SyntaxError, ValueError, IndexError, TypeError, EOFError, RuntimeError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip

_SRGB_GAMMA = 0.45455
_PNG = b"\x89PNG\r\n\x1a\n"
_AVIF_HEAD = 1 << 16  # bytes in which boxes about the picture lie

pi_heif.register_heif_opener()  # what iPhones write; Pillow reads the rest itself

Photograph: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
"""A file, a PIL image, uint8 (height, width, 3), or a float tensor (3, height, width) in [-1, 1]"""

Mask: TypeAlias = str | Path | np.ndarray
"""A file, or (height, width): bool, uint8 up to 255, or floating in [0, 1]"""

_NAME = Path("the photograph")  # what messages call a photograph that is not a file


def read_photograph(
    photograph: Photograph, *, min_side: int = MIN_SIDE
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of a photograph.

    Files and PIL images: the EXIF orientation is applied; colours are converted to sRGB by the
    profile, or what else the file says of them (cICP, gAMA and cHRM of PNG, code points of AVIF and
    HEIC); 16-bit greys are scaled to 8 bits; transparent parts are laid over **white**, as a page
    would show them. Of an animation the first frame is taken.

    Args:
        photograph: A file (JPEG, PNG, WebP, BMP, TIFF, AVIF, HEIC); a PIL image; uint8 of shape
            (height, width, 3); or a floating tensor (3, height, width) in [-1, 1] on any device.
        min_side: Least height and width, in pixels.

    Returns:
        sRGB colours, uint8.

    Raises:
        UserError: The file is missing, a folder, empty, cut short or not a picture; the photograph
            is of another type, or has values out of range; a side is shorter than `min_side` or
            longer than 16384 px, or the picture has over 100 megapixels (of files, both are read
            from the header, before anything is decoded).

    Example:
        >>> x0 = to_tensor(read_photograph("beach.jpg"))
    """
    if isinstance(photograph, str | Path):
        path = Path(photograph)
        return srgb_of(_load(path, kind="a picture", min_side=min_side), path)
    if isinstance(photograph, Image.Image):
        check_size(photograph.width, photograph.height, _NAME, min_side=min_side)
        return srgb_of(_decode(photograph, _NAME), _NAME)
    pixels = _from_tensor(photograph) if isinstance(photograph, Tensor) else _from_array(photograph)
    check_size(pixels.shape[1], pixels.shape[0], _NAME, min_side=min_side)
    return pixels


def read_mask(
    mask: Mask, size: tuple[int, int], *, name: str = "keep_still"
) -> Float32[np.ndarray, "h w"]:
    """Return a mask drawn over a photograph: 0 where it is black, 1 where it is white.

    Args:
        mask: A picture file, of which colours count by their luma and transparent parts as black;
            or an array (height, width): bool, uint8 up to 255, or floating in [0, 1].
        size: Height and width of the photograph, which the mask must have too.
        name: Name of the argument, for messages about arrays.

    Returns:
        The mask, in [0, 1].

    Raises:
        UserError: The file is not a picture; the mask has another size, type or range.
    """
    if not isinstance(mask, str | Path):
        return _mask_from_array(mask, size, name)
    path = Path(mask)
    image = _load(path, kind="a mask", min_side=1)
    if (image.height, image.width) != size:
        raise UserError(
            f"{path} is {image.width}x{image.height} pixels, the photograph {size[1]}x{size[0]}: "
            "save the mask at the photograph's size"
        )
    image = _to_8_bits(image, path)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def to_tensor(pixels: UInt8[np.ndarray, "*batch h w 3"]) -> Float[Tensor, "*batch 3 h w"]:
    """Map pixels from 0 ... 255 to [-1, 1], channels first: 2 v / 255 - 1.

    Args:
        pixels: A picture, or the frames of a video.

    Returns:
        float32; `to_pixels` gives back exactly `pixels`.
    """
    channels_first = np.ascontiguousarray(np.moveaxis(pixels, -1, -3))
    return torch.from_numpy(channels_first).float().div_(127.5).sub_(1)


def to_pixels(x: Float[Tensor, "*batch 3 h w"]) -> UInt8[np.ndarray, "*batch h w 3"]:
    """Map a tensor from [-1, 1] to pixels, channels last: round(255 (v + 1) / 2), clamped.

    Args:
        x: A picture, or the frames of a video, on any device; values beyond [-1, 1] are clamped.

    Returns:
        A new array.
    """
    levels = x.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to("cpu", torch.uint8).movedim(-3, -1).contiguous().numpy()


def resize(pixels: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int]) -> np.ndarray:
    """Resize a picture bicubically, with a low-pass filter where it shrinks.

    Args:
        pixels: A picture.
        size: Height and width of the result, in pixels, of any aspect ratio.
    """
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(image)


def resize_for_model(pixels: UInt8[np.ndarray, "_ _ 3"], size: int) -> np.ndarray:
    """Resize a picture to the square that a model takes, by area averages as in its training.

    Args:
        pixels: A picture of any aspect ratio.
        size: Height and width of the result, in pixels.
    """
    if min(pixels.shape[:2]) < size:  # OpenCV's area average does not enlarge
        return resize(pixels, (size, size))
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA))


def resize_mask(mask: Float32[np.ndarray, "_ _"], size: tuple[int, int]) -> np.ndarray:
    """Resize a mask bilinearly to a height and width."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).clip(0, 1)


def write_picture(
    path: Path, pixels: UInt8[np.ndarray, "_ _ 3"], *, overwrite: bool = False
) -> Path:
    """Write a PNG file, which appears under its name when it is complete.

    Args:
        path: The file.
        pixels: Its pixels.
        overwrite: Whether an existing file may be replaced.

    Returns:
        The file.

    Raises:
        UserError: The file exists or cannot be written, or the disk is full.
    """
    with atomic_path(path, overwrite=overwrite) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")
    return path


def open_picture(path: Path, *, kind: str) -> Image.Image:
    """Read the header of a picture file and check the size that it gives.

    Args:
        path: The file.
        kind: What it should be, with its article ("a picture"), for messages.

    Returns:
        The image, not decoded yet.

    Raises:
        UserError: The file is missing, a folder, empty, not a picture, or too large.
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
    except DAMAGE:
        raise UserError(
            f"{path} is not {kind} that can be read: use a JPEG, PNG, WebP, BMP, TIFF, AVIF or "
            "HEIC file"
        ) from None
    try:
        check_size(image.width, image.height, path)
    except UserError:
        image.close()
        raise
    return image


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for a file with a valid header whose content cannot be decoded."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"{path} is damaged or cut short ({reason}): copy or download it again, or use another file"
    )


def _load(path: Path, *, kind: str, min_side: int) -> Image.Image:
    """Open, check, decode and turn upright."""
    with open_picture(path, kind=kind) as image:
        check_size(image.width, image.height, path, min_side=min_side)
        return _decode(image, path)


def _decode(image: Image.Image, path: Path) -> Image.Image:
    """Decode and turn upright; what the file says of its colours goes into `info`."""
    try:
        image.load()
    except DAMAGE as error:
        raise damaged(path, error) from error
    points = _code_points(image)
    if points and (image.format == "PNG" or not image.info.get("icc_profile")):
        image.info["code_points"] = points
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getbbox() is None:
        image = image.convert("RGB")  # the fourth byte is unused, as most programs leave it 0
    with suppress(*DAMAGE):  # a damaged EXIF block is no reason to refuse the photograph
        return ImageOps.exif_transpose(image)
    return image.copy()


def _code_points(image: Image.Image) -> tuple[int, int] | None:
    """Return primaries and transfer by H.273, if the file states them; Pillow reads only HEIC's."""
    if image.format == "HEIF":
        nclx = image.info.get("nclx_profile") or {}
        return nclx.get("color_primaries", 2), nclx.get("transfer_characteristics", 2)
    path = getattr(image, "filename", "")
    if image.format not in ("PNG", "AVIF") or not os.path.isfile(path):  # noqa: PTH113 - or bytes
        return None
    with open(path, "rb") as file:  # noqa: PTH123
        return _cicp(file) if image.format == "PNG" else _colr(file)


def is_animated(path: Path) -> bool:
    """Return whether a PNG or WebP file has more than one frame; only its header is read.

    Raises:
        UserError: It is none of these.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(21)
        if head[:8] == _PNG:
            return _png_chunk(file, b"acTL") is not None
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return head[12:16] == b"VP8X" and bool(head[20] & 2)
    raise UserError(f"{path} is neither a PNG nor a WebP file: use another file")


def _cicp(file: BinaryIO) -> tuple[int, int] | None:
    """Return primaries and transfer of a PNG's cICP chunk."""
    content = _png_chunk(file, b"cICP")
    return (content[0], content[1]) if content and len(content) > 1 else None


def _png_chunk(file: BinaryIO, kind: bytes) -> bytes | None:
    """Return the first bytes of a chunk before the pixels; None if there is none."""
    file.seek(len(_PNG))
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        if head[4:] == kind:
            return file.read(4)
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return None


def _colr(file: BinaryIO) -> tuple[int, int] | None:
    """Return primaries and transfer of an AVIF's colour box."""
    _, _, box = file.read(_AVIF_HEAD).partition(b"colrnclx")
    return struct.unpack_from(">2H", box) if len(box) >= 4 else None


def srgb_of(image: Image.Image, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Return sRGB pixels of 8 bits, with transparent parts over white.

    Args:
        image: A decoded picture.
        path: Its file, for messages.
    """
    image = _to_8_bits(image, path)
    if not image.has_transparency_data:
        return _to_srgb(image)
    layers = image.convert("RGBA")
    colours = image.convert("L") if image.mode == "LA" else layers.convert("RGB")
    colours.info = image.info
    return over_white(_to_srgb(colours), np.asarray(layers.getchannel("A")))


def over_white(
    colours: UInt8[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Lay a picture over white.

    Args:
        colours: Not multiplied by `alpha`.
        alpha: Opacity, up to 255.
    """
    opacity = alpha[..., None].astype(np.uint16)
    return ((colours * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale greys of 16 bits to 8, where Pillow's own conversion would clip them at 255."""
    if image.mode[0] not in "IF":
        return image
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() > 65_535:
        raise UserError(f"{path} has greys of 32 bits, at most 16 are read: save it with 8 or 16")
    return Image.fromarray(np.round(levels / 257.0).astype(np.uint8))


def _to_srgb(image: Image.Image) -> np.ndarray:
    """Convert by what the file says of its colours: code points, a profile, or PNG's gAMA, cHRM."""
    info = image.info
    space = _png_space(info)
    if "code_points" in info:
        space = colour_space(*info["code_points"])
    elif info.get("icc_profile"):
        image, space = _by_profile(image), ColourSpace()
    rgb = np.array(image.convert("RGB"))
    return rgb if space.is_srgb else to_srgb(rgb * np.uint16(257), space)


def _by_profile(image: Image.Image) -> Image.Image:
    """Convert by the embedded profile (phones: Display P3; print: CMYK; scans: grey)."""
    with suppress(ImageCms.PyCMSError, OSError, ValueError):  # one that does not fit is ignored
        source = ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"]))
        if source.profile.xcolor_space.strip() == "RGB" and image.mode != "RGB":
            image = image.convert("RGB")  # of a palette, or stored as grey
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        return converted if converted is not None else image
    return image


def _png_space(info: dict[Any, Any]) -> ColourSpace:
    """Return the colour space of a PNG's gAMA and cHRM chunks."""
    gamma = info.get("gamma")
    if not isinstance(gamma, float) or "srgb" in info or not 0.1 < gamma < 10:
        return ColourSpace()
    points = tuple(info.get("chromaticity", ()))
    xy = (*points[2:], *points[:2])  # white comes first in the file
    if len(xy) != 8 or not are_primaries(xy):
        xy = ColourSpace().chromaticities
    if abs(gamma - _SRGB_GAMMA) < 0.01:
        return ColourSpace(xy)
    return ColourSpace(xy, 1 / gamma, is_exponent=True)


def _from_tensor(x0: Tensor) -> np.ndarray:
    if x0.ndim != 3 or x0.shape[0] != 3 or not x0.is_floating_point():
        raise UserError(
            f"the photograph: a tensor must be floating, (3, height, width), got {x0.dtype}, "
            f"{tuple(x0.shape)}: give one picture, channels first"
        )
    x0 = x0.detach().float()
    if not bool((x0.abs() <= 1 + 1e-3).all()):  # false for NaN, too
        raise UserError(
            f"the photograph: a tensor's values must be in [-1, 1], got {x0.min():g} to "
            f"{x0.max():g}: scale it, or give uint8 pixels"
        )
    return to_pixels(x0)


def _from_array(pixels: object) -> np.ndarray:
    if not isinstance(pixels, np.ndarray):
        raise UserError(
            f"the photograph: must be a file, a PIL image, an array or a tensor, got "
            f"{type(pixels).__name__}: name its file"
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"the photograph: an array must be uint8, (height, width, 3), got {pixels.dtype}, "
            f"{pixels.shape}: convert it to 8-bit RGB"
        )
    return pixels


def _mask_from_array(mask: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    if mask.shape != size:
        raise UserError(
            f"{name}: must have the photograph's height and width {size}, got {mask.shape}: "
            "draw it at the photograph's size"
        )
    if mask.dtype == np.uint8:
        return mask.astype(np.float32) / np.float32(255)
    levels = mask.astype(np.float32)
    if mask.dtype.kind not in "bf" or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise UserError(
            f"{name}: must be bool, uint8 or floating in [0, 1], got {mask.dtype} from "
            f"{levels.min():g} to {levels.max():g}: scale it first"
        )
    return levels
