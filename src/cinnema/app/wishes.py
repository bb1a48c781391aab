"""What a visitor asks of the videos of a picture, and how it becomes a request of the library."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from cinnema.core.errors import UserError
from cinnema.media.pictures import resize_mask
from cinnema.synthesis.hints import Arrow
from cinnema.synthesis.request import RequestOptions

ARROW_SECONDS = 4.0
"""An arrow shows how far its point gets in so many seconds."""

MAX_CELLS = 256
"""Greatest width and height of a painting, in cells."""

_MAX_ARROWS = 100
_STILL, _MOVE = 1, 2

Point: TypeAlias = tuple[float, float]
"""Share of the picture's width from the left, and of its height from the top."""


@dataclass(frozen=True, eq=False)
class Paint:
    """What must stand and what must move, painted on a picture.

    Attributes:
        cells: 0 where nothing is painted, 1 where the picture must stand, 2 where it must move; of
            any size.
    """

    cells: np.ndarray

    def masks(self, size: tuple[int, int]) -> dict[str, Float32[np.ndarray, "h w"]]:
        """Return the masks of a request; those without a painted cell are left out.

        Args:
            size: Height and width of the photograph.
        """
        found = {"keep_still": self.cells == _STILL, "move": self.cells == _MOVE}
        return {
            name: resize_mask(mask.astype(np.float32), size)
            for name, mask in found.items()
            if mask.any()
        }

    def as_json(self) -> dict[str, Any]:
        """Return the painting as `read_hints` takes it."""
        height, width = self.cells.shape
        data = base64.b64encode(self.cells.astype(np.uint8).tobytes()).decode("ascii")
        return {"width": width, "height": height, "data": data}


@dataclass(frozen=True, eq=False)
class Hints:
    """What is drawn on a picture.

    Attributes:
        arrows: x, y, dx and dy of each arrow, as shares of the picture's width and height.
        paint: The painting; None if nothing is painted.
        point: The place where a robot's hand should end; None if none is chosen.
    """

    arrows: tuple[tuple[float, ...], ...] = ()
    paint: Paint | None = None
    point: Point | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the hints as `read_hints` takes them."""
        return {
            "arrows": [list(arrow) for arrow in self.arrows],
            "paint": None if self.paint is None else self.paint.as_json(),
            "point": None if self.point is None else list(self.point),
        }


def read_hints(drawn: object) -> Hints:
    """Return the hints that the page's editor sent.

    Args:
        drawn: A JSON value; None for no hints.

    Raises:
        UserError: It is not what the editor sends.
    """
    if drawn is None:
        return Hints()
    try:
        return _read(drawn)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise UserError(f"the drawing cannot be read ({error}): clear it and draw again") from error


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of all videos of a picture.

    Attributes:
        seconds: Length.
        speed: Factor on all displacements.
        temperature: Factor on nu.
        loop: Whether the videos repeat without a seam.
        hints: What is drawn on the picture.
    """

    seconds: float = 4.0
    speed: float = 1.0
    temperature: float = 1.0
    loop: bool = True
    hints: Hints = field(default_factory=Hints)

    def options(self, size: tuple[int, int], *, seamless: bool) -> RequestOptions:
        """Return the options of a request.

        Args:
            size: Height and width of the photograph.
            seamless: Whether the model's motion can repeat; if not, a loop runs back and forth.
        """
        height, width = size
        scale = np.array([width, height, width, height]) / (1, 1, ARROW_SECONDS, ARROW_SECONDS)
        options: RequestOptions = {
            "seconds": self.seconds,
            "motion_strength": self.speed,
            "temperature": self.temperature,
            "arrows": [Arrow(*(scale * arrow)) for arrow in self.hints.arrows],
        }
        if self.loop:
            options["loop"] = "seamless" if seamless else "pingpong"
        if self.hints.paint is not None:
            masks = self.hints.paint.masks(size)
            options["keep_still"], options["move"] = masks.get("keep_still"), masks.get("move")
        return options


def _read(drawn: object) -> Hints:
    if not isinstance(drawn, Mapping):
        raise TypeError("not an object")
    arrows = tuple(_numbers(row, 4) for row in drawn.get("arrows") or ())
    if len(arrows) > _MAX_ARROWS:
        raise ValueError(f"{len(arrows)} arrows")
    point = drawn.get("point")
    x, y = _numbers(point, 2) if point else (0.0, 0.0)
    return Hints(arrows, _read_paint(drawn.get("paint")), (x, y) if point else None)


def _numbers(row: object, count: int) -> tuple[float, ...]:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != count:
        raise ValueError(f"{count} numbers are needed, got {row!r}")
    values = tuple(float(value) for value in row)
    if not all(map(math.isfinite, values)):
        raise ValueError("a number is not finite")
    return values


def _read_paint(drawn: object) -> Paint | None:
    if drawn is None:
        return None
    if not isinstance(drawn, Mapping):
        raise TypeError("the painting is not an object")
    width, height = int(drawn["width"]), int(drawn["height"])
    if not (0 < width <= MAX_CELLS and 0 < height <= MAX_CELLS):
        raise ValueError(f"a painting of {width}x{height} cells")
    try:
        cells = np.frombuffer(base64.b64decode(drawn["data"], validate=True), np.uint8)
    except binascii.Error as error:
        raise ValueError("the painting is cut short") from error
    if len(cells) != width * height or cells.max(initial=0) > _MOVE:
        raise ValueError(f"{len(cells)} cells for a painting of {width}x{height}")
    return Paint(cells.reshape(height, width)) if cells.any() else None
