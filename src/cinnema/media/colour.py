"""Colours of files, converted to sRGB.

A file states its colours by code points of ITU-T H.273 (videos, AVIF, HEIC, the cICP chunk of PNG)
or by an exponent and chromaticities (gAMA and cHRM of PNG). Light is relative to the white of
sRGB. HDR is brought into its range as ITU-R BT.2408 and BT.2390 say: the reference white of 203
cd/m2 is white, and what is brighter, up to 1000 cd/m2, is rolled off.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

_WHITE = 203.0
"""Luminance of reference white in HDR, in cd/m2 (BT.2408)."""
_PEAK = 1000.0
"""Luminance of the display that HDR is taken to be mastered for, in cd/m2."""

_D65, _C, _E = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3)
_XY = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)  # BT.709 and sRGB
_SMPTE170M = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65)
_CHROMATICITIES: dict[int, tuple[float, ...]] = {
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, *_C),  # BT.470 M
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),  # BT.470 BG, BT.601 of 625 lines
    6: _SMPTE170M,  # BT.601 of 525 lines
    7: _SMPTE170M,  # SMPTE 240M
    8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, *_C),  # film
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),  # BT.2020
    10: (1, 0, 0, 1, 0, 0, *_E),  # XYZ
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),  # DCI-P3
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),  # Display P3
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),  # EBU 3213-E
}
_GAMMA = {4: 2.2, 5: 2.8, 8: 1.0}
_LOG = {9: 2.0, 10: 2.5}
_DCI, _PQ, _HLG = 17, 16, 18
_STATED = frozenset({*_GAMMA, *_LOG, _DCI, _PQ, _HLG})  # other transfers are shown like sRGB's


@dataclass(frozen=True)
class ColourSpace:
    """What the values of a picture mean.

    Attributes:
        chromaticities: x and y of red, green, blue and white.
        transfer: A code point of H.273; or an exponent, if `is_exponent`.
        is_exponent: Whether light is the value to the power of `transfer`.
    """

    chromaticities: tuple[float, ...] = _XY
    transfer: float = 13
    is_exponent: bool = False

    @property
    def is_srgb(self) -> bool:
        """Whether values are shown as they are."""
        shown = not self.is_exponent and self.transfer not in _STATED
        return shown and np.allclose(self.chromaticities, _XY, atol=2e-3)

    @property
    def is_hdr(self) -> bool:
        """Whether light may be brighter than white."""
        return not self.is_exponent and self.transfer in (_PQ, _HLG)


def colour_space(primaries: int, transfer: int) -> ColourSpace:
    """Return the colour space of two code points; what is unspecified or unknown is sRGB's."""
    return ColourSpace(_CHROMATICITIES.get(primaries, _XY), transfer)


def are_primaries(chromaticities: tuple[float, ...]) -> bool:
    """Return whether four points span colours: x and y of red, green, blue and white."""
    *triangle, white = np.reshape(chromaticities, (4, 2))
    columns = np.stack([[x, y, 1 - x - y] for x, y in triangle], axis=1)
    return bool(abs(np.linalg.det(columns)) > 0.01 and white.min() > 0.05 and white.sum() < 1)


def to_srgb(values: UInt16[np.ndarray, "h w 3"], space: ColourSpace) -> UInt8[np.ndarray, "h w 3"]:
    """Convert colours to sRGB: decoded to light, in BT.709's primaries, rolled off and encoded.

    Args:
        values: Red, green and blue, in 0 ... 65535; of 8 bits, 257 times the level.
        space: What they mean.

    Returns:
        sRGB of 8 bits; colours out of its gamut are clipped.
    """
    matrix = _to_bt709(space.chromaticities).astype(np.float32)
    light = _light_table(space)[values] @ matrix.T
    np.clip(light, 0, _PEAK / _WHITE, out=light)
    if space.is_hdr:
        brightest = light.max(axis=-1)
        index = np.round(brightest * (65_535 * _WHITE / _PEAK)).astype(np.uint16)
        light *= _roll_off_table()[index][..., None]
    index = np.round(np.minimum(light, 1) * 65_535).astype(np.uint16)
    return np.asarray(_srgb_table()[index])


