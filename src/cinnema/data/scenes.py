"""Scenes of a data set.

A scene is one source video, or the part of it that is held out.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from cinnema.data.dataset import PackedDataset

HELD_OUT_PART = ", end"
"""What follows the name of a video in the name of its held-out part."""


@dataclass(frozen=True)
class Scene:
    """One source video, or its part for training or its held-out part.

    Attributes:
        name: Path of the video without its suffix, unique in the data set.
        texture: Label of the video, "" if it has none.
        held_out: Whether its clips are of the validation or test split, rather than trained on.
        clips: Positions of its clips in the data set's manifest.
    """

    name: str
    texture: str
    held_out: bool
    clips: tuple[int, ...] = ()


def find_scenes(dataset: PackedDataset) -> list[Scene]:
    """Return the scenes of a data set, by label and then by file name."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for position, clip in enumerate(dataset.manifest.clips):
        groups.setdefault((clip.source, clip.split != "train"), []).append(position)
    names = _scene_names([source for source, _ in groups])
    found = [
        Scene(
            name=f"{names[source]}{HELD_OUT_PART}"
            if held_out and (source, False) in groups
            else names[source],
            texture=dataset.manifest.clips[positions[0]].label or "",
            held_out=held_out,
            clips=tuple(positions),
        )
        for (source, held_out), positions in groups.items()
    ]
    return sorted(
        found, key=lambda scene: (scene.texture, PurePosixPath(scene.name).name, scene.name)
    )


def _scene_names(sources: Iterable[str]) -> dict[str, str]:
    """Return the path of each video without its suffix, where that is unique."""
    stems = {source: str(PurePosixPath(source).with_suffix("")) for source in set(sources)}
    counts = Counter(stems.values())
    return {source: stem if counts[stem] == 1 else source for source, stem in stems.items()}
