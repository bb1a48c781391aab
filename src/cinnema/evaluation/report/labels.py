"""Placement of labels beside points, without overlaps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

_LETTER, _LINE = 6.2, 13.0
_AWAY = 8.0  # distance from the centre of a marker to its label


@dataclass(frozen=True)
class Label:
    """A label and its position.

    Attributes:
        text: Text of the label.
        x: Horizontal coordinate of its anchor.
        y: Vertical coordinate of its base line.
        anchor: Part of the text that lies at x.
    """

    text: str
    x: float
    y: float
    anchor: Literal["start", "middle", "end"]


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "_Box") -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


def spread_labels(
    places: Mapping[str, tuple[float, float]],
    *,
    left: float,
    right: float,
    top: float,
    bottom: float,
) -> tuple[Label, ...]:
    """Return a label for each point, placed where it overlaps least with labels and markers.

    Args:
        places: Coordinates (x, y) of the points by label.
        left: Smallest x of a label.
        right: Largest x of a label.
        top: Smallest y of a label.
        bottom: Largest y of a label.
    """
    taken = {name: _Box(x - 5, y - 5, x + 5, y + 5) for name, (x, y) in places.items()}
    labels = []
    for name, (x, y) in places.items():
        others = [box for other, box in taken.items() if other != name]

        def cost(label: Label, others: list[_Box] = others) -> float:
            box = _box(label)
            inside = box.left >= left and box.right <= right
            inside &= box.top >= top and box.bottom <= bottom
            return sum(map(box.overlap, others)) + 1e6 * (not inside)

        best = min(_candidates(name, x, y), key=cost)
        labels.append(best)
        taken[f"\0{name}"] = _box(best)
    return tuple(labels)


def _candidates(name: str, x: float, y: float) -> list[Label]:
    beside = [
        Label(name, x + side * _AWAY, y + 4 + shift, "start" if side > 0 else "end")
        for shift in (0, -_LINE * 0.7, _LINE * 0.7, -_LINE * 1.3, _LINE * 1.3)
        for side in (1, -1)
    ]
    above = [Label(name, x, y + shift, "middle") for shift in (-9, 18)]
    return [*beside[:2], *above, *beside[2:]]


def _box(label: Label) -> _Box:
    width = _LETTER * len(label.text)
    left = label.x - {"start": 0.0, "middle": width / 2, "end": width}[label.anchor]
    return _Box(left, label.y - _LINE * 0.8, left + width, label.y + _LINE * 0.2)
