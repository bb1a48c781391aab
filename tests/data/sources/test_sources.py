"""What all sources that read files have in common."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinnema.data.records import SPLITS, ClipSource
from cinnema.data.sources.bair import Bair
from cinnema.data.sources.dtdb import DTDB
from cinnema.data.sources.folder import Folder
from cinnema.data.sources.iper import IPer
from cinnema.data.sources.landscape import Landscape
from cinnema.media.videos import write_video

Make = Callable[..., Any]
NAMES = ("bair", "bair pictures", "landscape", "iper", "dtdb", "folder")


@pytest.fixture(scope="module", params=NAMES)
def source(request: Any, film: Make, write_pictures: Make, bair_features: Make) -> ClipSource:
    root: Path = request.getfixturevalue("tmp_path_factory").mktemp("source")
    tfrecord = request.getfixturevalue("tfrecord")

    def bair() -> ClipSource:
        (root / "train").mkdir()
        records = [tfrecord.framed(tfrecord.example(bair_features(seed))) for seed in (0, 1)]
        (root / "train/traj_0_to_1.tfrecords").write_bytes(b"".join(records))
        return Bair(root)

    def bair_pictures() -> ClipSource:
        for number in (1, 2):
            folder = write_pictures(root / f"test/traj_0_to_1/{number}", film(30), "{}.png")
            np.savetxt(folder / "endeffector_positions.csv", np.ones((30, 3)), delimiter=",")
        return Bair(root, size=32)

    def landscape() -> ClipSource:
        for place in ("sky_train/a/a_1", "sky_train/b/b_1", "sky_train/b/b_2", "sky_test/c/c_1"):
            write_pictures(root / place, film(18), "frame{}.jpg")
        return Landscape(root, size=32)

    def iper() -> ClipSource:
        write_pictures(root / "001_1_2", film(18), "frame_{}.png")
        write_video(root / "002_1_1.mp4", film(40), fps=30)
        return IPer(root, size=32, max_frames=20)

    def dtdb() -> ClipSource:
        for place in ("train/a", "train/b", "eval/c"):
            write_pictures(root / "fire" / place, film(18), "frame{}.png")
        return DTDB(root, "fire", size=32)

    def folder() -> ClipSource:
        write_video(root / "a.gif", film(18), fps=10)
        np.savez(root / "b.npz", x=film(40), y=film(18))
        return Folder(root, size=32, max_frames=20)

    made = (bair, bair_pictures, landscape, iper, dtdb, folder)
    source: ClipSource = dict(zip(NAMES, made, strict=True))[request.param]()
    return source


def test_a_source_is_one(source: ClipSource) -> None:
    assert isinstance(source, ClipSource)
    assert source.name
    assert all(item.split in SPLITS for item in source.items())
    assert len({item.name for item in source.items()}) == len(source.items())


def test_clips_are_as_promised(source: ClipSource, clips_of: Make) -> None:
    clips = clips_of(source)
    assert len({clip.name for clip in clips}) == len(clips) >= 2
    for clip in clips:
        assert clip.frames.dtype == np.uint8
        assert clip.frames.shape[1:] == (source.size, source.size, 3)
        assert clip.fps > 0
        assert all(len(track) == len(clip.frames) for track in clip.tracks.values())
        assert all(track.dtype == np.float32 for track in clip.tracks.values())
        if source.control is not None:
            width = clip.tracks[source.control.name].shape[1]
            assert width == len(source.control.labels)


def test_a_pickled_source_reads_the_same(source: ClipSource, clips_of: Make) -> None:
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert again.items() == source.items()
    for one, other in zip(clips_of(source), clips_of(again), strict=True):
        assert (one.name, one.source, one.fps) == (other.name, other.source, other.fps)
        assert np.array_equal(one.frames, other.frames)
        assert one.tracks.keys() == other.tracks.keys()
        assert all(np.array_equal(one.tracks[key], other.tracks[key]) for key in one.tracks)


def test_sources_of_a_clip_are_on_one_side(source: ClipSource) -> None:
    sides: dict[str, set[str]] = {}
    for item in source.items():
        for clip in source.read(item):
            sides.setdefault(clip.source, set()).add(item.split)  # type: ignore[union-attr]
    assert all(len(side) == 1 for side in sides.values())


def test_settings_are_json_without_paths(source: ClipSource) -> None:
    settings = source.settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["size"] == source.size
    root: Path = source.root  # type: ignore[attr-defined]
    assert settings["root"] == root.name
    assert str(root.parent) not in json.dumps(settings)
