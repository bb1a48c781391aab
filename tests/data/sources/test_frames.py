"""Frames made square, streams cut into clips, and what is wrong with files said in a clause."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cinnema.core.errors import UserError
from cinnema.data.records import BadRecord, RawClip
from cinnema.data.sources.frames import (
    Cutting,
    bad_record,
    below,
    count_pictures,
    numbered_pictures,
    picture_frames,
    square,
    subfolders,
)

Make = Callable[..., Any]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 50), st.integers(1, 50), st.integers(1, 40), st.sampled_from(["stretch", "crop"])
)
def test_frames_of_any_size_become_square(height: int, width: int, size: int, fit: Any) -> None:
    out = square(noise(height, width), size, fit=fit)
    assert (out.shape, out.dtype) == ((size, size, 3), np.uint8)


def test_a_frame_of_the_size_is_kept_to_the_bit() -> None:
    frame = noise(32, 32)
    assert np.array_equal(square(frame, 32), frame)


def test_shrinking_takes_means_over_areas() -> None:
    frame = noise(32, 64)
    means = frame.reshape(16, 2, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(square(frame, 16) - means).max() <= 0.5
    area = cv2.resize(frame, (10, 10), interpolation=cv2.INTER_AREA)
    assert np.array_equal(square(frame, 10), area)


def test_a_side_that_grows_does_not_spoil_the_means_of_the_other() -> None:
    frame = np.zeros((8, 64, 3), np.uint8)
    frame[:, ::4] = 200  # one column in four: 50 on average
    assert (square(frame, 16) == 50).all()


def test_cropping_keeps_the_middle() -> None:
    frame = np.zeros((10, 30, 3), np.uint8)
    frame[:, 10:20] = 255
    assert (square(frame, 5, fit="crop") == 255).all()
    assert (square(np.rot90(frame), 5, fit="crop") == 255).all()


def stream(count: int, *, bad: bool = False) -> Iterator[Any]:
    for index in range(count):
        yield np.full((4, 6, 3), index, np.uint8)
    if bad:
        yield BadRecord(name="v/7.png", reason="it is gone")


def lengths(clips: list[Any]) -> list[Any]:
    return [len(clip.frames) if isinstance(clip, RawClip) else clip.name for clip in clips]


@given(st.integers(0, 60), st.integers(1, 8), st.integers(0, 12))
def test_a_stream_is_cut_without_loss_but_for_a_short_rest(
    count: int, least: int, more: int
) -> None:
    most = least + more
    clips = list(
        Cutting(size=4, min_frames=least, max_frames=most).cut(
            stream(count), name="v", source="v", fps=5
        )
    )
    if count < least:
        assert clips == [BadRecord(name="v", reason=f"it has {count} frames, fewer than {least}")]
        return
    whole, rest = divmod(count, most)
    assert lengths(clips) == [most] * whole + [rest] * (rest >= least)
    assert [clip.name for clip in clips] == [f"v/{k}" for k in range(len(clips))]
    frames = np.concatenate([clip.frames for clip in clips if isinstance(clip, RawClip)])
    assert np.array_equal(frames[:, 0, 0, 0], np.arange(len(frames)))


def test_without_a_longest_length_a_stream_is_one_clip() -> None:
    (clip,) = Cutting(size=4).cut(stream(50), name="v", source="s", fps=5)
    assert isinstance(clip, RawClip)
    assert (clip.name, clip.source, clip.fps, len(clip.frames)) == ("v", "s", 5, 50)


def test_damage_ends_a_stream_and_drops_the_clip_that_was_begun() -> None:
    frames = stream(9, bad=True)
    clips = list(Cutting(size=4, max_frames=4).cut(frames, name="v", source="v", fps=5))
    assert lengths(clips) == [4, 4, "v/7.png"]


def test_pictures_that_are_frames_come_in_the_order_of_their_numbers(
    tmp_path: Path, film: Make, write_pictures: Make
) -> None:
    frames = film(12, height=8, width=8)
    write_pictures(tmp_path, frames, "frame{}.png")
    write_pictures(tmp_path, [frames[0]], "cover.png")
    (tmp_path / ".frame99.png").touch()
    paths = numbered_pictures(tmp_path, root=tmp_path)
    assert isinstance(paths, list)
    assert [path.name for path in paths] == [f"frame{k}.png" for k in range(12)]
    found = list(picture_frames(paths, root=tmp_path))
    assert np.array_equal(np.stack([f for f in found if not isinstance(f, BadRecord)]), frames)
    assert count_pictures(tmp_path) == 13


def test_frames_may_begin_anywhere_but_not_have_gaps(
    tmp_path: Path, film: Make, write_pictures: Make
) -> None:
    folder = write_pictures(tmp_path / "v", film(9, height=4, width=4), "frame_10{}.jpg")
    assert len(numbered_pictures(folder, root=tmp_path)) == 9  # type: ignore[arg-type]
    (folder / "frame_104.jpg").unlink()
    gap = numbered_pictures(folder, root=tmp_path)
    assert gap == BadRecord(name="v", reason="frame 104 is missing")
    assert list(picture_frames(gap, root=tmp_path)) == [gap]
    write_pictures(folder, film(1, height=4, width=4), "frame_0104.jpg")
    write_pictures(folder, film(1, height=4, width=4), "frame104.png")
    twice = numbered_pictures(folder, root=tmp_path)
    assert isinstance(twice, BadRecord)
    assert (twice.name, twice.reason) == ("v/frame_0104.jpg", "frame 104 exists twice")


def test_other_names_may_have_gaps(tmp_path: Path, film: Make, write_pictures: Make) -> None:
    write_pictures(tmp_path, film(4, height=4, width=4), "id_frames_0{}7.jpg")
    (tmp_path / "id_frames_017.jpg").unlink()
    paths = numbered_pictures(tmp_path, root=tmp_path)
    assert isinstance(paths, list)
    assert [path.stem[-3:] for path in paths] == ["007", "027", "037"]


def test_a_folder_without_pictures_is_a_bad_record(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    bad = numbered_pictures(tmp_path / "v", root=tmp_path)
    assert isinstance(bad, BadRecord)
    assert (bad.name, bad.reason[:20]) == ("v", "it holds no picture ")


@pytest.fixture(scope="module", params=["jpg", "png"])
def pictures(request: Any, film: Make, write_pictures: Make, tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("pictures")
    return write_pictures(folder, film(3, height=24), "frame{}." + request.param)  # type: ignore[no-any-return]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_picture_cut_short_is_named_unless_nothing_is_lost(pictures: Path, data: Any) -> None:
    paths = sorted(pictures.iterdir())
    before = list(picture_frames(paths, root=pictures))
    whole = paths[1].read_bytes()
    try:
        paths[1].write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        found = list(picture_frames(paths, root=pictures))
    finally:
        paths[1].write_bytes(whole)
    if isinstance(found[-1], BadRecord):
        assert (len(found), found[-1].name) == (2, paths[1].name)
        assert found[-1].reason.startswith("it is ")
    else:
        assert np.array_equal(np.stack(found), np.stack(before))  # type: ignore[arg-type]


def test_names_are_below_the_root_and_utf_8(tmp_path: Path) -> None:
    assert below(tmp_path / "a/b.mp4", tmp_path) == "a/b.mp4"
    with pytest.raises(UserError, match="whose name is not UTF-8: rename it"):
        below(tmp_path / "caf\udce9.mp4", tmp_path)


def test_folders_are_listed_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b", "a", ".c"):
        (tmp_path / name).mkdir()
    (tmp_path / "d").touch()
    assert subfolders(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert subfolders(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("/d/v.mp4 is empty, not a video: copy it again"), "it is empty, not a video"),
        (UserError("/d/v.mp4: frame 3 is small: give one size"), "frame 3 is small"),
        (UserError("/d/v.mp4 is gone"), "it is gone"),
        (UserError("a limit is reached: wait"), "a limit is reached"),
        (
            PermissionError(13, "Permission denied", "/d/v.mp4"),
            "it cannot be read (Permission denied)",
        ),
        (IndexError("index\nout of range"), "it is damaged or truncated (index out of range)"),
        (EOFError(), "it is damaged or truncated (EOFError)"),
    ],
)
def test_errors_become_clauses_without_paths(error: Exception, reason: str) -> None:
    assert bad_record(error, Path("/d/v.mp4"), Path("/d")) == BadRecord(name="v.mp4", reason=reason)
