"""What an evaluation found, apart from how it is shown.

A table has a row for each contestant (the model, and the baselines beside it) and a column for
each measure. What could not be measured is there too, with the reason; nothing stands in for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from cinnema.evaluation.statistics.bootstrap import Estimate, finite

Better = Literal["lower", "higher", "real"]
"""What is better in a column: less, more, or what the row of real clips has."""

RowKind = Literal["real", "model", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A measure.

    Attributes:
        name: Short, as in tables: "FVD", "LPIPS (VGG16)".
        better: What is better.
        unit: "dB", "px a frame"; empty where there is none.
        digits: Shown behind the point.
        about: One sentence: of what, with which backbone, which resize.
        group: The table is wide; columns of one group belong side by side: "quality".
    """

    name: str
    better: Better
    unit: str = ""
    digits: int = 3
    about: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What stands where a number would: why there is none, and how to get it."""

    reason: str


Cell = Estimate | Missing


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contestant.

    Attributes:
        name: "cINN", "frozen first frame", "real against real".
        kind: Whether it is real footage, the model, or a baseline.
        about: One sentence.
        sees_real: Whether it looks beyond the first frame, as the reconstruction does: such a row
            is a bound to look at, no competitor.
        cells: By the columns' names; a column that makes no sense for a row is left out.
    """

    name: str
    kind: RowKind
    about: str = ""
    sees_real: bool = False
    cells: Mapping[str, Cell] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Numbers along an axis, for each row: a plot.

    Attributes:
        title: Of the plot.
        x_label: Of the axis: "frame".
        y_label: Likewise.
        x: The places; or, by row, where rows have places of their own (a scatter plot).
        y: By row, as many as there are places.
        low: Lower ends of 95 % intervals, by row; rows without a band are left out.
        high: Upper ends.
        style: Whether the places are joined.
        diagonal: Whether the line y = x is drawn (a QQ plot).
        about: One sentence.
    """

    title: str
    x_label: str
    y_label: str
    x: Mapping[str, tuple[float, ...]]
    y: Mapping[str, tuple[float, ...]]
    low: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    high: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    style: Literal["line", "points"] = "line"
    diagonal: bool = False
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One clip as contestants continue it, to look at.

    Attributes:
        title: "best", "median", "worst", and by what.
        key: Of the clip.
        videos: By row, the real one first: x0 and what follows it.
        score: By which it was chosen.
        fps: Frames a second.
    """

    title: str
    key: str
    videos: Mapping[str, UInt8[np.ndarray, "t h w 3"]]
    score: float
    fps: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that one run of `cinnema evaluate` found.

    Attributes:
        weights: Name and SHA-256 of what was measured, and when it matters its card.
        data: Name, split, size, and SHA-256 of the manifest.
        protocol: Name, and in words what is compared with what.
        settings: Of the run, as JSON values: samples, seed, number of clips, threads.
        backbones: Name to SHA-256.
        columns: In the order of the table.
        rows: In the order of the table.
        curves: To plot.
        exhibits: To look at.
        notes: Sentences that a reader must know: what is missing, how few sources there were.
        seconds: How long it took.
    """

    weights: Mapping[str, str]
    data: Mapping[str, str]
    protocol: Mapping[str, str]
    settings: Mapping[str, Any]
    backbones: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = ()
    exhibits: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: all but the pictures; NaN becomes None."""
        return {
            "weights": dict(self.weights),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "settings": dict(self.settings),
            "backbones": dict(self.backbones),
            "columns": {
                c.name: {"group": c.group, "better": c.better, "unit": c.unit, "about": c.about}
                for c in self.columns
            },
            "rows": {
                row.name: {
                    "kind": row.kind,
                    "about": row.about,
                    "sees_real": row.sees_real,
                    "values": {name: _plain(cell) for name, cell in row.cells.items()},
                }
                for row in self.rows
            },
            "curves": {
                c.title: {
                    "x_label": c.x_label,
                    "y_label": c.y_label,
                    "x": {name: list(map(finite, x)) for name, x in c.x.items()},
                    "y": {name: list(map(finite, y)) for name, y in c.y.items()},
                    "low": {name: list(map(finite, y)) for name, y in c.low.items()},
                    "high": {name: list(map(finite, y)) for name, y in c.high.items()},
                }
                for c in self.curves
            },
            "exhibits": {e.title: {"clip": e.key, "score": finite(e.score)} for e in self.exhibits},
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def _plain(cell: Cell) -> dict[str, Any]:
    if isinstance(cell, Missing):
        return {"missing": cell.reason}
    return cell.to_dict()
