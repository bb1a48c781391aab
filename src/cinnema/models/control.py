"""Controls: what a model can be told of the motion to come, and how people say it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.errors import UserError

DRIFT = "drift"
"""Where what moves drifts to over one clip."""

END_POINT = "end point"
"""Where the robot's end effector is at the last frame."""


@dataclass(frozen=True, kw_only=True)
class ControlSpec:
    """What the control eta of a model means, and which values it takes.

    Attributes:
        name: "drift" or "end point".
        labels: Of each entry.
        unit: Of all entries.
        low: Least value of each entry.
        high: Largest value of each entry.
        typical: Size of an entry in the training data; of a drift, what speed 1 is.
        optional: Whether the model can do without.

    Example:
        >>> spec = ControlSpec(
        ...     name="drift", labels=("right", "down"), unit="picture sizes a clip",
        ...     low=(-0.3, -0.3), high=(0.3, 0.3), typical=0.15, optional=True,
        ... )
        >>> spec.describe()
        'drift in picture sizes a clip: right from -0.3 to 0.3, down from -0.3 to 0.3'
    """

    name: str
    labels: tuple[str, ...]
    unit: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    typical: float
    optional: bool

    def describe(self) -> str:
        """Return the control, its entries and their ranges in one line."""
        ranges = (
            f"{label} from {low:.4g} to {high:.4g}"
            for label, low, high in zip(self.labels, self.low, self.high, strict=True)
        )
        return f"{self.name} in {self.unit}: {', '.join(ranges)}"

    def require(self, eta: Tensor, *, model: str) -> Tensor:
        """Return eta as float32 on the CPU.

        Args:
            eta: What was asked for.
            model: The model's name, for the message.

        Raises:
            UserError: It has another length, is not finite, or is out of range.
        """
        num = len(self.labels)
        if eta.shape != (num,) or not bool(eta.isfinite().all()):
            raise UserError(
                f"eta: the model {model} takes {num} finite numbers, got {eta.tolist()}: give one "
                f"control for all samples, {self.describe()}"
            )
        eta = eta.detach().float().cpu()
        entries = zip(self.labels, eta.tolist(), self.low, self.high, strict=True)
        for label, value, low, high in entries:
            slack = 1e-5 * (high - low)  # what float32 makes of a bound is no mistake
            if not low - slack <= value <= high + slack:
                raise UserError(
                    f"eta: {label} is {value:.4g}, out of the range of the model {model}, which "
                    f"is told the {self.describe()}"
                )
        return eta


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A control that says where to, and how fast, as one sees it.

    Attributes:
        direction: In degrees, counter-clockwise from the right as on a clock face of mathematics:
            0 is to the right, 90 up, 180 to the left, 270 or -90 down. None keeps the video's own,
            where there is a video.
        speed: As a factor on the typical speed of the training data (`ControlSpec.typical`, for
            the bundled weights 0.15 picture sizes in a clip of 2 seconds); 0 stands still. A
            picture size is the side of a square of the picture's area. None keeps the video's own,
            and is 1 where there is none.
    """

    direction: float | None = None
    speed: float | None = None


@dataclass(frozen=True, kw_only=True)
class EndPoint:
    """A control that says where the robot's end effector is at the clip's last frame.

    Attributes:
        x: In metres.
        y: In metres.
        z: In metres.
    """

    x: float
    y: float
    z: float


Control: TypeAlias = Float[Tensor, " e"] | Drift | EndPoint
"""eta itself, or what it is to mean"""


_ROUNDS = 4
# How far beyond its range a control may be told in order to have what was asked for, as a share of
# the range.
_BEYOND = 0.25


def aimed(
    read: Callable[[Float[Tensor, "b e"]], Float[Tensor, "b e"]],
    eta: Float[Tensor, "b e"],
    spec: ControlSpec,
    *,
    reach: Float[Tensor, "b 1"] | None = None,
) -> Float[Tensor, "b e"]:
    """Return what to tell a model so that its motion has the control that was asked for.

    A flow follows a control in the mean; for one residual it misses by a little. What it does can
    be read off z, so the miss is told on top, a few times, and the best is kept:

        told_0 = eta,   told_(k+1) = told_k + eta - read(told_k).

    Args:
        read: The control that the motion has when the model is told one.
        eta: What was asked for.
        spec: Of the control, for its range.
        reach: How far from eta a model may be told at most; as far as a quarter of the range
            beyond its bounds if None.

    Returns:
        One row for each of eta, never worse than eta itself.
    """
    low, high = (eta.new_tensor(bound) for bound in (spec.low, spec.high))
    room = _BEYOND * (high - low)
    best = told = eta
    least = torch.full_like(eta[:, :1], torch.inf)
    for _ in range(_ROUNDS):
        miss = eta - read(told)
        size = miss.norm(dim=1, keepdim=True)
        best = torch.where(size < least, told, best)
        least = torch.minimum(size, least)
        told = torch.minimum(torch.maximum(told + miss, low - room), high + room)
        if reach is not None:
            away = told - eta
            told = eta + away * (reach / away.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(
                1
            )
    return best


def resolve(
    control: Control,
    spec: ControlSpec | None,
    *,
    model: str,
    size: tuple[int, int],
    measured: Float[Tensor, " e"] | None = None,
) -> Float[Tensor, " e"]:
    """Return eta of what was asked for.

    Args:
        control: What was asked for.
        spec: What the model takes; None for a model without a control.
        model: Its name, for messages.
        size: Height and width of the picture as it is seen.
        measured: eta of a video, of which a drift keeps what it does not name.

    Raises:
        UserError: The model has no control, has another one, or this one is out of range.
    """
    asked = DRIFT if isinstance(control, Drift) else END_POINT
    if spec is None:
        what = "eta" if isinstance(control, Tensor) else f"the {asked}"
        raise UserError(f"{what}: the model {model} takes no control: leave it out")
    if isinstance(control, Tensor):
        return spec.require(control, model=model)
    if asked != spec.name:
        raise UserError(
            f"the model {model} cannot be told the {asked}: what it is told is the "
            f"{spec.describe()}"
        )
    if isinstance(control, EndPoint):
        return spec.require(torch.tensor([control.x, control.y, control.z]), model=model)
    return _drift_eta(control, spec, size=size, measured=measured)


def as_drift(eta: Float[Tensor, " 2"], spec: ControlSpec, *, size: tuple[int, int]) -> Drift:
    """Return how a drift is seen: the inverse of `resolve`.

    Args:
        eta: Right and down, in picture widths and heights.
        spec: The model's control.
        size: Height and width of the picture.
    """
    wide, tall = _stretch(size)
    x, y = float(eta[0]) / wide, -float(eta[1]) / tall
    return Drift(
        direction=math.degrees(math.atan2(y, x)) % 360, speed=math.hypot(x, y) / spec.typical
    )


def _drift_eta(
    drift: Drift, spec: ControlSpec, *, size: tuple[int, int], measured: Tensor | None
) -> Tensor:
    kept = None if measured is None else as_drift(measured, spec, size=size)
    direction = drift.direction if drift.direction is not None or kept is None else kept.direction
    speed = drift.speed if drift.speed is not None or kept is None else kept.speed
    if direction is None:
        raise UserError("direction: a speed needs one: say where to, from 0 to 360 degrees")
    if not math.isfinite(direction):
        raise UserError(f"direction: must be finite, in degrees, got {direction}: 0 is right")
    speed = 1.0 if speed is None else speed
    angle = math.radians(direction)
    wide, tall = _stretch(size)
    way = (spec.typical * math.cos(angle) * wide, -spec.typical * math.sin(angle) * tall)
    limits = (
        (high if w > 0 else low, w) for w, low, high in zip(way, spec.low, spec.high, strict=True)
    )
    most = min(limit / w for limit, w in limits if abs(w) > 1e-9)
    if not 0 <= speed <= most * (1 + 1e-5):
        raise UserError(
            f"speed: must be from 0 to {most:.3g} in the direction of {direction:g} degrees on a "
            f"picture of {size[1]}x{size[0]} pixels, got {speed:.3g}; 1 is {spec.typical:g} "
            f"picture sizes a clip, and the model is told the {spec.describe()}"
        )
    return torch.tensor([speed * w for w in way])


def _stretch(size: tuple[int, int]) -> tuple[float, float]:
    """Picture widths and heights in one picture size, the side of a square of the same area."""
    height, width = size
    side = math.sqrt(height * width)
    return side / width, side / height
