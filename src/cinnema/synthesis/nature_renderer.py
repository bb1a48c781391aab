"""Frames of a nature model at the photograph's own size.

    x_t = x0 + sum_k alpha_k (render_k(t) - plate_k)

as `cinnema.models.nature.rendering` defines it, on 8-bit colours and in strips, by OpenCV. Smooth
fields (displacements, weights, the mean that contrast is corrected around) are computed at the
networks' size and enlarged. No motion gives the photograph, to the bit.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.media.pictures import to_tensor
from cinnema.models.layers import warp
from cinnema.models.nature.motion import KindMotion, Warp
from cinnema.models.nature.rendering import low_pass, retained
from cinnema.synthesis.native import Enlarged, mirrored, strips
from cinnema.synthesis.nature_layers import NativeLayer

_SMALL = 128
"""Width and height of the copy on which the mean under the detail is computed."""


class NatureRenderer:
    """Renders frames of one photograph, which is split into layers once.

    Args:
        pixels: The photograph at the frames' size.
        layers: Its layers.

    Attributes:
        layers: Its layers.
    """

    def __init__(self, pixels: UInt8[np.ndarray, "h w 3"], layers: list[NativeLayer]) -> None:
        self._x0, self.layers = pixels, layers
        self._small = [
            to_tensor(cv2.resize(layer.plate, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA))[None]
            for layer in layers
        ]

    def frame(self, motions: list[KindMotion], times: list[float]) -> UInt8[np.ndarray, "h w 3"]:
        """Render one frame.

        Args:
            motions: Motion of each of `KINDS`, of one video, on the CPU.
            times: Time of each of `KINDS`, in steps.
        """
        out = self._x0.copy()
        drawn = [
            _Drawn(layer, small, motions[layer.kind], times[layer.kind], self._x0.shape[:2])
            for layer, small in zip(self.layers, self._small, strict=True)
        ]
        for rows in strips(*self._x0.shape[:2]):
            changes = [one.change(rows) for one in drawn if one.is_in(rows)]
            if not changes:
                continue
            change = np.zeros(out[rows].shape, np.float32)
            for columns, part in changes:
                change[:, columns] += part
            out[rows] = cv2.add(change, self._x0[rows], dtype=cv2.CV_8U)  # rounds and clips
        return out


@dataclass(frozen=True, eq=False)
class _Texture:
    """One texture of a layer in a frame, as fields that are enlarged strip by strip."""

    places: Enlarged
    weight: Enlarged


class _Drawn:
    """One layer in one frame.

    In levels of 0 ... 255 it is G m + gain base + O, where m is the mean of the warped plates:
    G = gain / sqrt(r) restores the contrast, and O = gain (1 - 1 / sqrt(r)) low(m).
    """

    def __init__(
        self,
        layer: NativeLayer,
        small: Tensor,
        motion: KindMotion,
        time: float,
        size: tuple[int, int],
    ) -> None:
        self._layer, self._size = layer, size
        warps = motion.at(time)
        scale = torch.tensor([size[1], size[0]])[:, None, None]
        self._textures = [
            _Texture(
                self._enlarged(displacement[0] * scale, smooth=True), self._enlarged(weight[0])
            )
            for displacement, weight in warps
        ]
        gain = motion.churn.gain(time)[0]
        sharpen = retained(warps)[0].rsqrt()
        self._gain = self._enlarged(gain) if bool((gain != 1).any()) else None
        self._contrast = self._offset = None
        if len(warps) > 1:
            self._contrast = self._enlarged(sharpen * gain)
            if layer.base is None:
                self._offset = self._enlarged(_offset(small, warps, sharpen, gain))

    def is_in(self, rows: slice) -> bool:
        """Return whether the layer has a share in any of these rows."""
        own = self._layer.rows
        return bool(rows.start < own.stop and own.start < rows.stop)

    def change(self, rows: slice) -> tuple[slice, np.ndarray]:
        """Return the columns that change in some rows, and by how much, in levels."""
        layer = self._layer
        columns = layer.columns
        lit = self._mean(rows)
        contrast = self._contrast or self._gain
        if contrast is not None:
            lit = lit * contrast.rows(rows)[0][..., None]
        if self._offset is not None:
            lit += np.moveaxis(self._offset.rows(rows), 0, -1)
        plate = layer.plate[rows, columns]
        if layer.base is not None:
            base = layer.base[rows, columns].astype(np.float32)
            plate = plate + base
            lit = lit + (base if self._gain is None else base * self._gain.rows(rows)[0][..., None])
        if lit.dtype != np.uint8:
            np.clip(lit, 0, 255, out=lit)
        change = cv2.subtract(lit, plate, dtype=cv2.CV_32F)
        change *= layer.alpha[rows, columns, None]
        return columns, change

    def _mean(self, rows: slice) -> np.ndarray:
        """Return the mean of the warped plates in some rows."""
        mean, total = None, None
        for texture in self._textures:
            warped = self._warped(rows, texture.places)
            share = np.ascontiguousarray(texture.weight.rows(rows)[0])
            if mean is None or total is None:
                mean, total = warped, share
            else:
                mean = np.asarray(cv2.blendLinear(mean, warped, total, share))
                total = total + share
        assert mean is not None
        return mean

    def _warped(self, rows: slice, places: Enlarged) -> np.ndarray:
        height, width = self._size
        x, y = places.rows(rows)
        x += np.arange(width, dtype=np.float32)[self._layer.columns]
        y += np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        x, y = mirrored(x, width), mirrored(y, height)
        plate = self._layer.plate
        return np.asarray(cv2.remap(plate, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))

    def _enlarged(self, field: Tensor, *, smooth: bool = False) -> Enlarged:
        columns = self._layer.columns
        return Enlarged(
            field, self._size, mode="bicubic" if smooth else "bilinear", columns=columns
        )


def _offset(small: Tensor, warps: list[Warp], sharpen: Tensor, gain: Tensor) -> Tensor:
    """Return O of `_Drawn` at the networks' size."""

    def enlarged(x: Tensor) -> Tensor:
        return functional.interpolate(x, (_SMALL, _SMALL), mode="bilinear", align_corners=False)

    mean = torch.zeros_like(small)
    for displacement, weight in warps:
        mean = mean + enlarged(weight) * warp(small, displacement)
    levels = (low_pass(mean) + 1) * 127.5
    out: Tensor = levels[0] * enlarged((gain * (1 - sharpen))[None])[0]
    return out
