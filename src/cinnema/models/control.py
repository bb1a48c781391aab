"""Controls eta of a model: what they mean, their ranges, and the forms in which users give them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from cinnema.core.errors import UserError

DRIFT = "drift"
"""Name of the control of a landscape: the displacement of what moves over one clip."""

END_POINT = "end point"
"""Name of the control of a robot: the position of its end effector at the last frame."""


@dataclass(frozen=True, kw_only=True)
class ControlSpec:
    """Meaning and range of a model's control eta.

    Attributes:
        name: "drift" or "end point".
        labels: Name of each entry.
        unit: Unit of all entries.
        low: Minimum of each entry.
        high: Maximum of each entry.
        typical: Typical size of an entry in the training data; for a drift, the size at speed 1.
        optional: Whether the model also works without a control.

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
        """Check a control and return it as float32 on the CPU.

        Args:
            eta: The control, one number for each label.
            model: Name of the model, for the message.

        Raises:
            UserError: It has the wrong length, is not finite, or is out of range.
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
            slack = 1e-5 * (high - low)  # a bound may be rounded in float32
            if not low - slack <= value <= high + slack:
                raise UserError(
                    f"eta: {label} is {value:.4g}, out of the range of the model {model}, whose "
                    f"control is the {self.describe()}"
                )
        return eta


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A drift by its direction and speed in the picture.

    Attributes:
        direction: In degrees, counter-clockwise from the right: 0 is to the right, 90 up, 180 to
            the left, 270 or -90 down. None keeps the direction of the video, if there is one.
        speed: Factor on the typical speed of the training data (`ControlSpec.typical`, for the
            weights landscape 0.1 picture sizes in a clip of 16 steps); 0 stands still. A picture
            size is the side of a square of the picture's area. None keeps the speed of the video,
            and is 1 without a video.
    """

    direction: float | None = None
    speed: float | None = None


@dataclass(frozen=True, kw_only=True)
class EndPoint:
    """Position of the robot's end effector at the clip's last frame.

    Attributes:
        x: In metres.
        y: In metres.
        z: In metres.
    """

    x: float
    y: float
    z: float


Control: TypeAlias = Float[Tensor, " e"] | Drift | EndPoint
"""A control as the user gives it: eta itself, a drift or an end point."""


_NUM_CORRECTIONS = 4
# How far a corrected control may leave its range, as a share of the range.
_MARGIN = 0.25


def correct_control(
    measure: Callable[[Float[Tensor, "b e"]], Float[Tensor, "b e"]],
    eta: Float[Tensor, "b e"],
    spec: ControlSpec,
    *,
    max_correction: Float[Tensor, "b 1"] | None = None,
) -> Float[Tensor, "b e"]:
    """Return a control whose resulting motion measures as the requested control.

    A flow follows its control on average; the motion of a single residual deviates a little. The
    deviation can be measured from z and is added to the control, a few times over:

        eta_0 = eta,   eta_(k+1) = eta_k + eta - measure(eta_k),

    and the eta_k of the smallest deviation is returned.

    Args:
        measure: Returns the control that the motion has, given the control that the flow is
            conditioned on.
        eta: The requested control.
        spec: Description of the control, for its range.
        max_correction: Largest distance of the result from eta. Defaults to a quarter of the range
            beyond its bounds.

    Returns:
        One row for each row of eta, whose deviation is never larger than that of eta itself.
    """
    low, high = (eta.new_tensor(bound) for bound in (spec.low, spec.high))
    margin = _MARGIN * (high - low)
    best = tried = eta
    least = torch.full_like(eta[:, :1], torch.inf)
    for _ in range(_NUM_CORRECTIONS):
        deviation = eta - measure(tried)
        size = deviation.norm(dim=1, keepdim=True)
        best = torch.where(size < least, tried, best)
        least = torch.minimum(size, least)
        tried = torch.minimum(torch.maximum(tried + deviation, low - margin), high + margin)
        if max_correction is not None:
            away = tried - eta
            share = max_correction / away.norm(dim=1, keepdim=True).clamp_min(1e-9)
            tried = eta + away * share.clamp_max(1)
    return best


