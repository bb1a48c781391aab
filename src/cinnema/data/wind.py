"""The wind in real skies: displacement of the clouds from frame to frame, with a confidence.

The estimate is the mean of the library's optical flow over regions that move and have texture. Its
sign and unit are those of the track "wind" of `cinnema.simulators.sky`, so real and synthetic skies
share one control.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from cinnema.backbones.optical_flow import backward_flow, flow_confidence
from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, ClipSource, Control, Item, RawClip

WIND = Control(
    name="wind",
    kind="velocity",
    labels=("x", "y"),
    unit="picture sizes",
    mirror_axis=0,
    mirror_centre=0.0,
)
"""Displacement of the clouds per frame, in picture widths (x, right) and heights (y, down)."""

# Width and height at which the flow is estimated, in pixels.
_SIZE = 128
# Number of steps from frame to frame that are analysed together.
_SEGMENT = 16
# Frames are compared over a number of steps in which the fastest regions move about this many
# pixels: the flow's error hides shorter motion, and longer motion is lost where layers cross.
_REACH = 4.0
# Gradient, in grey levels per pixel, at which the texture weight is one half.
_TEXTURE = 2.0
# Regions slower than about this fraction of the fast clouds, or this many pixels, are ignored.
_SLOW_SHARE, _SLOW_PIXELS = 0.4, 0.25
# Textured points that move by less than this many pixels count as still.
_STILL = 0.35


@dataclass(frozen=True)
class Wind:
    """The wind in a clip.

    Attributes:
        displacement: Mean displacement of the clouds from frame t - 1 to t in row t: x in picture
            widths to the right, y in heights downwards; row 0 is zero.
        confidence: Confidence of each row, in [0, 1]: about the fraction of estimates with this
            confidence whose direction is correct to 10 degrees. Row 0 repeats row 1.
    """

    displacement: Float32[ndarray, "t 2"]
    confidence: Float32[ndarray, "t"]

    @property
    def mean(self) -> Float32[ndarray, "2"]:
        """The mean displacement per frame, weighted by confidence."""
        weight = self.confidence[1:, None] + 1e-6
        mean: ndarray = (self.displacement[1:] * weight).sum(axis=0) / weight.sum()
        return mean


@dataclass(frozen=True)
class _Drift:
    """Mean displacement over `steps` frames from frame `first`, and its confidence."""

    first: int
    steps: int
    displacement: ndarray
    confidence: float


def estimate_wind(
    frames: UInt8[ndarray, "t h w 3"], *, still: Bool[ndarray, "rows columns"] | None = None
) -> Wind:
    """Estimate the drift of the clouds in a clip.

    Regions that are still, have no texture or mirror the sky are ignored. The confidence is low if
    little moves, the flow contradicts itself, parts of the sky move in different directions, or
    everything moves together, as the camera may be moving. Takes about 0.1 s of one core for 17
    frames of any size.

    Args:
        frames: RGB frames, at least 2, of any size.
        still: Mask, True where the picture is known to be still, at the frames' size. Passing a
            mask, even an empty one, states that the camera does not move.

    Returns:
        Displacements in picture sizes per frame.

    Raises:
        UserError: Fewer than 2 frames, or a mask of another size.

    Example:
        >>> frames = np.zeros((3, 64, 64, 3), dtype=np.uint8)
        >>> wind = estimate_wind(frames)
        >>> wind.displacement.tolist(), bool(wind.confidence.max() < 0.1)
        ([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], True)
    """
    if len(frames) < 2:
        raise UserError(f"the wind of a clip needs at least 2 frames, got {len(frames)}")
    if still is not None and still.shape != frames.shape[1:3]:
        raise UserError(
            f"the still mask is {still.shape[1]}x{still.shape[0]} pixels, the frames "
            f"are {frames.shape[2]}x{frames.shape[1]}: use a mask of their size"
        )
    drifts = [
        drift
        for first, last in _segments(len(frames) - 1)
        for drift in _drifts(frames[first : last + 1], first=first, still=still)
    ]
    return _join(drifts, num_frames=len(frames))


@dataclass(frozen=True)
class WithWind:
    """Another source of clips, with the estimated wind of each clip as its control.

    Args:
        source: Any source of clips that show clouds.

    Raises:
        UserError: The source has the control "wind" already.

    Example:
        >>> from cinnema.simulators.sky import Skies
        >>> WithWind(Skies(10))
        Traceback (most recent call last):
        cinnema.core.errors.UserError: the source sky has the control wind already: do not add it
    """

    source: ClipSource

    def __post_init__(self) -> None:
        """Check that the source has no wind yet."""
        control = self.source.control
        if control is not None and control.name == WIND.name:
            raise UserError(
                f"the source {self.source.name} has the control {WIND.name} already: do not add it"
            )

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def size(self) -> int | None:
        """Size of the source's frames in pixels."""
        return self.source.size

    @property
    def control(self) -> Control:
        """The wind."""
        return WIND

    def settings(self) -> dict[str, Any]:
        """Return the source's settings, and the name of the control."""
        return {**self.source.settings(), "control": WIND.name}

    def items(self) -> Sequence[Item]:
        """List the source's items."""
        return self.source.items()

    def read(self, item: Item) -> Iterator[RawClip | BadRecord]:
        """Yield the source's clips with their wind; a clip of one frame becomes a bad record."""
        for clip in self.source.read(item):
            yield clip if isinstance(clip, BadRecord) else _with_wind(clip)


