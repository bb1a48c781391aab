"""What users hand in, photographs and masks of them, as arrays of the size that is wanted."""

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from cinnema.core.errors import UserError
from cinnema.media.pictures import MIN_SIDE, check_size, read_mask, read_picture, to_pixels

Photograph: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
"""A file, a PIL image, uint8 (height, width, 3), or a float tensor (3, height, width) in [-1, 1]"""

Mask: TypeAlias = str | Path | np.ndarray
"""A file, or (height, width): bool, uint8 up to 255, or floating in [0, 1]"""

_NAME = Path("the photograph")  # what messages call one that has no file


def photograph_pixels(photograph: Photograph) -> UInt8[np.ndarray, "h w 3"]:
    """Return a photograph's pixels.

    Args:
        photograph: A file; a PIL image of 8 bits (turned upright, transparency over white);
            an array; or a tensor on any device.

    Returns:
        sRGB colours, uint8.

    Raises:
        UserError: It is none of these, too small (under 16 px on a side) or too large (over
            100 megapixels), or has values out of range.
    """
    if isinstance(photograph, str | Path):
        return read_picture(photograph).pixels
    if isinstance(photograph, Image.Image):
        pixels = _from_pil(photograph)
    elif isinstance(photograph, Tensor):
        pixels = _from_tensor(photograph)
    else:
        pixels = _from_array(photograph)
    check_size(pixels.shape[1], pixels.shape[0], _NAME, min_side=MIN_SIDE)
    return pixels


def still_mask(mask: Mask, size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Return a mask of what must stay still, 1 there and 0 elsewhere.

    Args:
        mask: A file or an array.
        size: The photograph's height and width, which the mask must have too.

    Raises:
        UserError: The file is no picture; another size or type; values out of range.
    """
    if isinstance(mask, str | Path):
        return np.array(read_mask(mask, size))
    if mask.shape != size:
        raise UserError(
            f"keep_still: must have the photograph's height and width {size}, got {mask.shape}: "
            "draw it at the photograph's size"
        )
    if mask.dtype == np.uint8:
        return mask.astype(np.float32) / np.float32(255)
    levels = mask.astype(np.float32)
    if mask.dtype.kind not in "bf" or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise UserError(
            f"keep_still: must be bool, uint8 or floating in [0, 1], got {mask.dtype} from "
            f"{levels.min():g} to {levels.max():g}: scale it first"
        )
    return levels


def resized(pixels: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int]) -> np.ndarray:
    """Scale to a height and width, averaging where it shrinks, whatever the aspect."""
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(image)  # PIL widens the bicubic's support when it shrinks: no aliasing


def as_seen(pixels: UInt8[np.ndarray, "_ _ 3"], size: int) -> np.ndarray:
    """Scale to the square that the networks see, by the average that they were trained on."""
    if min(pixels.shape[:2]) < size:  # OpenCV's average would sample where one side grows
        return resized(pixels, (size, size))
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA))


def resized_mask(mask: Float32[np.ndarray, "_ _"], size: tuple[int, int]) -> np.ndarray:
    """Scale a mask to a height and width."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image).clip(0, 1)


def as_mask_tensor(mask: Float32[np.ndarray, "_ _"], size: int) -> Tensor:
    """Return a mask at the networks' size, (1, 1, size, size)."""
    return torch.from_numpy(resized_mask(mask, (size, size)))[None, None]


def _from_pil(image: Image.Image) -> np.ndarray:
    check_size(image.width, image.height, _NAME, min_side=MIN_SIDE)
    if image.mode[0] in "IF":
        raise UserError(
            f"the photograph is a PIL image of mode {image.mode}, only those of 8 bits are taken: "
            "convert it to RGB, or name its file"
        )
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    return np.array(image.convert("RGB"))


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
