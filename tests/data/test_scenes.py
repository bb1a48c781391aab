"""Which scenes train and which validate, and the crops that are cut from them."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.core.errors import UserError
from cinnema.data.scenes import Scene, SceneCrops, find_scenes, load_crops

Make = Callable[..., Any]


def splits(root: Path, *textures: str, **options: Any) -> dict[str, str]:
    return {scene.name: scene.split for scene in find_scenes(root, textures=textures, **options)}


def test_every_third_scene_of_a_texture_validates(manifest: Make) -> None:
    fires = [{"path": f"f{index}.mp4", "texture": "fire"} for index in range(4)]
    root = manifest("e", "a", "d", "c", "b", *fires)  # by name, however the manifest lists them
    assert splits(root, "clouds", "fire") == {
        "a": "validation", "b": "train", "c": "train", "d": "validation", "e": "train",
        "f0": "validation", "f1": "train", "f2": "train", "f3": "validation",
    }  # fmt: skip
    assert list(splits(root, "fire")) == ["f0", "f1", "f2", "f3"]


def test_excluded_scenes_and_those_of_many_duplicates_are_left_out(manifest: Make) -> None:
    many = {"path": "b.mp4", "texture": "clouds", "duplicate_share": 0.85}
    few = {"path": "c.mp4", "texture": "clouds", "duplicate_share": 0.1}
    root = manifest("a", many, few, "d")
    assert splits(root, "clouds", excluded=("a",)) == {"c": "validation", "d": "train"}


def test_a_scene_is_as_the_manifest_states_it(manifest: Make) -> None:
    entry = {
        "path": "video/sky.one.mp4", "texture": "clouds", "suggested_stride": 4, "source": "a site",
        "licence": "CC0", "width": 64,
    }  # fmt: skip
    root = manifest(entry, "z")
    first, second = find_scenes(root, textures=("clouds",))
    assert first == Scene(
        name="sky.one", texture="clouds", path=root / "video/sky.one.mp4", stride=4,
        split="validation", source="a site", licence="CC0",
    )  # fmt: skip
    assert (second.stride, second.source, second.licence) == (1, "not stated", "not stated")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"path": "a.mp4"}', "not a list"),
        (b'[{"path": "a.mp4", "texture": "clouds"}, {"path": "b.mp4"}]', "entry 1 has no path or"),
        (b'["a.mp4"]', "entry 0"),
        (b"[]", "no scene of clouds"),
        (b'[{"path": "a.mp4", "texture": "fire"}]', "no scene of clouds"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"manifest\.json: {said}") as caught:
        find_scenes(tmp_path, textures=("clouds",))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(UserError, match=r"manifest\.json: no manifest.*--data"):
            find_scenes(root, textures=("clouds",))


def test_two_scenes_of_one_name_are_refused(manifest: Make) -> None:
    root = manifest("one/sky", "two/sky")
    with pytest.raises(UserError, match="two scenes are named sky"):
        find_scenes(root, textures=("clouds",))


def scene_of(path: Path, *, stride: int = 1) -> Scene:
    return Scene(
        name=path.stem, texture="clouds", path=path, stride=stride, split="train",
        source="", licence="",
    )  # fmt: skip


def crops_of(scene: Scene, cache: Path, **options: Any) -> SceneCrops:
    settings = {"num": 3, "size": 32, "num_frames": 4, "grid": 8, **options}
    return load_crops(scene, cache=cache, **settings)


@pytest.mark.parametrize("name", ["sky.mp4", "sky.png"])  # the latter is a folder of frames
def test_crops_have_the_shapes_that_were_asked_for(
    tmp_path: Path, drift: Make, write_clip: Make, name: str
) -> None:
    crops = crops_of(scene_of(write_clip(name, drift())), tmp_path / "cache")
    assert (len(crops), crops.frames.shape, crops.frames.dtype) == (3, (3, 5, 32, 32, 3), np.uint8)
    assert (crops.flow.shape, crops.flow.dtype) == ((3, 2, 4, 8, 8), np.float32)
    assert (crops.motion.shape, crops.motion.dtype) == ((3, 16, 16), np.float32)


def test_a_drift_to_the_right_has_a_flow_to_the_left(
    tmp_path: Path, drift: Make, write_clip: Make
) -> None:
    video = write_clip("sky.mp4", drift(12, pixels=1))
    crops = crops_of(scene_of(video), tmp_path, num=6)
    x, y = crops.flow.mean(axis=(0, 3, 4))
    assert (x < 0).all()
    assert (np.diff(x) < 0).all()  # further with every frame
    assert (np.abs(y) < 0.2 * np.abs(x)).all()
    longest = np.hypot(*(crops.flow.transpose(1, 0, 2, 3, 4) * 32)).max(axis=1).mean()
    assert crops.motion.mean() == pytest.approx(longest, rel=0.3)


def test_a_scene_is_cut_once(tmp_path: Path, drift: Make, write_clip: Make) -> None:
    video = write_clip("sky.mp4", drift())
    first = crops_of(scene_of(video), tmp_path / "cache")
    video.unlink()
    second = crops_of(scene_of(video), tmp_path / "cache")
    for name in ("frames", "flow", "motion"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_the_seed_decides_the_crops(tmp_path: Path, drift: Make, write_clip: Make) -> None:
    scene = scene_of(write_clip("sky.mp4", drift()))
    here = crops_of(scene, tmp_path / "here").frames
    assert np.array_equal(here, crops_of(scene, tmp_path / "there").frames)
    assert not np.array_equal(here, crops_of(scene, tmp_path / "here", seed=1).frames)


def test_a_large_stride_is_cut_to_what_the_video_has(
    tmp_path: Path, drift: Make, write_clip: Make
) -> None:
    scene = scene_of(write_clip("sky.mp4", drift(6)), stride=30)
    assert crops_of(scene, tmp_path / "cache").frames.shape[1] == 5


def test_clips_that_the_flow_could_not_follow_are_cut_again_slower(
    tmp_path: Path, drift: Make, write_clip: Make
) -> None:
    # At its stride of 8 the texture would move by a whole crop; 0.2 of it is the most.
    scene = scene_of(write_clip("sky.mp4", drift(40, pixels=2, width=96)), stride=8)
    crops = crops_of(scene, tmp_path / "cache", num=4)
    slow = crops_of(dataclasses.replace(scene, stride=1), tmp_path / "slow", num=4)
    assert np.abs(crops.flow[:, 0, -1]).mean() < 2 * np.abs(slow.flow[:, 0, -1]).mean() + 0.05


def test_tall_videos_are_made_smaller(tmp_path: Path, drift: Make, write_clip: Make) -> None:
    scene = scene_of(write_clip("sky.mp4", drift(5, height=720, width=48)))
    assert crops_of(scene, tmp_path / "cache", num=1).frames.shape == (1, 5, 32, 32, 3)


def test_a_video_that_is_too_short_is_named(tmp_path: Path, drift: Make, write_clip: Make) -> None:
    scene = scene_of(write_clip("sky.mp4", drift(4)))
    with pytest.raises(UserError, match=r"sky\.mp4: a clip needs 5 distinct frames, it has 4"):
        crops_of(scene, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_duplicate_frames_do_not_count(tmp_path: Path, drift: Make, write_clip: Make) -> None:
    scene = scene_of(write_clip("sky.npy", np.repeat(drift(4), 3, axis=0)))
    with pytest.raises(UserError, match="5 distinct frames, it has 4"):
        crops_of(scene, tmp_path / "cache")


def test_damaged_crops_are_named(tmp_path: Path, drift: Make, write_clip: Make) -> None:
    scene = scene_of(write_clip("sky.mp4", drift()))
    crops_of(scene, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    (kept / "flow.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"sky-3x4.*damaged.*delete the folder"):
        crops_of(scene, tmp_path / "cache")
    (kept / "flow.npy").unlink()
    with pytest.raises(UserError, match="damaged"):
        crops_of(scene, tmp_path / "cache")


def test_a_full_disk_leaves_no_crops(
    tmp_path: Path,
    drift: Make,
    write_clip: Make,
    small_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    scene = scene_of(write_clip("sky.mp4", drift()))
    with small_disk(5000), pytest.raises(UserError, match="disk is full"):
        crops_of(scene, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