def _with_wind(clip: RawClip) -> RawClip | BadRecord:
    if len(clip.frames) < 2:
        return BadRecord(name=clip.name, reason="a single frame has no wind")
    wind = estimate_wind(clip.frames, still=clip.still)
    tracks = {**clip.tracks, WIND.name: wind.displacement}
    return replace(clip, tracks=tracks, confidence=wind.confidence)


def _segments(num_steps: int) -> list[tuple[int, int]]:
    """Return first and last frames of parts of equal length; the last two may overlap."""
    length = min(_SEGMENT, num_steps)
    starts = [*range(0, num_steps - length, length), num_steps - length]
    return [(start, start + length) for start in starts]


def _drifts(frames: ndarray, *, first: int, still: ndarray | None) -> list[_Drift]:
    """Compare frames at the largest distance that the clouds' speed allows."""
    greys = [_grey(frame) for frame in frames]
    weight = _sky(greys[0]) * (1.0 if still is None else 1.0 - _fit(still.astype(np.float32)))
    steps = _choose_steps(frames, _texture(greys[0]) * weight)
    drifts = []
    last = len(frames) - 1 - steps
    for start in [*range(0, last, max(1, steps // 2)), last]:
        pair = frames[[start, start + steps]]
        flow = backward_flow(pair, size=(_SIZE, _SIZE))
        trust = flow_confidence(pair, flow)
        displacement, confidence = _mean_drift(
            flow[0], trust[0], _texture(greys[start + steps]) * weight, stands=still is not None
        )
        drifts.append(_Drift(first + start, steps, displacement, confidence))
    return drifts


def _choose_steps(frames: ndarray, weight: ndarray) -> int:
    """Return the largest number of steps over which fast regions can be followed."""
    textured = weight > 0.5
    if not textured.any():
        return len(frames) - 1
    lengths = np.linalg.norm(backward_flow(frames, size=(_SIZE, _SIZE))[:, textured], axis=-1)
    fastest = np.percentile(lengths, 95, axis=1)
    return 1 + int(np.flatnonzero(fastest <= _REACH).max(initial=0))


def _mean_drift(
    flow: ndarray, trust: ndarray, texture: ndarray, *, stands: bool
) -> tuple[ndarray, float]:
    """Return the mean displacement of moving regions in picture sizes, and its confidence.

    Args:
        flow: Flow from the later to the earlier frame, in pixels.
        trust: Confidence of the flow.
        texture: Weight of each point.
        stands: Whether the camera is known to be still.
    """
    length = np.linalg.norm(flow, axis=-1)
    weight = texture * trust
    fast = _mean(length, weight * length)
    moves = length**2 / (length**2 + (_SLOW_SHARE * fast) ** 2 + _SLOW_PIXELS**2)
    weight = weight * moves**2
    mean = -np.array([_mean(flow[..., axis], weight) for axis in range(2)])
    area = float(weight.mean())
    evenness = float(np.linalg.norm(mean)) / max(_mean(length, weight), 1e-6)
    confidence = (
        area / (area + 0.04)
        * _mean(trust, texture * moves**2) ** 2
        * math.exp(-(1 - min(1.0, evenness)) / 0.1)
    )  # fmt: skip
    if not stands:
        anchored = float((texture * trust * (length < _STILL)).mean())
        confidence *= _steadiness(flow, weight, anchored / (anchored + area + 1e-6))
    return mean / _SIZE, math.sqrt(confidence)


def _steadiness(flow: ndarray, weight: ndarray, anchored: float) -> float:
    """Return the confidence that the camera is still.

    Still regions imply a still camera. Otherwise clouds are recognised by their changing shape, as
    the motion caused by a moving camera is nearly affine.
    """
    some = slice(None, None, 7)  # a subset suffices to fit six parameters
    y, x = np.mgrid[-1 : 1 : _SIZE * 1j, -1 : 1 : _SIZE * 1j].reshape(2, -1)[:, some]
    w = np.sqrt(weight.ravel()[some])[:, None]
    basis = np.stack([np.ones_like(x), x, y], axis=1) * w
    target = flow.reshape(-1, 2)[some] * w
    solution, *_ = np.linalg.lstsq(basis, target, rcond=None)
    rest = float(np.linalg.norm(target - basis @ solution) / (np.linalg.norm(target) + 1e-6))
    changing = 0.1 + 0.7 * min(1.0, max(0.0, rest - 0.05) / 0.12)
    return max(changing, min(1.0, anchored / 0.1))


def _join(drifts: list[_Drift], *, num_frames: int) -> Wind:
    """Average the drifts that cover each step."""
    displacement, certainty = np.zeros((num_frames, 2)), np.zeros(num_frames)
    total = np.zeros(num_frames)
    for drift in drifts:
        span = slice(drift.first + 1, drift.first + drift.steps + 1)
        weight = drift.confidence + 1e-6
        displacement[span] += weight * drift.displacement / drift.steps
        total[span] += weight
        certainty[span] += weight * drift.confidence
    total[0] = 1
    displacement, certainty = displacement / total[:, None], certainty / total
    certainty[0] = certainty[1]
    return Wind(displacement.astype(np.float32), certainty.clip(0, 1).astype(np.float32))


def _sky(grey: ndarray) -> ndarray:
    """Return 1 above a line at which the picture is mirrored and 0 below; 1 without such a line."""
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 6)
    detail = cv2.GaussianBlur(detail, (0, 0), 1)
    detail = detail / (np.abs(detail) + 4)  # mirror images have less contrast and are darker
    likeness = {line: _likeness(detail, line) for line in range(_SIZE // 3, _SIZE * 11 // 12)}
    line = max(likeness, key=lambda line: likeness[line])
    end = line if likeness[line] > 0.48 else _SIZE
    return np.asarray(np.arange(_SIZE)[:, None] < end, dtype=np.float32)


def _likeness(detail: ndarray, line: int) -> float:
    """Return the correlation of the region above a line with the mirrored one below it."""
    rows = min(line, _SIZE - line)
    above, below = detail[line - rows : line - 2][::-1], detail[line + 2 : line + rows]
    power = float((above**2).sum() * (below**2).sum())
    return float((above * below).sum()) / (math.sqrt(power) + 1e-6)


def _texture(grey: ndarray) -> ndarray:
    """Return how well each point can be followed, in [0, 1)."""
    x, y = (cv2.Sobel(grey, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (1, 0))
    strength = x**2 + y**2
    return np.asarray(strength / (strength + _TEXTURE**2))


def _grey(frame: ndarray) -> ndarray:
    return _fit(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32))


def _fit(picture: ndarray) -> ndarray:
    is_larger = min(picture.shape) > _SIZE
    interpolation = cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (_SIZE, _SIZE), interpolation=interpolation))


def _mean(values: ndarray, weight: ndarray) -> float:
    return float((values * weight).sum() / max(float(weight.sum()), 1e-6))
