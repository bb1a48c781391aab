"""How one kind of thing moves: along a velocity field, churning, with texture that is renewed.

Times are in steps, the frame distance of the training clips; a clip has 16 of them. Lengths are in
picture widths and heights. Fields lie on a grid of `GRID` x `GRID` points.

A point of frame t shows the photograph at p + F(p, a) + U(p, t) - U(p, t - a), with

    dF / da = -v(p + F),  F = 0 at a = 0      the path along the static velocity v,
    U                                          the churn, a smooth random displacement,
    a                                          the age: time since the texture was renewed.

Each texture is faded in and out again around its birth, when it is the photograph itself, so
nothing is ever warped far, and fluids renew themselves as they do in nature. The first birth is at
t = 0: frame 0 is the photograph.

Source: Vlachos, "Water Flow in Portal 2" (SIGGRAPH 2010), for staggered warps; Holynski et al.,
"Animating Pictures with Eulerian Motion Fields" (CVPR 2021), for integrated static velocities.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.core.errors import UserError

GRID = 32
"""Rows and columns of the fields."""

NUM_WAVES = 4
"""Cosines in each direction that a velocity is made of."""

NUM_FUNCTIONS = NUM_WAVES**2
"""Functions that each component of a velocity is made of."""

CHURN_GRID = 16
"""Rows and columns of the churn's random numbers."""

CHURN_MODES = 6
"""Sinusoids in time that the churn is made of."""

CHURN_PERIOD = 24.0
"""Steps after which the churn repeats; a loop adapts it to its own length."""

CHURN_SHAPE = (6 * CHURN_MODES + 1, CHURN_GRID, CHURN_GRID)
"""Shape of the churn's numbers: cosine and sine of each mode for x, y and gain; and the phases."""

CHURN_DIM = math.prod(CHURN_SHAPE)
"""Number of the churn's random numbers."""

_REFERENCE = 128
MAX_JITTER = 1.5
"""Deviations between which a birth time may lie."""


@dataclass(frozen=True)
class KindDynamics:
    """Constants of one kind's motion, fitted on the training clips.

    Attributes:
        gain: Factor on the measured mean velocity, which underestimates what moves turbulently.
        period: Steps from birth to birth of one texture; every half of it another is born. Videos
            of at most half of it show one texture. 0 renews nothing.
        jitter: Standard deviation of birth times over the picture, as a share of half the period.
        churn: Velocity of the churn (root mean square) per measured turbulent velocity.
        correlation: Standard deviation of the churn's blur in space, in 1/128 picture sizes.
        memory: Correlation of the churn's velocity from step to step, from 0 to below 1.
        upright: Vertical churn per horizontal churn.
        flicker: Standard deviation of the logarithm of brightness.
        rate: Steps a second at which the kind looks natural.

    Raises:
        UserError: A constant is out of its range.
    """

    gain: float = 1.0
    period: float = 0.0
    jitter: float = 0.0
    churn: float = 0.0
    correlation: float = 8.0
    memory: float = 0.8
    upright: float = 1.0
    flicker: float = 0.0
    rate: float = 8.0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:  # true of NaN, too
                raise UserError(f"{name} must be from {least:g} to {most:g}, got {value:g}")
        if 0 < self.period < 1:
            raise UserError(f"period must be 0 or at least 1, got {self.period:g}")


_RANGES = {
    "gain": (0.0, 1000.0),
    "period": (0.0, 1e5),
    "jitter": (0.0, 10.0),
    "churn": (0.0, 1000.0),
    "correlation": (0.0, float(_REFERENCE)),
    "memory": (0.0, 0.999),
    "upright": (0.0, 1000.0),
    "flicker": (0.0, 1e5),
    "rate": (0.01, 240.0),
}
"""Least and greatest value of each constant."""


class Warp(NamedTuple):
    """One texture in one frame.

    Attributes:
        displacement: Where each point comes from, relative to it.
        weight: Its share in the frame, from 0 to 1.
    """

    displacement: Float[Tensor, "b 2 g g"]
    weight: Float[Tensor, "b 1 g g"]


def cosines() -> Float[Tensor, "n g g"]:
    """Return the functions that velocities are made of: products of cosines, the constant first."""
    i = (torch.arange(GRID) + 0.5) / GRID
    waves = torch.stack([torch.cos(math.pi * k * i) for k in range(NUM_WAVES)])
    return torch.einsum("ai,bj->abij", waves, waves).reshape(NUM_FUNCTIONS, GRID, GRID)


def frequencies() -> Float[Tensor, " n"]:
    """Return the squared frequency of each function of `cosines`, in half-waves per picture."""
    k = torch.arange(NUM_WAVES, dtype=torch.float32)
    return (k[:, None].square() + k.square()).flatten()


def follow(velocity: Float[Tensor, "b 2 g g"], num_steps: int) -> Float[Tensor, "b s 2 g g"]:
    """Return the paths back along a static velocity, after 0 to `num_steps` steps.

    Args:
        velocity: In picture sizes a step.
        num_steps: Number of steps.
    """
    path = torch.zeros_like(velocity)
    out = [path]
    for _ in range(num_steps):
        path = _sample(path, -velocity) - velocity
        out.append(path)
    return torch.stack(out, dim=1)


