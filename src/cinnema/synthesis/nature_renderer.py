"""Frames of a nature model at the photograph's own size.

    x_t = x0 + sum_k alpha_k (render_k(t) - plate_k)

as `cinnema.models.nature.rendering` defines it, on 8-bit colours and in strips, by OpenCV. Smooth
fields (displacements, weights, the mean that contrast is corrected around) are computed at the
networks' size and enlarged. No motion gives the photograph, to the bit.

Pictures have four channels here, the last of them unused, as OpenCV warps four bytes at once. A
plate is enlarged once and then sampled linearly, which is as sharp as cubic sampling of the plate,
at a quarter of its time. A strip does only what it needs: nothing where no kind has a share, and
no mixing with the photograph where one kind has all of it.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import local
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from cinnema.models.nature.kinds import KINDS
from cinnema.models.nature.motion import GRID, KindMotion, Warp
from cinnema.models.nature.reflection import mirrors, reflected
from cinnema.models.nature.rendering import DETAIL, retained
from cinnema.synthesis.nature_layers import NativeLayer

_SMALL = 128
"""Width and height of the copy on which the mean under the detail is computed."""

_MIRRORED = 64
"""Width and height of the copy on which reflections are computed: they are softer."""

_SKY = KINDS.index("sky")

_STRIP = 1 << 16
"""Pixels of a strip: its buffers of floats fit into a processor's cache."""

_FINE = 4_000_000
"""Pixels of a photograph up to which plates are enlarged."""

_FINE_SIDE = 16_000
"""Height and width up to which they are: OpenCV warps nothing of 32,767 pixels or more."""

_FARTHEST = 50.0
"""Greatest displacement, in picture sizes."""

_HALFWAY = np.array([[-3, 19, 19, -3]], np.float32) / 32
"""Cubic interpolation halfway between two pixels, with OpenCV's constant of -0.75."""


class NatureRenderer:
    """Renders frames of one photograph, which is split into layers once.

    Several threads may render at once, each with buffers of its own.

    Args:
        pixels: The photograph at the frames' size.
        layers: Its layers.

    Attributes:
        layers: Its layers.
    """

    def __init__(self, pixels: UInt8[np.ndarray, "h w 3"], layers: list[NativeLayer]) -> None:
        self._x0 = pixels
        self._strips = _strips(*pixels.shape[:2])
        self._plates = [_Plate(layer, self._x0, self._strips) for layer in layers]
        self.layers = [plate.layer for plate in self._plates]
        self._local = local()

    def frame(
        self,
        motions: list[KindMotion],
        times: list[float],
        out: UInt8[np.ndarray, "h w 3"] | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Render one frame.

        Args:
            motions: Motion of each of `KINDS`, of one video, on the CPU.
            times: Time of each of `KINDS`, in steps.
            out: Where to write it; a new array by default.
        """
        size = self._x0.shape[:2]
        if out is None:
            out = np.empty((*size, 3), np.uint8)
        drawn: list[_Drawn] = []
        for plate in self._plates:
            kind, mirrored = plate.layer.kind, None
            if plate.mirror is not None:
                # Layers come in the order of `KINDS`: the sky is before the water.
                sky = next(layer for layer in drawn if layer.plate.layer.kind == _SKY)
                mirrored = reflected(plate.mirror, sky.small_change())[0]
            drawn.append(_Drawn(plate, motions[kind], times[kind], size, mirrored=mirrored))
        if not hasattr(self._local, "scratch"):
            self._local.scratch = _Scratch()
        for index, rows in enumerate(self._strips):
            strip = self._strip(index, drawn, self._local.scratch)
            if strip is None:
                np.copyto(out[rows], self._x0[rows])
            else:
                cv2.cvtColor(strip, cv2.COLOR_RGBA2RGB, out[rows])
        return out

    def _strip(self, index: int, drawn: list["_Drawn"], scratch: "_Scratch") -> np.ndarray | None:
        """Return the pixels of a strip; None if they are those of the photograph."""
        here = [(one, tile) for one in drawn if (tile := one.plate.tiles[index]) is not None]
        if not here:
            return None
        pixels = self._x0[self._strips[index]]
        x0 = scratch.array("x0", (*pixels.shape[:2], 4), np.uint8)
        cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA, x0)
        out = scratch.array("out", x0.shape, np.uint8)
        first, tile = here[0]
        if len(here) == 1 and tile.is_whole:
            np.copyto(out, x0)
            first.draw(tile, scratch, out[:, tile.columns])
            return out
        change = scratch.array("change", x0.shape, np.float32)
        change.fill(0)
        for one, tile in here:
            one.add_change(tile, scratch, change[:, tile.columns])
        cv2.add(change, x0, dst=out, dtype=cv2.CV_8U)  # rounds and clips
        return out


class _Scratch:
    """Buffers of one thread, which keep their memory from strip to strip."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return an array of undefined content; another of the same name shares its memory."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, dtype)
        return self._buffers[name][:size].reshape(shape)