def resolve_control(
    control: Control,
    spec: ControlSpec | None,
    *,
    model: str,
    size: tuple[int, int],
    measured: Float[Tensor, " e"] | None = None,
) -> Float[Tensor, " e"]:
    """Convert a control to eta.

    Args:
        control: The control as the user gave it.
        spec: Description of the model's control; None for a model without one.
        model: Name of the model, for messages.
        size: Height and width of the picture in pixels.
        measured: eta of a video, which gives a drift's direction or speed where it is None.

    Raises:
        UserError: The model takes no control or a different one, or the value is out of range.
    """
    requested = DRIFT if isinstance(control, Drift) else END_POINT
    if spec is None:
        what = "eta" if isinstance(control, Tensor) else f"the {requested}"
        raise UserError(
            f"{what}: the model {model} takes no control: leave it out, or use weights that take "
            "one, as landscape (a drift) or robot (an end point)"
        )
    if isinstance(control, Tensor):
        return spec.require(control, model=model)
    if requested != spec.name:
        raise UserError(
            f"the model {model} has no {requested} as its control: give the {spec.describe()}, or "
            f"use weights that take it, as {'landscape' if requested == DRIFT else 'robot'}"
        )
    if isinstance(control, EndPoint):
        return spec.require(torch.tensor([control.x, control.y, control.z]), model=model)
    return _drift_eta(control, spec, size=size, measured=measured)


def as_drift(eta: Float[Tensor, " 2"], spec: ControlSpec, *, size: tuple[int, int]) -> Drift:
    """Return direction and speed of a drift; the inverse of `resolve_control`.

    Args:
        eta: Right and down, in picture widths and heights.
        spec: Description of the model's control.
        size: Height and width of the picture in pixels.
    """
    wide, tall = _stretch(size)
    x, y = float(eta[0]) / wide, -float(eta[1]) / tall
    return Drift(
        direction=math.degrees(math.atan2(y, x)) % 360, speed=math.hypot(x, y) / spec.typical
    )


def _drift_eta(
    drift: Drift, spec: ControlSpec, *, size: tuple[int, int], measured: Tensor | None
) -> Tensor:
    own = None if measured is None else as_drift(measured, spec, size=size)
    direction = drift.direction if drift.direction is not None or own is None else own.direction
    speed = drift.speed if drift.speed is not None or own is None else own.speed
    if direction is None:
        raise UserError("direction: a speed needs a direction: give it, from 0 to 360 degrees")
    if not math.isfinite(direction):
        raise UserError(f"direction: must be finite, in degrees, got {direction}: 0 is right")
    speed = 1.0 if speed is None else speed
    angle = math.radians(direction)
    wide, tall = _stretch(size)
    unit = (spec.typical * math.cos(angle) * wide, -spec.typical * math.sin(angle) * tall)
    limits = (
        (high if u > 0 else low, u) for u, low, high in zip(unit, spec.low, spec.high, strict=True)
    )
    fastest = min(limit / u for limit, u in limits if abs(u) > 1e-9)
    if not 0 <= speed <= fastest * (1 + 1e-5):
        raise UserError(
            f"speed: must be from 0 to {fastest:.3g} in the direction of {direction:g} degrees on "
            f"a picture of {size[1]}x{size[0]} pixels, got {speed:.3g}; 1 is {spec.typical:g} "
            f"picture sizes a clip, and the control of the model is the {spec.describe()}"
        )
    return torch.tensor([speed * u for u in unit])


def _stretch(size: tuple[int, int]) -> tuple[float, float]:
    """Picture widths and heights in one picture size, the side of a square of the same area."""
    height, width = size
    side = math.sqrt(height * width)
    return side / width, side / height