def churn_spectrum(
    dynamics: KindDynamics, period: float = CHURN_PERIOD
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Return angular frequency and share of the velocity's power of each sinusoid.

    The spectrum is that of an Ornstein-Uhlenbeck process.

    Args:
        dynamics: Constants of the kind.
        period: Steps after which the churn repeats.
    """
    omega = 2 * math.pi / period * torch.arange(1, CHURN_MODES + 1)
    decay = -math.log(max(dynamics.memory, 1e-3))
    power = 1 / (1 + (omega / decay).square())
    return omega, power / power.sum()


def churn_blur(dynamics: KindDynamics) -> Float[Tensor, "i j"]:
    """Return the matrix that blurs columns of white noise, and keeps their variance."""
    deviation = dynamics.correlation / _REFERENCE * CHURN_GRID
    index = torch.arange(CHURN_GRID, dtype=torch.float32)
    matrix = torch.exp(-0.5 * ((index[:, None] - index) / max(deviation, 1e-3)).square())
    return matrix / matrix.square().sum(dim=1, keepdim=True).sqrt()


def churn_gains(
    dynamics: KindDynamics, *, num_steps: int
) -> tuple[Float[Tensor, "i j"], Float[Tensor, "t m2"], int]:
    """Return the linear maps from the churn's numbers to velocities of unit strength.

    Args:
        dynamics: Constants of the kind.
        num_steps: Number of steps; velocity t is the displacement from time t to t + 1.

    Returns:
        The blur of rows and of columns; the weight of each cosine, then each sine, at each step;
        and the number of cosines.
    """
    omega, power = churn_spectrum(dynamics)
    angle = torch.arange(num_steps + 1)[:, None] * omega
    waves = torch.cat([angle.cos(), angle.sin()], dim=1).diff(dim=0)
    return churn_blur(dynamics), waves * (power.sqrt() / omega).repeat(2), CHURN_MODES


class Churn:
    """A smooth random displacement: white noise in space, blurred, and sinusoids in time.

    Args:
        numbers: Standard normal numbers, `CHURN_SHAPE`.
        strength: Root mean square of the velocity in picture sizes a step.
        dynamics: Constants of the kind.
        period: Steps after which it repeats.
    """

    def __init__(
        self,
        numbers: Float[Tensor, "b n i j"],
        strength: Float[Tensor, " b"],
        dynamics: KindDynamics,
        *,
        period: float = CHURN_PERIOD,
    ) -> None:
        omega, power = (x.to(numbers) for x in churn_spectrum(dynamics, period))
        blur = churn_blur(dynamics).to(numbers)
        smooth = blur @ numbers @ blur.T
        waves = smooth[:, :-1].unflatten(1, (2, CHURN_MODES, 3))
        size = (power.sqrt() / omega) * strength[:, None]
        upright = waves.new_tensor([1.0, dynamics.upright])[:, None, None]
        self._omega = omega
        self._waves = waves[:, :, :, :2] * size[:, None, :, None, None, None] * upright
        self._gain = waves[:, :, :, 2] * (power.sqrt() * dynamics.flicker)[:, None, None]
        self.phases: Float[Tensor, "b 1 g g"] = _enlarged(smooth[:, -1:])

    def at(self, time: float) -> Float[Tensor, "b 2 g g"]:
        """Return the displacement at a time in steps."""
        return _enlarged(self._sum(self._waves, time))

    def gain(self, time: float) -> Float[Tensor, "b 1 g g"]:
        """Return the factor on brightness at a time in steps; 1 at time 0."""
        change = self._sum(self._gain, time) - self._sum(self._gain, 0.0)
        return _enlarged(change[:, None]).exp()

    def _sum(self, waves: Tensor, time: float) -> Tensor:
        angle = self._omega * time
        return torch.einsum("bkm...,km->b...", waves, torch.stack([angle.cos(), angle.sin()]))


class Renewal(NamedTuple):
    """When the textures of one kind are born, and when its churn repeats; in steps.

    Attributes:
        is_on: Whether textures are renewed.
        half: Time from one birth to the next.
        longest: Greatest age of a texture.
        churn_period: Time after which the churn repeats.
    """

    is_on: bool
    half: float
    longest: float
    churn_period: float


def renewal_of(dynamics: KindDynamics, *, num_steps: float, loop: bool = False) -> Renewal:
    """Return when the textures of a video are born.

    Args:
        dynamics: Constants of the kind.
        num_steps: Length of the video in steps; infinite for one that never ends.
        loop: Whether the video repeats after `num_steps` steps.
    """
    # A texture that outlives the video needs no other.
    is_on = loop or 0 < dynamics.period < 2 * num_steps
    half = dynamics.period / 2 if dynamics.period > 0 else num_steps
    churn_period = CHURN_PERIOD
    if loop:
        half = num_steps / max(1, round(num_steps / half))
        churn_period = num_steps / max(1, round(num_steps / churn_period))
    longest = half * (1 + MAX_JITTER * dynamics.jitter) if is_on else num_steps
    return Renewal(is_on, half, longest, churn_period)


class KindMotion:
    """The warps of one kind at any time.

    Args:
        velocity: Static velocity, in picture sizes a step, as measured.
        strength: Root mean square of the measured turbulent velocity, in picture sizes a step.
        numbers: The churn's numbers, `CHURN_SHAPE`.
        dynamics: Constants of the kind.
        num_steps: Length of the video in steps.
        loop: Whether the video repeats after `num_steps` steps.
    """

    def __init__(
        self,
        velocity: Float[Tensor, "b 2 g g"],
        strength: Float[Tensor, " b"],
        numbers: Float[Tensor, "b n i j"],
        dynamics: KindDynamics,
        *,
        num_steps: float,
        loop: bool = False,
    ) -> None:
        renewal = renewal_of(dynamics, num_steps=num_steps, loop=loop)
        self._renewed = renewal.is_on
        self.churn = Churn(
            numbers, strength * dynamics.churn, dynamics, period=renewal.churn_period
        )
        moved = velocity * dynamics.gain
        count = math.ceil(renewal.longest) + 1
        self._onward, self._back = follow(moved, count), follow(-moved, count)
        self._births = self._plan_births(renewal.half, dynamics.jitter, num_steps, loop=loop)
        self._earliest = [float(birth.min()) for birth in self._births]
        self._latest = [float(birth.max()) for birth in self._births]
        self._born: dict[int, Tensor] = {}

    def _plan_births(
        self, half: float, jitter: float, num_steps: float, *, loop: bool
    ) -> list[Float[Tensor, "b 1 g g"]]:
        phases = self.churn.phases
        zero = torch.zeros_like(phases)
        if not self._renewed:
            return [zero]
        offset = phases.clamp(-MAX_JITTER, MAX_JITTER) * jitter * half
        last = round(num_steps / half) if loop else math.ceil(num_steps / half) + 2
        births = [zero, *(zero + half * n + offset for n in range(1, last))]
        births.append(zero + half * last + (0 if loop else offset))
        return births

    def at(self, time: float) -> list[Warp]:
        """Return the textures of the frame at a time in steps, with weights that sum to 1."""
        now = self.churn.at(time)
        births = self._births
        warps = []
        for n, birth in enumerate(births):
            if n > 0 and time <= self._earliest[n - 1]:
                break  # not yet visible anywhere
            if n + 1 < len(births) and time >= self._latest[n + 1]:
                continue  # no longer visible
            age = time - birth
            weight = torch.ones_like(age)
            if n + 1 < len(births):
                weight = torch.where(age >= 0, 1 - age / (births[n + 1] - birth), weight)
            if n > 0:
                weight = torch.where(age < 0, 1 + age / (birth - births[n - 1]), weight)
            weight = weight.clamp(0, 1)
            if bool((weight > 0).any()):
                path = torch.where(age >= 0, _at(self._onward, age), _at(self._back, -age))
                warps.append(Warp(path + now - self._churn_at_birth(n), weight))
        return warps

    def _churn_at_birth(self, n: int) -> Float[Tensor, "b 2 g g"]:
        """Return the churn where and when a texture is born, kept as long as it may be needed."""
        born = self._born.get(n)
        if born is None:
            self._born.pop(n - 3, None)  # threads that render frames share this
            born = self._born[n] = self._churn_at(self._births[n])
        return born

    def _churn_at(self, birth: Float[Tensor, "b 1 g g"]) -> Float[Tensor, "b 2 g g"]:
        low, high = float(birth.min()), float(birth.max())
        if high - low < 1e-6:
            return self.churn.at(low)
        first = math.floor(low)
        table = torch.stack([self.churn.at(s) for s in range(first, math.ceil(high) + 2)], dim=1)
        return _at(table, birth - first)


def _at(table: Float[Tensor, "b s 2 g g"], place: Float[Tensor, "b 1 g g"]) -> Tensor:
    """Return the entries of a table at fractional places, by linear interpolation."""
    place = place.clamp(0, table.shape[1] - 1)
    low = place.floor().clamp(max=table.shape[1] - 2)
    index = low.long()[:, None].expand(-1, -1, 2, -1, -1)
    first, second = table.gather(1, index)[:, 0], table.gather(1, index + 1)[:, 0]
    return torch.lerp(first, second, place - low)


def _sample(field: Tensor, displacement: Tensor) -> Tensor:
    theta = torch.eye(2, 3, device=field.device, dtype=field.dtype).expand(len(field), -1, -1)
    grid = functional.affine_grid(theta, list(field.shape), align_corners=False)
    grid = grid + 2 * displacement.movedim(1, -1)
    return functional.grid_sample(field, grid, padding_mode="border", align_corners=False)


def _enlarged(x: Float[Tensor, "b c i j"]) -> Float[Tensor, "b c g g"]:
    return functional.interpolate(x, (GRID, GRID), mode="bicubic", align_corners=False)
