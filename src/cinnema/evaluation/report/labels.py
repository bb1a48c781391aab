"""Names beside points, none over another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

_LETTER, _LINE = 6.2, 13.0
_AWAY = 8.0  # from the middle of a marker to its name


@dataclass(frozen=True)
class Label:
    """A name and where it stands.

    Attributes:
        text: The name.
        x: Of its anchor.
        y: Of its base line.
        anchor: Which end of the text lies at x.
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
    """Return a label for each point, each where it covers least of the others and the markers.

    Args:
        places: x and y by name.
        left: Edge that labels do not cross.
        right: Likewise.
        top: Likewise.
        bottom: Likewise.
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
