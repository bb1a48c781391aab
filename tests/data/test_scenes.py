"""Scenes of a data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cinnema.data.dataset import PackedDataset, open_dataset
from cinnema.data.scenes import find_scenes
from cinnema.media.videos import write_video

Drift = Callable[..., NDArray[np.uint8]]


def put(root: Path, **videos: NDArray[np.uint8]) -> Path:
    """Write videos, whose names may have folders: clouds__a is clouds/a."""
    for name, frames in videos.items():
        path = root / f"{name.replace('__', '/')}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, frames)
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """Five videos of clouds and four of fire, of two frames."""
    root = tmp_path_factory.mktemp("labelled")
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    names = [f"clouds__{letter}" for letter in "eadcb"] + [f"fire__f{n}" for n in range(4)]
    return open_dataset(put(root / "videos", **dict.fromkeys(names, frames)))


def test_every_third_scene_of_a_texture_is_held_out(labelled: PackedDataset) -> None:
    scenes = find_scenes(labelled)
    assert {scene.name: scene.held_out for scene in scenes} == {
        "clouds/a": True, "clouds/b": False, "clouds/c": False, "clouds/d": True,
        "clouds/e": False, "fire/f0": True, "fire/f1": False, "fire/f2": False, "fire/f3": True,
    }  # fmt: skip
    assert [scene.texture for scene in scenes] == ["clouds"] * 5 + ["fire"] * 4


def test_scenes_of_one_name_keep_their_suffix(tmp_path: Path, drift: Drift) -> None:
    for name in ("a.gif", "a.npy", "b.npy"):
        write_video(tmp_path / "videos" / name, drift(3), fps=8)
    scenes = find_scenes(open_dataset(tmp_path / "videos"))
    assert sorted({scene.name for scene in scenes}) == ["a.gif", "a.npy", "b"]


def test_of_one_video_the_end_is_held_out(tmp_path: Path, drift: Drift) -> None:
    dataset = open_dataset(put(tmp_path / "videos", a=drift(60)))
    train, held = find_scenes(dataset)
    assert [(train.name, train.held_out), (held.name, held.held_out)] == [
        ("a", False), ("a, end", True),
    ]  # fmt: skip
    entries = dataset.manifest.clips
    last = max(entries[i].first + entries[i].frames for i in train.clips)
    assert last <= min(entries[i].first for i in held.clips)