@dataclass(frozen=True)
class _Tile:
    """The part of a strip in which a layer has a share.

    Attributes:
        rows: Its rows.
        columns: Its columns.
        is_whole: Whether the layer has all of each pixel, and its plate is the photograph.
    """

    rows: slice
    columns: slice
    is_whole: bool


class _Plate:
    """What is warped of one layer, prepared once.

    Args:
        layer: The layer.
        x0: The photograph.
        strips: Rows of each strip.

    Attributes:
        layer: The layer.
        still: What the layer shows without motion, of four channels.
        small: A small copy of the plate.
        to_mirror: A still smaller copy, which water mirrors.
        share_to_mirror: The layer's share there, from 0 to 1.
        mirror: What the layer mirrors, from `mirrors`; None for nothing.
        source: The plate, perhaps enlarged: pixel x of the plate is `scale` x + `shift` of it.
        tiles: The tile of each strip; None where the layer has no share.
    """

    def __init__(
        self, layer: NativeLayer, x0: UInt8[np.ndarray, "h w 3"], strips: list[slice]
    ) -> None:
        plate = _four(layer.plate)
        self.layer = replace(layer, plate=plate[..., :3])  # which takes no memory of its own
        self.still = plate if layer.base is None else _four(x0)
        self.small = _reduced(plate, _SMALL)
        self.to_mirror = _reduced(self.small, _MIRRORED)
        self.share_to_mirror = _reduced(layer.alpha, _MIRRORED)[..., None] / np.float32(255)
        self.mirror = mirrors([layer.reflection], _MIRRORED)
        height, width = plate.shape[:2]
        self.is_fine = height * width <= _FINE and max(height, width) <= _FINE_SIDE
        self.source = _enlarged(plate) if self.is_fine else plate
        self.scale, self.shift = (2, 1) if self.is_fine else (1, 0)
        self.tiles = [self._tile(rows, x0) for rows in strips]

    def _tile(self, rows: slice, x0: np.ndarray) -> _Tile | None:
        alpha = self.layer.alpha[rows]
        used = np.flatnonzero(alpha.max(axis=0))
        if not len(used):
            return None
        columns = slice(int(used[0]), int(used[-1]) + 1)
        is_whole = bool((alpha[:, columns] == 255).all()) and np.array_equal(
            self.still[rows, columns, :3], x0[rows, columns]
        )
        return _Tile(rows, columns, is_whole)


