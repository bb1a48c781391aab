"""The motion of a sky: wind on the plane of the clouds, known exactly at every point and time."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cinnema.simulators.sky.tiles import Draws

# Coordinates on the plane are clamped to this many picture widths outside the picture.
_MAX_SOURCE = 4.0
# Largest number of fixed-point iterations in `SkyMotion.carried`, and their tolerance in picture
# widths.
_CARRY_STEPS, _CARRIED = 30, 1e-6
# Largest strain of a deformation; at 1 it is no longer invertible.
_MAX_STRAIN = 0.3


@dataclass(frozen=True)
class SkyMotion:
    """The motion of the clouds (see `scene` for the formula).

    Attributes:
        plane: A, the homography from picture coordinates to the plane of the clouds.
        generator: G, per clip, with a last row of zeros.
        deformation: D, in picture widths per clip, interpolated bicubically.
        acceleration: Relative increase of the wind's speed over one clip, in [-0.5, 0.5].
        evolution: Share of the clouds' density that changes over one clip, in [-1, 1]; the two
            signs lead to different densities.
        veer: Angle by which the wind turns when the height doubles, in radians.
    """

    plane: Float[Tensor, "3 3"]
    generator: Float[Tensor, "3 3"]
    deformation: Float[Tensor, "2 4 4"]
    acceleration: float
    evolution: float
    veer: float = 0.0

    def source_of(self, points: Float[Tensor, "2 h w"], time: float) -> Float[Tensor, "2 h w"]:
        """Return the positions at time 0 of points at `time`.

        Args:
            points: Coordinates (x, y); (0, 0) is the upper left corner, (1, 1) the lower right.
            time: Time in clips, 0 or more.
        """
        if time == 0:
            return points  # exact, so that all futures of a start have the same first frame
        elapsed = self._elapsed(time)
        source = to_plane(self._drift(-elapsed), points)
        source = source + elapsed * _smooth_field(self.deformation, points)
        return source.clamp(-_MAX_SOURCE, 1 + _MAX_SOURCE)

    def carried(
        self, points: Float[Tensor, "2 h w"], *, start: float, end: float
    ) -> Float[Tensor, "2 h w"]:
        """Return the positions at time `end` of points at time `start`.

        Solves source_of(q, end) = source_of(p, start) for q, with an accuracy of 1e-4 picture sizes
        within one clip, for points that stay in the picture.

        Args:
            points: Coordinates p at time `start`.
            start: Time in clips.
            end: Time in clips.
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
        """Return the motion of a higher layer.

        Args:
            height: Height in multiples of the lowest layer's.
        """
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
        """Return the time in which a constant wind covers the same distance."""
        return time * (1 + 0.5 * self.acceleration * (time - 1))

    def _drift(self, elapsed: float) -> Tensor:
        """Return A^-1 exp(elapsed G) A, the drift without deformation in picture coordinates."""
        scaled = elapsed * self.generator
        # Without rotation and growth the exponential series has only two terms.
        is_straight = not scaled[:2, :2].any()
        matrix = torch.eye(3) + scaled if is_straight else torch.linalg.matrix_exp(scaled)
        drift: Tensor = torch.linalg.solve(self.plane, matrix @ self.plane)
        return drift


def draw_deformation(
    draws: Draws, *, strength: float, num_clips: float = 1.0
) -> Float[Tensor, "2 4 4"]:
    """Draw an invertible deformation.

    Args:
        draws: Source of randomness.
        strength: Standard deviation, in picture widths per clip; reduced if the strain is too
            large.
        num_clips: Duration in clips, after which the strain is at most 0.3.
    """
    field = torch.randn(2, 4, 4, generator=draws.generator) * strength
    axis = torch.linspace(0, 1, 25)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    shift = _smooth_field(field, torch.stack([x, y])) * num_clips
    strain = max(float(shift.diff(dim=d).abs().max()) for d in (1, 2)) * (len(axis) - 1)
    return field * min(1.0, _MAX_STRAIN / max(strain, 1e-12))


def draw_speed(draws: Draws) -> float:
    """Draw a speed of clouds, log-uniform from 0.015 to 0.4 picture widths per clip."""
    return math.exp(draws.uniform(math.log(0.015), math.log(0.4)))


def draw_plane(draws: Draws, *, low: float = 1.05, high: float = 1.8) -> Float[Tensor, "3 3"]:
    """Draw the homography of a plane that recedes to a horizon at y = h.

    (x, y) is mapped to ((x - c) k / (h - y), k / (h - y)), with k such that one unit of the plane
    is one picture width at y = 0.33.

    Args:
        draws: Source of randomness.
        low: Smallest h, above 0.33.
        high: Largest h.
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
    """Apply a homography.

    Args:
        matrix: The homography, (3, 3).
        points: Coordinates (x, y) in the picture, (2, h, w).
    """
    x, y, depth = (row_times(row, points) for row in matrix.tolist())
    return torch.stack([x, y]) / depth.clamp_min(0.05)


def row_times(row: list[float], points: Tensor) -> Tensor:
    """Return the product of a row of a matrix with (x, y, 1), several times faster than einsum.

    Args:
        row: Three numbers.
        points: Coordinates (x, y), (2, h, w).
    """
    a, b, c = row
    result: Tensor = torch.add(points[0] * a + c, points[1], alpha=b)
    return result
