"""How a sky moves: wind on the plane of the clouds, known exactly at every point and time."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.simulators.sky.tiles import Draws

# Far from the horizon the plane's coordinates stay within this many picture widths.
_MAX_SOURCE = 4.0
# A deformed point is carried from one time to another by fixed-point steps, until they are shorter
# than this share of the picture.
_CARRY_STEPS, _CARRIED = 30, 1e-6
# Above this strain a deformation would soon show a place twice: at 1 it folds.
_MAX_STRAIN = 0.3


@dataclass(frozen=True)
class SkyMotion:
    """How the clouds move: all that `source_of` needs, and nothing of the appearance.

    Attributes:
        plane: A, the homography from picture coordinates to the plane of the clouds, (3, 3).
        generator: G, per clip, (3, 3) with a last row of zeros.
        deformation: D, in picture widths per clip, (2, 4, 4), bicubic between its points.
        acceleration: The share of its speed that the wind gains over the clip, in [-0.5, 0.5].
        evolution: How much of the clouds' density changes over one clip, in [-1, 1]; of the two
            signs each leads elsewhere.
        veer: Angle in radians by which the wind turns from each height to twice as high.
    """

    plane: Float[Tensor, "3 3"]
    generator: Float[Tensor, "3 3"]
    deformation: Float[Tensor, "2 4 4"]
    acceleration: float
    evolution: float
    veer: float = 0.0

    def source_of(self, points: Float[Tensor, "2 h w"], time: float) -> Float[Tensor, "2 h w"]:
        """Return where each point at `time` was at time 0.

        Args:
            points: Coordinates (x, y); (0, 0) is the upper left corner, (1, 1) the lower right.
            time: In clips, 0 or more.
        """
        if time == 0:
            return points  # to the bit: all futures of a start share their first frame
        elapsed = self._elapsed(time)
        source = to_plane(self._drift(-elapsed), points)
        source = source + elapsed * _smooth_field(self.deformation, points)
        return source.clamp(-_MAX_SOURCE, 1 + _MAX_SOURCE)

    def carried(
        self, points: Float[Tensor, "2 h w"], *, start: float, end: float
    ) -> Float[Tensor, "2 h w"]:
        """Return where the points at time `start` are at time `end`.

        Solves source_of(q, end) = source_of(p, start) for q: to 1e-4 picture sizes within one clip,
        for points that stay in the picture.

        Args:
            points: Coordinates p at time `start`.
            start: In clips.
            end: In clips.
        """
        source, elapsed = self.source_of(points, start), self._elapsed(end)
        drift = self._drift(elapsed)
        place = points
        for _ in range(_CARRY_STEPS):
            before = place
            place = to_plane(drift, source - elapsed * _smooth_field(self.deformation, place))
            if (place - before).abs().max() < _CARRIED:
                break
        return place

    def aloft(self, height: float) -> "SkyMotion":
        """Return the motion of a layer at `height` times the height of the lowest."""
        if height == 1:
            return self
        angle = self.veer * math.log2(height)
        turn = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        generator = self.generator.clone()
        generator[:2, 2] = turn @ self.generator[:2, 2] / height
        return replace(self, generator=generator, deformation=self.deformation / height)

    def _elapsed(self, time: float) -> float:
        """Time of a steady wind that has come as far."""
        return time * (1 + 0.5 * self.acceleration * (time - 1))

    def _drift(self, elapsed: float) -> Tensor:
        """A^-1 exp(elapsed G) A: the drift without the deformation, in picture coordinates."""
        scaled = elapsed * self.generator
        # Without rotation and growth the series of the exponential ends after two terms.
        is_straight = not scaled[:2, :2].any()
        matrix = torch.eye(3) + scaled if is_straight else torch.linalg.matrix_exp(scaled)
        drift: Tensor = torch.linalg.solve(self.plane, matrix @ self.plane)
        return drift


def draw_motion(
    generator: torch.Generator,
    *,
    direction: float | None = None,
    speed: float | None = None,
) -> SkyMotion:
    """Draw how clouds move: on a flat or a receding plane, straight, turning or growing.

    Args:
        generator: Source of randomness.
        direction: Of the wind on the plane, in radians, 0 to the right and pi / 2 downwards;
            drawn when None. In a sky that turns or grows, that of one point of the picture.
        speed: In picture widths per clip, 0 to 0.4; drawn when None (one sky in twelve is still).
    """
    draws = Draws(generator)
    angle = draws.uniform(0, 2 * math.pi) if direction is None else direction
    if speed is None:
        speed = 0.0 if draws.chance(1 / 12) else draw_speed(draws)
    plane = torch.eye(3) if draws.chance(0.4) else draw_plane(draws)
    turning = draws.uniform(-0.15, 0.15) if draws.chance(0.2) else 0.0
    growth = draws.uniform(-0.3, 0.3) if draws.chance(0.25) else 0.0
    if speed == 0:
        turning = growth = 0.0
    linear = torch.tensor([[growth, -turning], [turning, growth]])
    centre = draws.vector(0, 1, num=2)
    wind = torch.tensor([math.cos(angle), math.sin(angle)]) * speed
    matrix = torch.zeros(3, 3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = wind - linear @ to_plane(plane, centre[:, None, None])[:, 0, 0]
    return SkyMotion(
        plane=plane,
        generator=matrix,
        deformation=draw_deformation(draws, strength=speed * draws.uniform(0, 0.35)),
        acceleration=draws.uniform(-0.3, 0.3),
        evolution=draws.uniform(0, 0.35),
    )


def draw_deformation(
    draws: Draws, *, strength: float, num_clips: float = 1.0
) -> Float[Tensor, "2 4 4"]:
    """Draw a deformation that is gentle enough to be undone.

    Args:
        draws: Source of randomness.
        strength: Its deviation, in picture widths per clip, where that is gentle.
        num_clips: For how long it lasts: its strain by then is at most 0.3.
    """
    field = torch.randn(2, 4, 4, generator=draws.generator) * strength
    axis = torch.linspace(0, 1, 25)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    shift = _smooth_field(field, torch.stack([x, y])) * num_clips
    strain = max(float(shift.diff(dim=d).abs().max()) for d in (1, 2)) * (len(axis) - 1)
    return field * min(1.0, _MAX_STRAIN / max(strain, 1e-12))


def draw_speed(draws: Draws) -> float:
    """Draw a speed of clouds, 0.015 to 0.4 picture widths per clip, as often twice as half."""
    return math.exp(draws.uniform(math.log(0.015), math.log(0.4)))


def draw_plane(draws: Draws, *, low: float = 1.05, high: float = 1.8) -> Float[Tensor, "3 3"]:
    """Draw a plane that recedes to a horizon below the upper edge.

    (x, y) goes to ((x - c) k / (h - y), k / (h - y)); k makes one unit of the plane one picture
    width at a third of the way down.

    Args:
        draws: Source of randomness.
        low: The smallest h, above 0.33.
        high: The largest.
    """
    horizon, centre = draws.uniform(low, high), draws.uniform(0.2, 0.8)
    scale = horizon - 0.33
    return torch.tensor([[scale, 0.0, -centre * scale], [0.0, 0.0, scale], [0.0, -1.0, horizon]])


def _smooth_field(points: Tensor, at: Tensor) -> Tensor:
    grid = at.mul(2).sub(1).clamp(-1, 1).permute(1, 2, 0)[None]
    return functional.grid_sample(
        points[None], grid, mode="bicubic", padding_mode="border", align_corners=True
    )[0]


def to_plane(matrix: Tensor, points: Tensor) -> Tensor:
    """Return points (2 h w) of the picture as a perspective map shows them."""
    x, y, depth = (row_times(row, points) for row in matrix.tolist())
    return torch.stack([x, y]) / depth.clamp_min(0.05)


def row_times(row: list[float], points: Tensor) -> Tensor:
    """Return a row of a matrix times (x, y, 1): several times as fast as einsum."""
    a, b, c = row
    result: Tensor = torch.add(points[0] * a + c, points[1], alpha=b)
    return result