@lru_cache(maxsize=8)
def _light_table(space: ColourSpace) -> Float32[np.ndarray, "65536"]:
    """Light of every value, 1 for white."""
    v = np.linspace(0, 1, 65_536)
    return _light(v, space).astype(np.float32)


def _light(v: np.ndarray, space: ColourSpace) -> np.ndarray:
    code = None if space.is_exponent else int(space.transfer)
    if code is None or code in _GAMMA:
        return np.asarray(v ** (space.transfer if code is None else _GAMMA[code]))
    if code in _LOG:
        return np.where(v > 0, 10 ** (_LOG[code] * (v - 1)), 0)
    if code == _DCI:
        return np.asarray(52.37 / 48 * v**2.6)
    if code == _PQ:
        return _pq_light(v) / _WHITE
    if code == _HLG:
        return _hlg_light(v)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def _pq_light(v: np.ndarray) -> np.ndarray:
    """Luminance in cd/m2 of a value of SMPTE ST 2084."""
    root = v ** (1 / 78.84375)
    ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return np.asarray(10_000 * ratio ** (1 / 0.1593017578125))


def _pq_value(luminance: np.ndarray) -> np.ndarray:
    """The inverse of `_pq_light`."""
    y = (luminance / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)


def _hlg_light(v: np.ndarray) -> np.ndarray:
    """Light of a value of ARIB STD-B67 on a display of 1000 cd/m2 (BT.2100).

    The exponent 1.2 of its OOTF, which belongs to the luminance, is applied to each channel.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(v <= 0.5, v**2 / 3, (np.exp((v - c) / a) + b) / 12)
    return np.asarray(scene**1.2 * (_PEAK / _WHITE))


@lru_cache(maxsize=1)
def _roll_off_table() -> Float32[np.ndarray, "65536"]:
    """Factor on light of every brightness up to the peak: the EETF of BT.2390."""
    luminance = np.linspace(0, _PEAK, 65_536)
    top = _pq_value(np.array(_PEAK))
    e, white = _pq_value(luminance) / top, float(_pq_value(np.array(_WHITE)) / top)
    knee = 1.5 * white - 0.5
    t = np.clip((e - knee) / (1 - knee), 0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * white
    )
    shown = _pq_light(np.where(e < knee, e, spline) * top)
    ratio = np.divide(shown, luminance, out=np.ones_like(shown), where=luminance > 0)
    return np.asarray(ratio.astype(np.float32))


@lru_cache(maxsize=1)
def _srgb_table() -> UInt8[np.ndarray, "65536"]:
    light = np.linspace(0, 1, 65_536)
    v = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * v).astype(np.uint8)


@lru_cache(maxsize=8)
def _to_bt709(chromaticities: tuple[float, ...]) -> Float64[np.ndarray, "3 3"]:
    """The matrix from linear light of these primaries to BT.709's, white to white (Bradford)."""
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    cones = [bradford @ _xyz(np.array(xy[-2:])) for xy in (chromaticities, _XY)]
    adapt = np.linalg.inv(bradford) @ np.diag(cones[1] / cones[0]) @ bradford
    return np.asarray(np.linalg.inv(_to_xyz(_XY)) @ adapt @ _to_xyz(chromaticities))


def _to_xyz(chromaticities: tuple[float, ...]) -> np.ndarray:
    *primaries, white = np.reshape(chromaticities, (4, 2))
    columns = np.stack([[x, y, 1 - x - y] for x, y in primaries], axis=1)
    return np.asarray(columns * np.linalg.solve(columns, _xyz(white)))


def _xyz(xy: np.ndarray) -> np.ndarray:
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])
