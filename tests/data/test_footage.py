"""Loose clips: which are found, how they are resampled, what is held out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.footage import Footage, Survey, cut_footage, survey
from cinnema.media.videos import write_video

Drift = Callable[..., NDArray[np.uint8]]
T = 4


def look(root: Path, **options: Any) -> tuple[Survey, list[str]]:
    told: list[str] = []
    settings = {"fps": 8.0, "speed": 1.0, "num_frames": T, "tell": told.append, **options}
    return survey(root, **settings), told


def cut(root: Path, found: Survey, cache: Path, **options: Any) -> Footage:
    settings = {
        "share": 0.25, "num_train": 16, "num_held_out": 3, "size": 32, "num_frames": T, "grid": 8,
        **options,
    }  # fmt: skip
    return cut_footage(root, found, cache=cache, **settings)


def test_clips_are_found_in_folders_and_the_unusable_are_told(tmp_path: Path, drift: Drift) -> None:
    root = tmp_path / "clips"
    write_video(root / "a.mp4", drift(12), fps=8)
    write_video(root / "deep" / "b.gif", drift(12), fps=8)
    write_video(root / "frames.png", drift(12), fps=8)
    write_video(root / "short.mp4", drift(T), fps=8)
    (root / "broken.mp4").write_bytes(b"not a video")
    (root / "notes.txt").write_text("no video either")
    found, told = look(root)
    assert [clip.name for clip in found.clips] == ["a.mp4", "deep/b.gif", "frames"]
    assert list(found.skipped) == told
    assert len(told) == 2
    assert "broken.mp4 is not a video that can be read" in told[0]
    assert "short.mp4 is too short: a clip needs 5 distinct frames, it has 4" in told[1]


@pytest.mark.parametrize(
    ("fps", "speed", "taken"),
    [
        (8, 1.0, (1.0, 1)),  # the model's own rate
        (6, 1.0, (1.0, 1)),  # slower: every frame
        (16, 1.0, (1.0, 2)),
        (30, 1.0, (1.875, 2)),  # no whole number of frames
        (30, 0.25, (1.0, 1)),  # four times slower than filmed
        (8, 2.0, (1.0, 2)),
        (16, 0.5, (1.0, 1)),
    ],
)
def test_frames_are_taken_at_the_models_rate(
    tmp_path: Path, drift: Drift, fps: int, speed: float, taken: tuple[float, int]
) -> None:
    write_video(tmp_path / "clips" / "a.mp4", drift(24), fps=fps)
    (clip,) = look(tmp_path / "clips", speed=speed)[0].clips
    assert (clip.step, clip.stride) == pytest.approx(taken)
    assert clip.num_frames == int(np.ceil(24 / clip.step))


def test_a_drift_is_as_fast_whatever_the_frame_rate(tmp_path: Path, drift: Drift) -> None:
    ends = []
    for fps, pixels in ((16, 1), (32, 0.5)):  # the same motion, filmed at two rates
        root = tmp_path / str(fps)
        write_video(root / "a.npy", drift(2 * fps, pixels=pixels), fps=fps)
        told = {"fps": 25.0 * 8 / fps}  # an array carries no rate, and 25 is taken for it
        crops = cut(root, look(root, **told)[0], tmp_path / str(fps), num_train=8).train[0]
        ends.append(float(np.abs(crops.flow[:, 0, -1]).mean()))
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


def test_of_one_clip_the_end_is_held_out(tmp_path: Path) -> None:
    root = tmp_path / "clips"
    write_video(root / "a.mp4", brightening(40), fps=8)
    footage = cut(root, look(root)[0], tmp_path / "cache")
    (train,), (held_out,) = footage.train, footage.held_out
    assert train.frames.max() < held_out.frames.min() + 2
    assert (len(train), len(held_out)) == (16, 3)
    assert footage.rule == "the end of each clip is held out, 25% of it or one clip's length"


def test_of_three_clips_one_is_held_out_whole(tmp_path: Path, drift: Drift) -> None:
    root = tmp_path / "clips"
    for name in ("a", "b", "a_b"):
        write_video(root / f"{name}.mp4", drift(12), fps=8)
    footage = cut(root, look(root)[0], tmp_path / "cache")
    names = [[c.scene.source for c in side] for side in (footage.train, footage.held_out)]
    assert sorted(names[0] + names[1]) == ["a.mp4", "a_b.mp4", "b.mp4"]
    assert len(names[1]) == 1
    assert footage.rule == f"whole clips are held out: {names[1][0]}"


def test_clips_of_names_alike_do_not_share_their_crops(tmp_path: Path, drift: Drift) -> None:
    root = tmp_path / "clips"
    write_video(root / "a" / "b.mp4", drift(20), fps=8)
    write_video(root / "a_b.mp4", 255 - drift(20), fps=8)
    one, other = cut(root, look(root)[0], tmp_path / "cache").train
    assert not np.array_equal(one.frames, other.frames)


def test_a_survey_is_kept_for_the_same_files_only(tmp_path: Path, drift: Drift) -> None:
    root, cache = tmp_path / "clips", tmp_path / "cache"
    write_video(root / "a.mp4", drift(12), fps=8)
    first, _ = look(root, cache=cache)
    assert look(root, cache=cache)[0] == first
    write_video(root / "b.mp4", drift(14), fps=8)
    more, _ = look(root, cache=cache)
    assert [clip.name for clip in more.clips] == ["a.mp4", "b.mp4"]
    assert more.digest != first.digest
    assert look(root, cache=cache, speed=0.5)[0].digest != more.digest


def test_a_folder_without_a_usable_clip_is_refused(tmp_path: Path, drift: Drift) -> None:
    with pytest.raises(UserError, match="nowhere"):
        look(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty contains no video"):
        look(tmp_path / "empty")
    write_video(tmp_path / "clips" / "a.mp4", drift(T), fps=8)
    with pytest.raises(UserError, match=r"none of its 1 videos can be used.*too short"):
        look(tmp_path / "clips")


def test_a_clip_of_which_nothing_can_be_held_out_is_refused(tmp_path: Path, drift: Drift) -> None:
    root = tmp_path / "clips"
    write_video(root / "a.mp4", drift(T + 2), fps=8)
    with pytest.raises(
        UserError, match=r"a\.mp4: nothing can be held out, as it takes 10 .* has 6"
    ):
        cut(root, look(root)[0], tmp_path / "cache")
    write_video(root / "b.mp4", drift(20), fps=8)
    footage = cut(root, look(root)[0], tmp_path / "cache")  # the short one trains
    assert [c.scene.source for c in footage.train] == ["a.mp4", "b.mp4"]
    assert [c.scene.source for c in footage.held_out] == ["b.mp4"]


def test_a_clip_that_went_away_is_named(tmp_path: Path, drift: Drift) -> None:
    root = tmp_path / "clips"
    write_video(root / "a.mp4", drift(20), fps=8)
    found, _ = look(root)
    shutil.rmtree(root)
    with pytest.raises(UserError, match=r"a\.mp4 does not exist"):
        cut(root, found, tmp_path / "cache")


def brightening(num_frames: int) -> NDArray[np.uint8]:
    """A texture that gets brighter from frame to frame, so that a frame tells its time."""
    noise = np.random.default_rng(0).integers(0, 3, (48, 64, 1))
    frames = [np.repeat(noise + 20 + 5 * t, 3, axis=-1) for t in range(num_frames)]
    return np.stack(frames).astype(np.uint8)
