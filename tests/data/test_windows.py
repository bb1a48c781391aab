"""Square windows of scenes, and scenes that show the same."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cinnema.backbones.optical_flow import forward_flow
from cinnema.core.errors import UserError
from cinnema.data.dataset import open_dataset
from cinnema.data.scenes import find_scenes
from cinnema.data.windows import find_duplicates, held_out_together, load_windows

Drift = Callable[..., NDArray[np.uint8]]


def scene(seed: int) -> NDArray[np.uint8]:
    """A picture with random blobs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[None]


def test_windows_are_squares_at_both_ends_and_in_the_middle_at_the_stride_of_the_clip(
    manifest: Callable[..., Path],
    drift: Drift,
    write_clip: Callable[[str, NDArray[np.uint8]], Path],
    tmp_path: Path,
) -> None:
    root = manifest(
        {"path": "sea.npy", "texture": "water", "suggested_stride": 2}, {"path": "short.npy"}
    )
    write_clip("sea.npy", drift(12, height=48, width=80))
    write_clip("short.npy", drift(3, height=48, width=80))
    dataset = open_dataset(root, cache=tmp_path / "cache")
    options = {"size": 32, "num_frames": 4, "fps": 8.0, "starts": 5}
    (windows,) = load_windows(dataset, find_scenes(dataset), **options)
    assert windows.scene.name.startswith("sea")
    assert windows.frames.shape[1:] == (5, 32, 32, 3)
    assert len(windows.frames) % 3 == 0
    again = load_windows(dataset, find_scenes(dataset), **options)
    assert np.array_equal(again[0].frames, windows.frames)
    with pytest.raises(UserError, match="no video has 41 distinct frames"):
        load_windows(dataset, find_scenes(dataset), **{**options, "num_frames": 40})


def test_windows_on_a_full_disk_are_told_and_not_kept_in_part(
    manifest: Callable[..., Path],
    drift: Drift,
    write_clip: Callable[[str, NDArray[np.uint8]], Path],
    tmp_path: Path,
    small_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    root = manifest({"path": "sea.npy", "texture": "water", "suggested_stride": 1})
    write_clip("sea.npy", drift(12, height=48, width=48))
    dataset = open_dataset(root, cache=tmp_path / "cache")
    scenes = find_scenes(dataset)
    options = {"size": 32, "num_frames": 4, "fps": 8.0, "starts": 2}
    with small_disk(10_000), pytest.raises(UserError, match="disk is full"):
        load_windows(dataset, scenes, **options)
    assert not [path for path in dataset.cache.rglob("windows/*") if path.name[0] != "."]
    assert len(load_windows(dataset, scenes, **options)[0].frames)


def test_a_closer_view_moves_by_as_much_more_as_it_is_enlarged(
    manifest: Callable[..., Path],
    drift: Drift,
    write_clip: Callable[[str, NDArray[np.uint8]], Path],
    tmp_path: Path,
) -> None:
    root = manifest({"path": "sea.npy", "texture": "water", "suggested_stride": 1})
    write_clip("sea.npy", drift(12, height=96, width=96))
    dataset = open_dataset(root, cache=tmp_path / "cache")
    options = {"size": 64, "num_frames": 4, "fps": 8.0, "starts": 2}
    (plain,) = load_windows(dataset, find_scenes(dataset), **options)
    (windows,) = load_windows(dataset, find_scenes(dataset), **options, closest=3.0)
    assert not plain.closer.any()
    assert np.array_equal(windows.frames[~windows.closer], plain.frames)
    assert windows.closer.sum() == 1
    speed = [
        np.linalg.norm(np.median(forward_flow(clip[:2])[0], (0, 1)))
        for clip in (windows.frames[0], windows.frames[windows.closer][0])
    ]
    assert 1 < speed[1] / speed[0] < 3.2


def test_scenes_of_the_same_picture_are_found_at_other_sizes_and_brightness() -> None:
    sea = scene(1)
    darker = (0.7 * sea[:, ::2, ::2]).astype(np.uint8)
    pictures = {"a": sea, "b": scene(2), "c": darker, "d": np.concatenate([scene(3), sea])}
    assert find_duplicates(pictures) == [{"a", "c", "d"}]


def test_duplicates_of_a_held_out_scene_are_held_out() -> None:
    assert held_out_together(["a"], [{"a", "b"}, {"c", "d"}]) == {"a", "b"}
