"""Scores of single clips, and what they say of textures and scenes, with honest intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

ALL = "all"
"""Name of the group of all clips, beside the textures."""

_NUM_RESAMPLES = 2000


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
class Estimate:
    """A number and how sure it is.

    Attributes:
        value: The number.
        low: Lower end of the 95 % interval over other scenes like these; None with one scene.
        high: Upper end.
        num_clips: Clips that it rests on.
        num_scenes: Scenes that they are of: the clips of one scene are no independent witnesses.
    """

    value: float
    low: float | None
    high: float | None
    num_clips: int
    num_scenes: int


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


def break_down(
    title: str, scores: Sequence[ClipScore], measures: Sequence[Metric], *, seed: int = 0
) -> Breakdown:
    """Summarise clips by texture and by scene.

    Args:
        title: What was measured.
        scores: One for each clip.
        measures: What to make of them.
        seed: Of the resampling.
    """
    texture_of = {score.scene: score.texture for score in scores}
    textures = {ALL: list(scores)} if len(set(texture_of.values())) > 1 else {}
    for texture in dict.fromkeys(texture_of.values()):
        textures[texture] = [s for s in scores if s.texture == texture]
    scenes = {scene: [s for s in scores if s.scene == scene] for scene in texture_of}
    return Breakdown(
        title=title,
        measures=tuple(measures),
        textures={t: _row(group, measures, seed) for t, group in textures.items()},
        scenes={s: _row(group, measures, seed) for s, group in scenes.items()},
        texture_of=texture_of,
    )


def clustered_ratio(
    top: Float[Tensor, " n"],
    bottom: Float[Tensor, " n"],
    clusters: Int[Tensor, " n"],
    *,
    seed: int = 0,
) -> Estimate:
    """Return sum(top) / sum(bottom) with a 95 % interval from resampling whole clusters.

    Clips of one scene resemble each other, so scenes are drawn with replacement, not clips
    (percentile cluster bootstrap). With the few scenes at hand the interval is a rough one, and
    with a single scene there is none.

    Args:
        top: Numerators of the clips.
        bottom: Denominators.
        clusters: Number of each clip's scene.
        seed: Of the resampling.

    Example:
        >>> ones = torch.ones(3)
        >>> clustered_ratio(torch.tensor([1.0, 2.0, 3.0]), ones, torch.tensor([0, 0, 1])).value
        2.0
    """
    labels, index = clusters.unique(return_inverse=True)
    sums = torch.zeros(2, len(labels), dtype=torch.float64)
    sums.index_add_(1, index, torch.stack([top, bottom]).double())
    value = _divide(sums[0].sum(), sums[1].sum())
    low = high = None
    if len(labels) > 1:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(labels), (_NUM_RESAMPLES, len(labels)), generator=generator)
        ratios = sums[0][drawn].sum(dim=1) / sums[1][drawn].sum(dim=1)
        ends = torch.nanquantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.float64))
        low, high = float(ends[0]), float(ends[1])
    return Estimate(value, low, high, num_clips=len(top), num_scenes=len(labels))


def _row(scores: Sequence[ClipScore], measures: Sequence[Metric], seed: int) -> dict[str, Estimate]:
    names = list(dict.fromkeys(score.scene for score in scores))
    clusters = torch.tensor([names.index(score.scene) for score in scores])
    row = {}
    for measure in measures:
        top = torch.tensor([s.values[measure.top] for s in scores], dtype=torch.float64)
        bottom = torch.ones_like(top)
        if measure.bottom is not None:
            bottom = torch.tensor([s.values[measure.bottom] for s in scores]).to(top)
        # A clip in which something could not be measured says so with NaN.
        known = torch.isfinite(top) & torch.isfinite(bottom)
        row[measure.name] = clustered_ratio(top[known], bottom[known], clusters[known], seed=seed)
    return row


def _divide(top: Tensor, bottom: Tensor) -> float:
    return float(top / bottom) if bottom != 0 else math.nan


def _plain(row: dict[str, Estimate]) -> dict[str, Any]:
    return {
        name: {
            "value": _finite(e.value),
            "low": _finite(e.low),
            "high": _finite(e.high),
            "num_clips": e.num_clips,
            "num_scenes": e.num_scenes,
        }
        for name, e in row.items()
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