class _Drawn:
    """One layer in one frame.

    In levels of 0 ... 255 it is G m + gain base + O, where m is the mean of the warped plates:
    G = gain / sqrt(r) restores the contrast, and O = gain (1 - 1 / sqrt(r)) low(m), to which water
    adds what it mirrors.
    """

    def __init__(
        self,
        plate: _Plate,
        motion: KindMotion,
        time: float,
        size: tuple[int, int],
        *,
        mirrored: Float[Tensor, "4 m m"] | None = None,
    ) -> None:
        self.plate, self._size = plate, size
        warps = [Warp(_near(warp.displacement), warp.weight) for warp in motion.at(time)]
        self._places = [_positions(warp.displacement, plate, size) for warp in warps]
        self._weights = [_tall(255 * warp.weight[0], size[0], "bilinear") for warp in warps[:-1]]
        gain, sharpen = motion.churn.gain(time)[0], retained(warps)[0].rsqrt()
        self._moved = warps, gain, sharpen
        self._gain = _tall(gain, size[0], "bilinear") if bool((gain != 1).any()) else None
        self._contrast, offset = self._gain, None
        if len(warps) > 1:
            self._contrast = _tall(sharpen * gain, size[0], "bilinear")
            if plate.layer.base is None:
                below = _resized(_array(gain * (1 - sharpen)), (_SMALL, _SMALL))
                offset = _low(_small_mean(plate.small, warps)) * below
        if mirrored is not None:
            reflection = _resized(_array(mirrored), (_SMALL, _SMALL))
            offset = reflection if offset is None else offset + reflection
        self._offset = None if offset is None else self._tall_offset(offset)

    def _tall_offset(self, offset: np.ndarray) -> Float32[np.ndarray, "h s 4"]:
        field = torch.from_numpy(np.moveaxis(offset, -1, 0))
        tall = _tall(field, self._size[0], "bilinear").view(4, self._size[0], _SMALL)
        return np.ascontiguousarray(tall.permute(1, 2, 0).numpy())

    def small_change(self) -> Float[Tensor, "1 4 m m"]:
        """Return the layer's share of what it shows, less of its plate, on a small copy."""
        warps, gain, sharpen = self._moved
        small = self.plate.to_mirror
        lit = _small_mean(small, warps)
        if len(warps) > 1:
            low = _low(lit)
            lit = low + (lit - low) * _resized(_array(sharpen), small.shape[:2])
        if self._gain is not None:
            lit *= _resized(_array(gain), small.shape[:2])
        change = self.plate.share_to_mirror * (lit - small)
        return torch.from_numpy(change).permute(2, 0, 1)[None]

    def draw(self, tile: _Tile, scratch: _Scratch, out: UInt8[np.ndarray, "r c 4"]) -> None:
        """Write what the layer shows."""
        lit, unit = self._lit(tile, scratch)
        cv2.addWeighted(lit, unit, lit, 0, 0, dst=out, dtype=cv2.CV_8U)

    def add_change(
        self, tile: _Tile, scratch: _Scratch, change: Float32[np.ndarray, "r c 4"]
    ) -> None:
        """Add the layer's share of what it shows, less of what it shows without motion."""
        lit, unit = self._lit(tile, scratch)
        still = self.plate.still[tile.rows, tile.columns]
        away = scratch.array("away", lit.shape, np.float32)
        cv2.addWeighted(lit, unit, still, -1, 0, dst=away, dtype=cv2.CV_32F)
        share = scratch.array("share", lit.shape, np.uint8)
        alpha = self.plate.layer.alpha[tile.rows, tile.columns]
        cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGBA, share)
        cv2.multiply(away, share, dst=away, scale=1 / 255, dtype=cv2.CV_32F)
        cv2.add(change, away, dst=change)

    def _lit(self, tile: _Tile, scratch: _Scratch) -> tuple[np.ndarray, float]:
        """Return what the layer shows, and the levels of its unit."""
        lit, unit = self._mean(tile, scratch)
        if self._contrast is not None:
            contrast = self._field(self._contrast, tile, scratch)
            scaled = scratch.array("lit", lit.shape, np.float32)
            cv2.multiply(lit, contrast, dst=scaled, scale=unit, dtype=cv2.CV_32F)
            lit, unit = scaled, 1.0
        if self._offset is not None:
            shape = (*lit.shape[:1], self._size[1], 4)
            offset = scratch.array("field", shape, np.float32)
            cv2.resize(self._offset[tile.rows], shape[1::-1], dst=offset)
            whole = scratch.array("lit", lit.shape, np.float32)
            lit = np.asarray(cv2.add(lit, offset[:, tile.columns], dst=whole, dtype=cv2.CV_32F))
        if self.plate.layer.base is not None:
            lit, unit = self._with_base(lit, unit, tile, scratch), 1.0
        return lit, unit

    def _with_base(
        self, lit: np.ndarray, unit: float, tile: _Tile, scratch: _Scratch
    ) -> np.ndarray:
        base = self.plate.layer.base
        assert base is not None
        under = np.asarray(cv2.cvtColor(base[tile.rows, tile.columns], cv2.COLOR_RGB2RGBA))
        if self._gain is not None:
            gain = self._field(self._gain, tile, scratch)
            under = np.asarray(cv2.multiply(under, gain, dtype=cv2.CV_32F))
        whole = scratch.array("lit", lit.shape, np.float32)
        cv2.addWeighted(lit, unit, under, 1, 0, dst=whole, dtype=cv2.CV_32F)
        return whole

    def _mean(self, tile: _Tile, scratch: _Scratch) -> tuple[np.ndarray, float]:
        """Return the mean of the warped plates, and the levels of its unit."""
        if len(self._places) == 1:
            return self._warped(self._places[0], tile, scratch), 1.0
        shape = (tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start, 4)
        total = scratch.array("lit", shape, np.float32)
        total.fill(0)
        rest = scratch.array("rest", shape, np.uint8)
        rest.fill(255)  # so that weights always add up to 1
        for place, tall in zip(self._places, [*self._weights, None], strict=True):
            weight = rest
            if tall is not None:
                weight = self._weight(tall, tile, scratch)
                cv2.min(weight, rest, dst=weight)
            cv2.accumulateProduct(self._warped(place, tile, scratch), weight, total)
            cv2.subtract(rest, weight, dst=rest)
        return total, 1 / 255

    def _warped(self, place: Tensor, tile: _Tile, scratch: _Scratch) -> np.ndarray:
        plate, basis = self.plate, _across(self._size[1], self.plate.scale, self.plate.shift)
        rows, columns = tile.rows, tile.columns
        num_rows, num_columns = rows.stop - rows.start, columns.stop - columns.start
        map_ = scratch.array("map", (2, num_rows, num_columns), np.float32)
        out = torch.from_numpy(map_).view(2 * num_rows, num_columns)
        torch.mm(place[:, rows].reshape(2 * num_rows, -1), basis[:, columns], out=out)
        warped = scratch.array("warped", (num_rows, num_columns, 4), np.uint8)
        edge = cv2.BORDER_REFLECT_101 if plate.is_fine else cv2.BORDER_REFLECT
        x, y = map_[0], map_[1]
        cv2.remap(plate.source, x, y, cv2.INTER_LINEAR, dst=warped, borderMode=edge)
        return warped

    def _weight(self, tall: Tensor, tile: _Tile, scratch: _Scratch) -> np.ndarray:
        """Return a weight in a tile, up to 255, for all four channels."""
        wide = self._wide(tall, tile, scratch)
        levels = scratch.array("levels", wide.shape, np.uint8)
        cv2.addWeighted(wide, 1, wide, 0, 0, dst=levels, dtype=cv2.CV_8U)
        out = scratch.array("weight", (*wide.shape, 4), np.uint8)
        cv2.cvtColor(levels, cv2.COLOR_GRAY2RGBA, out)
        return out

    def _field(self, tall: Tensor, tile: _Tile, scratch: _Scratch) -> np.ndarray:
        """Return a field in a tile, for all four channels."""
        wide = self._wide(tall, tile, scratch)
        out = scratch.array("field", (*wide.shape, 4), np.float32)
        cv2.cvtColor(wide, cv2.COLOR_GRAY2RGBA, out)
        return out

    def _wide(self, tall: Tensor, tile: _Tile, scratch: _Scratch) -> np.ndarray:
        rows, columns = tile.rows, tile.columns
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        wide = scratch.array("wide", shape, np.float32)
        basis = _weights(tall.shape[1], self._size[1], "bilinear")[columns]
        torch.mm(tall[rows], basis.T, out=torch.from_numpy(wide))
        return wide


