"""Arrows, the user's hints of how something in a photograph moves.

No heavy module is imported here, so that the command line can refuse an arrow at once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from cinnema.core.errors import UserError

FASTEST = 2.0
"""Largest speed of an arrow in picture sizes a second, a size being the root of the area."""

_MAX_ARROWS = 100


class Arrow(NamedTuple):
    """The velocity of one point of a photograph.

    Attributes:
        x: Column of the point in pixels of the photograph, from 0 at the left.
        y: Row of the point in pixels of the photograph, from 0 at the top.
        dx: Velocity to the right, in pixels of the photograph a second.
        dy: Velocity down, in pixels of the photograph a second.

    Example:
        >>> Arrow(400, 300, 30, -5).speed
        30.4138...
    """

    x: float
    y: float
    dx: float
    dy: float

    @property
    def speed(self) -> float:
        """Pixels of the photograph a second."""
        return math.hypot(self.dx, self.dy)

    def __str__(self) -> str:
        return ",".join(f"{value:g}" for value in self)


Arrows: TypeAlias = Sequence[Sequence[float]]
"""Accepted forms of arrows: each an `Arrow`, or x, y, dx and dy."""


def as_arrows(arrows: Arrows) -> tuple[Arrow, ...]:
    """Return arrows of four finite numbers each.

    Args:
        arrows: At most 100.

    Raises:
        UserError: There are more, or one has another number of values, or not finite ones.
    """
    if len(arrows) > _MAX_ARROWS:
        raise UserError(
            f"arrows: must be at most {_MAX_ARROWS}, got {len(arrows)}: leave out neighbours that "
            "say the same"
        )
    for arrow in arrows:
        if len(arrow) != len(Arrow._fields) or not all(map(_is_finite, arrow)):
            raise UserError(
                "arrows: each needs four finite numbers (x, y, dx, dy), pixels and pixels a "
                f"second, got {tuple(arrow)}"
            )
    return tuple(Arrow(*map(float, arrow)) for arrow in arrows)


def require_inside(arrows: Sequence[Arrow], size: tuple[int, int]) -> None:
    """Raise a UserError for the first arrow that is outside a photograph, or too fast for it.

    Args:
        arrows: The arrows.
        size: Height and width of the photograph in pixels.
    """
    height, width = size
    fastest = FASTEST * math.sqrt(height * width)
    for arrow in arrows:
        if not (0 <= arrow.x < width and 0 <= arrow.y < height):
            raise UserError(
                f"arrows: the point of {arrow} is outside the photograph, which has "
                f"{width}x{height} pixels: give x from 0 to {width - 1}, y from 0 to {height - 1}"
            )
        if arrow.speed > fastest:
            raise UserError(
                f"arrows: {arrow} moves {arrow.speed:.4g} pixels a second, more than {fastest:.4g},"
                f" which is {FASTEST:g} picture sizes a second: give a shorter one"
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
