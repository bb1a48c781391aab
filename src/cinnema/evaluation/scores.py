"""Scores of single clips, and what they say of textures and scenes, with honest intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cinnema.evaluation.statistics.bootstrap import Estimate, ratio, resampled

ALL = "all"
"""Name of the group of all clips, beside the textures."""


@dataclass(frozen=True)
class ClipScore:
    """What was measured on one clip.

    Attributes:
        scene: Name of the clip's scene.
        texture: Its texture.
        values: Numbers by name, the same names for all clips of one kind of measurement.
    """

    scene: str
    texture: str
    values: dict[str, float]


@dataclass(frozen=True)
class Metric:
    """How the clips of a group make one number: sum(top) / sum(bottom), or the mean of top.

    Attributes:
        name: Of the number.
        top: Name among a clip's values.
        bottom: Name among a clip's values; None stands for 1.
        digits: Shown behind the point.
        shows_interval: Whether tables show the interval beside the number.
    """

    name: str
    top: str
    bottom: str | None = None
    digits: int = 3
    shows_interval: bool = False


@dataclass(frozen=True)
class Breakdown:
    """One kind of measurement, by texture and by scene.

    Attributes:
        title: What it is.
        measures: What is measured, in the order of the table.
        textures: By texture ("all" comes first), then by measure.
        scenes: By scene, then by measure.
        texture_of: The texture of each scene.
    """

    title: str
    measures: tuple[Metric, ...]
    textures: dict[str, dict[str, Estimate]]
    scenes: dict[str, dict[str, Estimate]]
    texture_of: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; numbers that are not finite become None."""
        return {
            "textures": {group: _plain(row) for group, row in self.textures.items()},
            "scenes": {
                scene: {"texture": self.texture_of[scene]} | _plain(row)
                for scene, row in self.scenes.items()
            },
        }


def break_down(title: str, scores: Sequence[ClipScore], measures: Sequence[Metric]) -> Breakdown:
    """Summarise clips by texture and by scene.

    Args:
        title: What was measured.
        scores: One for each clip.
        measures: What to make of them.
    """
    texture_of = {score.scene: score.texture for score in scores}
    textures = {ALL: list(scores)} if len(set(texture_of.values())) > 1 else {}
    for texture in dict.fromkeys(texture_of.values()):
        textures[texture] = [s for s in scores if s.texture == texture]
    scenes = {scene: [s for s in scores if s.scene == scene] for scene in texture_of}
    return Breakdown(
        title=title,
        measures=tuple(measures),
        textures={t: _row(group, measures) for t, group in textures.items()},
        scenes={s: _row(group, measures) for s, group in scenes.items()},
        texture_of=texture_of,
    )


def _row(scores: Sequence[ClipScore], measures: Sequence[Metric]) -> dict[str, Estimate]:
    return {measure.name: estimate_of(scores, measure.top, measure.bottom) for measure in measures}


def estimate_of(scores: Sequence[ClipScore], top: str, bottom: str | None) -> Estimate:
    """Return sum(top) / sum(bottom) over clips, with its interval over scenes.

    Args:
        scores: One for each clip; where a value is NaN the clip is left out.
        top: Name of the numerator.
        bottom: Name of the denominator; None stands for 1, and gives the mean.
    """
    rows = [[s.values[top], 1.0 if bottom is None else s.values[bottom]] for s in scores]
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return resampled(table, [score.scene for score in scores], ratio)


def _plain(row: dict[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_dict() for name, estimate in row.items()}
