"""Augmentation of clips: one draw for all frames of a clip and its control.

Frames stay 8 bit and all colour changes are one matrix, so augmenting a clip costs less than
decoding it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from types import MappingProxyType
from typing import Annotated

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cinnema.core.errors import UserError
from cinnema.data.records import Control

_PICTURE_SIZES = "picture sizes"

# Luma (Rec. 601) and the two chroma axes of YIQ: greys have no chroma, and rotating the chroma does
# not change the luma.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """Strength of the augmentation; the default changes nothing.

    Attributes:
        mirror: Probability that a clip is mirrored left to right, with its control.
        strides: A window takes every s-th frame of its clip, s drawn from these: (1, 2) plays half
            of the windows at double speed.
        brightness: Largest change of the factor on all levels, in [0, 1]: 0.1 draws a factor from
            0.9 to 1.1.
        contrast: Largest change of the factor on the distance from the clip's mean grey, in [0, 1].
        saturation: Largest change of the factor on the distance from grey, in [0, 1].
        hue: Largest rotation of the colours, as a fraction of the full circle, in [0, 0.5].
        enlarge: Factor of at least 1 by which frames are enlarged before a square of the requested
            size is cut out at a random place. Data packed at that larger size are not resampled.

    Example:
        >>> Augmentation(mirror=0.5, strides=(1, 2)).draw(np.random.default_rng(1)).stride
        2
    """

    mirror: float = Field(default=0.0, ge=0, le=1)
    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    brightness: float = Field(default=0.0, ge=0, le=1)
    contrast: float = Field(default=0.0, ge=0, le=1)
    saturation: float = Field(default=0.0, ge=0, le=1)
    hue: float = Field(default=0.0, ge=0, le=0.5)
    enlarge: float = Field(default=1.0, ge=1, le=4)

    def draw(self, generator: np.random.Generator) -> "Variation":
        """Draw the augmentation of one clip.

        The number of draws is always the same, so changing one amount does not change the others'
        draws.

        Args:
            generator: Random generator of the draws.
        """
        chance, speed, left, top = generator.random(4).tolist()
        brightness, contrast, saturation, hue = generator.uniform(-1, 1, 4).tolist()
        return Variation(
            mirrored=chance < self.mirror,
            stride=self.strides[int(speed * len(self.strides))],
            brightness=1 + self.brightness * brightness,
            contrast=1 + self.contrast * contrast,
            saturation=1 + self.saturation * saturation,
            hue=self.hue * hue,
            enlarge=self.enlarge,
            corner=(left, top),
        )

    def check_control(self, control: Control | None) -> None:
        """Raise an error if a control cannot be augmented with the pictures.

        Args:
            control: The data set's control.

        Raises:
            UserError: The control is a position in the picture, and pictures are cropped.
        """
        if control is None or control.kind == "velocity" or control.unit != _PICTURE_SIZES:
            return
        if self.enlarge > 1:
            raise UserError(
                f"the control {control.name} is a position in the picture, which a crop moves; "
                f"enlarge must be 1, got {self.enlarge:g}: omit it"
            )


@plain_dataclass(frozen=True, kw_only=True)
class Variation:
    """The augmentation of one clip, drawn from an `Augmentation`.

    Attributes:
        mirrored: Whether left and right are exchanged.
        stride: s: the window takes every s-th frame of its clip; at least 1.
        brightness: Factor on all levels.
        contrast: Factor on the distance from the clip's mean grey.
        saturation: Factor on the distance from grey.
        hue: Rotation of the colours, as a fraction of the full circle.
        enlarge: Factor by which frames are enlarged before the crop, at least 1.
        corner: Position of the crop, (x, y) in [0, 1): 0 is the left or upper edge.
    """

    mirrored: bool = False
    stride: int = 1
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    enlarge: float = 1.0
    corner: tuple[float, float] = (0.0, 0.0)

    def frames(
        self, frames: UInt8[np.ndarray, "t h w 3"], *, size: int
    ) -> UInt8[np.ndarray, "t s s 3"]:
        """Return the frames resized, cropped, mirrored and recoloured, all in the same way.

        Args:
            frames: Frames of one clip, RGB; the aspect ratio is not kept.
            size: New width and height in pixels.
        """
        frames = self._crop(frames, size)
        # All frames stacked into one tall picture: mirroring and colours act row by row.
        tall = np.ascontiguousarray(frames).reshape(-1, size, 3)
        if self.mirrored:
            tall = cv2.flip(tall, 1).astype(np.uint8, copy=False)
        return self._recolour(tall).reshape(frames.shape)

    def control(
        self, value: Float32[np.ndarray, "e"], control: Control, *, size: int
    ) -> Float32[np.ndarray, "e"]:
        """Return the control of the augmented clip.

        A velocity in picture sizes grows as the picture is enlarged; a position in metres does not.

        Args:
            value: The control of the original clip, over the frames of the window.
            control: Description of the control.
            size: Width and height of the new frames in pixels.
        """
        if control.kind == "velocity" and control.unit == _PICTURE_SIZES:
            value = value * np.float32(self._enlarged(size) / size)
        return control.mirrored(value) if self.mirrored else value

    def _enlarged(self, size: int) -> int:
        """Return the width and height in pixels of the picture from which the square is cut."""
        return round(size * self.enlarge)

    def _crop(
        self, frames: UInt8[np.ndarray, "t h w 3"], size: int
    ) -> UInt8[np.ndarray, "t s s 3"]:
        side = self._enlarged(size)
        if frames.shape[1:3] != (side, side):
            # INTER_AREA shrinks without aliasing, but enlarges without smoothing.
            method = cv2.INTER_AREA if side < min(frames.shape[1:3]) else cv2.INTER_LINEAR
            frames = np.stack(
                [cv2.resize(frame, (side, side), interpolation=method) for frame in frames]
            ).astype(np.uint8, copy=False)
        left, top = (int(share * (side - size + 1)) for share in self.corner)
        return frames[:, top : top + size, left : left + size]

    def _recolour(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Change the colours by one matrix and an offset, to within one level.

        torchvision's jitter clips to [0, 255] and rounds after each of its four steps, in random
        order; this clips and rounds once. It rotates hues in HSV, this in YIQ, keeping the luma.
        """
        if (self.brightness, self.contrast, self.saturation, self.hue) == (1.0, 1.0, 1.0, 0.0):
            return picture
        grey = float(_YIQ[0] @ np.array(cv2.mean(picture)[:3]))
        matrix = self.brightness * self.contrast * _turn_colours(self.saturation, self.hue)
        offset = np.full((3, 1), (1 - self.contrast) * self.brightness * grey)
        return cv2.transform(picture, np.hstack([matrix, offset])).astype(np.uint8, copy=False)


def _turn_colours(saturation: float, hue: float) -> Float64[np.ndarray, "3 3"]:
    """Return the RGB matrix that scales chroma by `saturation` and rotates it by `hue` circles."""
    cos, sin = saturation * math.cos(math.tau * hue), saturation * math.sin(math.tau * hue)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    matrix: Float64[np.ndarray, "3 3"] = np.linalg.solve(_YIQ, turn @ _YIQ)
    return matrix


def _jitter(amount: float, *, hue: float = 0.0, enlarge: float = 1.0) -> Augmentation:
    return Augmentation(
        mirror=0.5,
        brightness=amount,
        contrast=amount,
        saturation=amount,
        hue=hue,
        enlarge=enlarge,
    )


PAPER: Mapping[str, Augmentation] = MappingProxyType(
    {
        "bair": _jitter(0.1),
        "iper": _jitter(0.2),
        "landscape": _jitter(0.3, hue=0.15, enlarge=144 / 128),
        "dtdb": _jitter(0.3, hue=0.15, enlarge=144 / 128),
    }
)
"""Augmentation of the paper's models by data set; 144 / 128 is resized over cropped size."""