def _four(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 4"]:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA))


def _reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))


def _strips(height: int, width: int) -> list[slice]:
    step = max(1, _STRIP // width)
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]


def _enlarged(plate: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h2 w2 4"]:
    """Return a plate with the points halfway between its pixels, from one edge to the other."""
    height, width, _ = plate.shape
    around = cv2.copyMakeBorder(plate, 2, 2, 2, 2, cv2.BORDER_REFLECT)
    right = cv2.filter2D(around, -1, _HALFWAY, anchor=(2, 0))[:, 2 : width + 3]
    below = cv2.filter2D(around, -1, _HALFWAY.T, anchor=(0, 2))[2 : height + 3]
    out = np.empty((2 * height + 1, 2 * width + 1, 4), np.uint8)
    out[1::2, 1::2] = plate
    out[1::2, ::2] = right[2 : height + 2]
    out[::2, 1::2] = below[:, 2 : width + 2]
    both = cv2.filter2D(np.ascontiguousarray(right), -1, _HALFWAY.T, anchor=(0, 2))
    out[::2, ::2] = both[2 : height + 3]
    return out


def _array(field: Float[Tensor, "c i j"]) -> Float32[np.ndarray, "i j c"]:
    return np.ascontiguousarray(np.moveaxis(field.numpy(), 0, -1))


def _positions(
    displacement: Float[Tensor, "1 2 i j"], plate: _Plate, size: tuple[int, int]
) -> Float[Tensor, "2 h k"]:
    """Return what gives the positions that pixels come from, multiplied by `_across`."""
    height, width = size
    scale = torch.tensor([width, height])[:, None, None] * plate.scale
    tall = _tall(displacement[0] * scale, height, "bicubic").view(2, height, -1)
    own = torch.zeros(2, height, 2)
    own[0, :, 0] = 1
    own[1, :, 1] = plate.scale * torch.arange(height) + plate.shift
    return torch.cat([tall, own], dim=-1)


def _near(displacement: Tensor) -> Tensor:
    """Bound a displacement: OpenCV mirrors a position as often as it is pictures away."""
    return displacement.nan_to_num(nan=0.0).clamp(-_FARTHEST, _FARTHEST)


@lru_cache(maxsize=8)
def _across(width: int, scale: int, shift: int) -> Float[Tensor, "k w"]:
    """Return what a row of positions is made of: bicubic functions, the pixels' x, and 1."""
    x = scale * torch.arange(width) + shift
    functions = _weights(GRID, width, "bicubic").T
    return torch.cat([functions, x[None].float(), torch.ones(1, width)])


def _tall(
    field: Float[Tensor, "c i j"], height: int, mode: Literal["bilinear", "bicubic"]
) -> Float[Tensor, "ch j"]:
    """Return a field enlarged in height as torch does, its channels one below the other."""
    return (_weights(field.shape[1], height, mode) @ field).flatten(0, 1)


@lru_cache(maxsize=16)
def _weights(size: int, new_size: int, mode: str) -> Tensor:
    """Return the matrix, (new_size, size), that enlarges a column."""
    eye = torch.eye(size)[None, None]
    return functional.interpolate(eye, (new_size, size), mode=mode, align_corners=False)[0, 0]


def _small_mean(
    small: UInt8[np.ndarray, "s s 4"], warps: list[Warp]
) -> Float32[np.ndarray, "s s 4"]:
    """Return the mean of a warped small plate, in levels."""
    size = small.shape[:2]
    x, y = _grid(len(small))
    mean: np.ndarray = np.zeros(small.shape, np.float32)
    for displacement, weight in warps:
        away = _resized(_array(displacement[0]) * len(small), size, cv2.INTER_CUBIC)
        warped = cv2.remap(
            small, x + away[..., 0], y + away[..., 1], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        mean += _resized(_array(weight[0]), size) * warped
    return mean


@lru_cache(maxsize=4)
def _grid(side: int) -> Float32[np.ndarray, "2 s s"]:
    return np.stack(np.meshgrid(*2 * [np.arange(side, dtype=np.float32)]))


def _low(mean: Float32[np.ndarray, "s s 4"]) -> Float32[np.ndarray, "s s 4"]:
    """Return a blurred small picture; see `low_pass`."""
    side = 2 * round(DETAIL * len(mean)) + 1
    for _ in range(3):
        mean = np.asarray(cv2.blur(mean, (side, side), borderType=cv2.BORDER_REFLECT_101))
    return mean


def _resized(
    field: Float32[np.ndarray, "i j c"],
    size: tuple[int, int],
    interpolation: int = cv2.INTER_LINEAR,
) -> Float32[np.ndarray, "m n c"]:
    resized = np.asarray(cv2.resize(field, size[::-1], interpolation=interpolation))
    return resized.reshape(*size, field.shape[2])
