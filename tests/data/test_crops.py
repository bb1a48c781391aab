"""Scenes of a data set, and the crops with flow that are cut from them."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.crops import SceneCrops, SplitCrops, find_scenes, load_crops
from cinnema.data.dataset import PackedDataset, open_dataset
from cinnema.media.videos import read_video, write_video

Drift = Callable[..., NDArray[np.uint8]]
T = 4


def put(root: Path, **videos: NDArray[np.uint8]) -> Path:
    """Write videos, whose names may have folders: clouds__a is clouds/a."""
    for name, frames in videos.items():
        path = root / f"{name.replace('__', '/')}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, frames)
    return root


def manifest(root: Path, **strides: int) -> Path:
    entries = [{"path": f"{name}.npy", "suggested_stride": s} for name, s in strides.items()]
    (root / "manifest.json").write_text(json.dumps(entries))
    return root


def cut(dataset: PackedDataset, **options: Any) -> SplitCrops:
    settings = {
        "num_train": 3, "num_held_out": 3, "size": 32, "num_frames": T, "grid": 8, "fps": 25.0,
        **options,
    }  # fmt: skip
    return load_crops(dataset, find_scenes(dataset), **settings)


def one(dataset: PackedDataset, **options: Any) -> SceneCrops:
    return cut(dataset, **options).train[0]


# Scenes


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """Five videos of clouds and four of fire, of two frames."""
    root = tmp_path_factory.mktemp("labelled")
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    names = [f"clouds__{letter}" for letter in "eadcb"] + [f"fire__f{n}" for n in range(4)]
    return open_dataset(put(root / "videos", **dict.fromkeys(names, frames)))


def held_out(dataset: PackedDataset, **options: Any) -> dict[str, bool]:
    return {scene.name: scene.held_out for scene in find_scenes(dataset, **options)}


def test_every_third_scene_of_a_texture_is_held_out(labelled: PackedDataset) -> None:
    assert held_out(labelled, textures=("fire", "clouds")) == {
        "fire/f0": True, "fire/f1": False, "fire/f2": False, "fire/f3": True,
        "clouds/a": True, "clouds/b": False, "clouds/c": False, "clouds/d": True,
        "clouds/e": False,
    }  # fmt: skip
    scenes = find_scenes(labelled, textures=("fire",))
    assert [(scene.name, scene.texture) for scene in scenes] == [
        (f"fire/f{n}", "fire") for n in range(4)
    ]


def test_excluded_scenes_are_left_out_and_move_no_other(labelled: PackedDataset) -> None:
    assert held_out(labelled, textures=("clouds",), excluded=("a", "e")) == {
        "clouds/b": False, "clouds/c": False, "clouds/d": True,
    }  # fmt: skip


def test_of_other_textures_all_scenes_are_used(labelled: PackedDataset) -> None:
    assert len(find_scenes(labelled, textures=("water",))) == len(find_scenes(labelled)) == 9


def test_scenes_of_one_name_keep_their_suffix(tmp_path: Path, drift: Drift) -> None:
    for name in ("a.gif", "a.npy", "b.npy"):
        write_video(tmp_path / "videos" / name, drift(3), fps=8)
    scenes = find_scenes(open_dataset(tmp_path / "videos"))
    assert sorted({scene.name for scene in scenes}) == ["a.gif", "a.npy", "b"]


def test_of_one_video_the_end_is_held_out(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path / "videos", a=brightening(60)))
    crops = cut(dataset)
    (train,), (held,) = crops.train, crops.held_out
    assert (train.scene.name, held.scene.name) == ("a", "a, end")
    assert train.frames.max() < held.frames.min() + 2
    assert (len(train), len(held)) == (3, 3)


def brightening(num_frames: int) -> NDArray[np.uint8]:
    """A texture that gets brighter from frame to frame, so that a frame shows its time."""
    noise = np.random.default_rng(0).integers(0, 3, (48, 64, 1))
    frames = [np.repeat(noise + 20 + 3 * t, 3, axis=-1) for t in range(num_frames)]
    return np.stack(frames).astype(np.uint8)


# Crops


@pytest.fixture
def sky(tmp_path: Path, drift: Drift) -> PackedDataset:
    """One video that drifts to the right by a pixel a frame."""
    return open_dataset(manifest(put(tmp_path / "videos", sky=drift(30)), sky=1))


def test_crops_have_the_requested_shapes(sky: PackedDataset) -> None:
    crops = one(sky)
    assert (len(crops), crops.frames.shape, crops.frames.dtype) == (3, (3, 5, 32, 32, 3), np.uint8)
    assert (crops.flow.shape, crops.flow.dtype) == ((3, 2, 4, 8, 8), np.float32)
    assert (crops.motion.shape, crops.motion.dtype) == ((3, 16, 16), np.float32)


def test_a_drift_to_the_right_has_a_flow_to_the_left(sky: PackedDataset) -> None:
    crops = one(sky, num_train=6)
    assert (crops.flow[:, 0].mean(axis=(2, 3)) < 0).all()
    assert np.abs(crops.flow[:, 1]).mean() < 0.2 * np.abs(crops.flow[:, 0]).mean()
    assert (np.diff(-crops.flow[:, 0].mean(axis=(2, 3)), axis=1) > 0).all()
    assert crops.motion.min() > 1


def test_crops_are_cut_once(sky: PackedDataset, tmp_path: Path) -> None:
    first = one(sky)
    assert list((sky.folder / "cache" / "crops").iterdir())
    for shard in sky.folder.glob("*.npz"):
        shard.write_bytes(b"not read again")
    second = one(sky)
    for name in ("frames", "flow", "motion"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_the_seed_decides_the_crops(sky: PackedDataset) -> None:
    assert not np.array_equal(one(sky).frames, one(sky, seed=1).frames)


def test_cutting_reports_its_progress(sky: PackedDataset) -> None:
    reports: list[tuple[str, int, int]] = []
    cut(sky, progress=lambda *report: reports.append(report))
    assert reports == [("cutting clips", n, 2) for n in range(3)]


def test_a_large_stride_is_reduced_to_what_the_video_has(tmp_path: Path, drift: Drift) -> None:
    dataset = open_dataset(manifest(put(tmp_path / "videos", sky=drift(30)), sky=30))
    assert one(dataset).frames.shape[1] == 5


def test_clips_that_the_flow_could_not_follow_are_cut_again_slower(
    tmp_path: Path, drift: Drift
) -> None:
    # At a stride of 8 the texture would move by a whole crop; 0.2 of it is the limit.
    videos = {name: drift(60, pixels=2, width=96) for name in ("fast", "slow")}
    dataset = open_dataset(manifest(put(tmp_path / "videos", **videos), fast=8, slow=1))
    fast, slow = (np.abs(c.flow[:, 0, -1]).mean() for c in cut(dataset, num_train=4).train)
    assert fast < 2 * slow + 0.05


@pytest.mark.parametrize(
    ("fps", "speed", "pixels"),
    [
        (25.0, 1.0, 1.0),  # the videos' own rate
        (12.5, 1.0, 2.0),  # every second frame
        (10.0, 1.0, 2.5),  # not a whole number of frames
        (12.5, 0.5, 1.0),  # half as fast as recorded
        (25.0, 0.25, 1.0),  # slower than every frame is not possible
    ],
)
def test_natural_speed_follows_from_the_frame_rate(
    tmp_path: Path, drift: Drift, fps: float, speed: float, pixels: float
) -> None:
    write_video(tmp_path / "videos" / "sky.mp4", drift(70, height=64, width=64), fps=25)
    dataset = open_dataset(tmp_path / "videos")
    crops = one(dataset, fps=fps, speed=speed, num_train=6, num_held_out=1, size=64, grid=8)
    per_frame = np.abs(crops.flow[:, 0, -1]).mean() * 64 / T  # of a frame of 60 to 100 %
    assert 0.75 * pixels < per_frame < 2.2 * pixels


def test_duplicate_frames_do_not_count(tmp_path: Path, drift: Drift) -> None:
    videos = {"a": drift(30), "b": np.repeat(drift(4), 3, axis=0), "c": drift(30)}
    crops = cut(open_dataset(put(tmp_path / "videos", **videos)))
    assert crops.skipped == ("skipped b: a clip needs 5 distinct frames, it has 4",)
    assert [c.scene.name for c in crops.train] == ["c"]


def test_the_same_pixels_give_the_same_crops_however_they_are_packed(
    tmp_path: Path, drift: Drift
) -> None:
    """Consecutive clips of a long video are read as one."""
    frames = drift(620, height=16, width=20)
    dataset = open_dataset(put(tmp_path / "videos", a=frames, b=frames[:9], c=frames[:9], d=frames))
    scene = next(scene for scene in find_scenes(dataset) if scene.name == "a")
    assert len(scene.clips) == 3
    read = np.concatenate([dataset.read(position).frames for position in scene.clips])
    assert np.array_equal(read, read_video(tmp_path / "videos" / "a.npy").frames)


def test_videos_that_are_too_short_are_named(tmp_path: Path, drift: Drift) -> None:
    dataset = open_dataset(put(tmp_path / "videos", a=drift(6)))
    with pytest.raises(
        UserError,
        match=r"nothing .*5 distinct frames.*skipped a: .* has 4; skipped a, end.* has 2; use",
    ):
        cut(dataset)
    assert not list(dataset.cache.rglob("*.npy"))


def test_damaged_crops_are_named(sky: PackedDataset) -> None:
    one(sky)
    for kept in (sky.folder / "cache" / "crops").iterdir():
        (kept / "flow.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"damaged.*delete the folder"):
        one(sky)


def test_a_full_disk_leaves_no_crops(
    sky: PackedDataset, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with small_disk(5000), pytest.raises(UserError, match="disk is full"):
        one(sky)
    assert not list(sky.cache.rglob("*.npy"))
