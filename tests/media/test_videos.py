"""Videos from and to files."""

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.media import videos
from cinnema.media.formats import VIDEO_FORMATS
from cinnema.media.videos import iterate_frames, read_video, write_video

Moving = Callable[..., np.ndarray]
SmallDisk = Callable[[int], AbstractContextManager[None]]

small_videos = arrays(
    np.uint8,
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.just(3)),
)


@pytest.mark.parametrize("suffix", VIDEO_FORMATS)
def test_every_format_comes_back_as_it_was(tmp_path: Path, moving: Moving, suffix: str) -> None:
    frames = moving()
    path = tmp_path / f"a clip: 1.{suffix}"
    written = write_video(path, iter(frames), fps=8)
    assert written == (tmp_path / "a clip: 1" if suffix == "png" else path)
    video = read_video(written)
    assert video.path == written
    assert video.frames.shape == frames.shape
    assert video.fps == pytest.approx(25 if suffix in ("png", "npy") else 8, rel=0.01)
    error = video.frames.astype(int) - frames
    worst = {"mp4": 2.5, "gif": 5, "webp": 3, "png": 0, "npy": 0}[suffix]
    assert np.abs(error).mean() <= worst
    assert np.abs(error.mean(axis=(0, 1, 2))).max() <= worst / 5  # no channel is shifted
    assert [path.name for path in tmp_path.iterdir()] == [written.name]


@given(frames=small_videos, suffix=st.sampled_from(["png", "npy"]))
@settings(max_examples=25, deadline=None)
def test_png_and_npy_are_exact(frames: np.ndarray, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        written = write_video(Path(folder) / f"clip.{suffix}", frames, fps=8)
        assert np.array_equal(read_video(written).frames, frames)


@given(frames=small_videos)
@settings(max_examples=25, deadline=None)
def test_an_mp4_of_any_size_is_even_and_has_every_frame(frames: np.ndarray) -> None:
    with TemporaryDirectory() as folder:
        path = write_video(Path(folder) / "clip.mp4", frames, fps=8)
        read = read_video(path).frames
    t, h, w, _ = frames.shape
    assert read.shape == (t, h + h % 2, w + w % 2, 3)


def test_odd_sides_are_padded_with_their_edge(tmp_path: Path, moving: Moving) -> None:
    frames = moving(2, 47, 63)
    read = read_video(write_video(tmp_path / "clip.mp4", frames, fps=8)).frames.astype(int)
    assert np.abs(read[:, :47, :63] - frames).mean() < 2.5
    assert np.abs(read[:, 47, :63] - frames[:, 46]).mean() < 2.5


def test_an_mp4_is_what_every_player_takes(tmp_path: Path, moving: Moving) -> None:
    path = write_video(tmp_path / "clip.mp4", moving(), fps=29.97)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = context.color_range, context.colorspace, context.color_primaries, context.color_trc
        assert tags == (1, 1, 1, 1)  # limited range, BT.709 throughout
        assert stream.average_rate == pytest.approx(29.97, rel=1e-4)
        assert float(stream.duration * stream.time_base) == pytest.approx(6 / 29.97, rel=1e-3)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_the_same_frames_make_the_same_mp4(tmp_path: Path) -> None:
    """Whatever memory held before: x264 reads some that it has not written."""
    generator = np.random.default_rng(0)
    picture = cv2.GaussianBlur(generator.integers(0, 256, (64, 96, 3), np.uint8), (0, 0), 2)
    frames = np.stack([np.roll(picture, t, axis=1) for t in range(60)])
    frames = np.clip(frames + generator.integers(-2, 3, frames.shape), 0, 255).astype(np.uint8)
    made = set()
    for _ in range(4):
        sizes = generator.integers(1_000, 400_000, 60)
        used = [generator.integers(0, 256, size, np.uint8) for size in sizes]
        del used
        made.add(write_video(tmp_path / "a.mp4", frames, fps=24, overwrite=True).read_bytes())
    assert len(made) == 1


def test_pure_colours_survive_an_mp4(tmp_path: Path) -> None:
    for colour in ([255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]):
        frames = np.full((2, 32, 32, 3), colour, np.uint8)
        path = write_video(tmp_path / "clip.mp4", frames, fps=8, overwrite=True)
        assert np.abs(read_video(path).frames.astype(int) - colour).max() <= 4


def test_a_turned_video_comes_out_upright(tmp_path: Path, moving: Moving) -> None:
    frames = moving()
    path = write_video(tmp_path / "phone.mp4", frames, fps=8)
    content = path.read_bytes()
    upright = (1, 0, 0, 0, 1, 0)
    clockwise = (0, 1, 0, -1, 0, 0)  # the matrix that a phone held upright writes
    track = content.index(b"tkhd")
    start = content.index(matrix(upright), track)
    content = content[:start] + matrix(clockwise) + content[start + 24 :]
    path.write_bytes(content)
    read = read_video(path).frames
    assert np.abs(read - np.rot90(frames, -1, axes=(1, 2)).astype(int)).mean() < 2.5


def matrix(entries: tuple[int, ...]) -> bytes:
    return b"".join((entry * 65_536).to_bytes(4, "big", signed=True) for entry in entries)


def test_animated_pictures_keep_the_rate_over_the_whole(tmp_path: Path, moving: Moving) -> None:
    for suffix, fps in (("gif", 8), ("gif", 30), ("webp", 29.97)):
        path = tmp_path / f"{fps}.{suffix}"
        write_video(path, moving(30), fps=fps)
        video = read_video(path)
        assert len(video.frames) == 30
        assert video.fps == pytest.approx(fps, rel=0.005)
        with Image.open(path) as image:
            assert image.info["loop"] == 0


def test_still_parts_of_a_gif_stay_still(tmp_path: Path, moving: Moving) -> None:
    frames = moving(8)
    frames[:, 24:] = frames[:1, 24:]
    read = read_video(write_video(tmp_path / "clip.gif", frames, fps=8)).frames.astype(int)
    assert np.abs(np.diff(read[:, 36:], axis=0)).mean() < 1


def test_frames_are_taken_by_stride_and_number(tmp_path: Path, moving: Moving) -> None:
    frames = moving(10)
    path = write_video(tmp_path / "clip.npy", frames, fps=8)
    video = read_video(path, max_frames=3, stride=4)
    assert np.array_equal(video.frames, frames[[0, 4, 8]])
    assert video.fps == 25 / 4
    assert np.array_equal(list(iterate_frames(path, stride=3)), frames[::3])
    assert np.array_equal(list(iterate_frames(path, max_frames=2)), frames[:2])
    for options in ({"stride": 0}, {"max_frames": 0}):
        with pytest.raises(UserError, match="must be at least 1, got 0"):
            read_video(path, **options)


def test_frames_are_written_as_they_come(tmp_path: Path, moving: Moving) -> None:
    """No more than two frames of an mp4 or of pictures are held at a time."""

    def source() -> Iterator[np.ndarray]:
        for frame in moving(20):
            alive.append(frame)
            yield frame
            alive.remove(frame) if frame in alive else None

    class Alive(list[np.ndarray]):
        def remove(self, frame: np.ndarray) -> None:
            self[:] = [other for other in self if other is not frame]

        def __contains__(self, frame: object) -> bool:
            return any(other is frame for other in self)

        def append(self, frame: np.ndarray) -> None:
            super().append(frame)
            assert len(self) <= 2

    alive = Alive()
    for suffix in ("mp4", "png"):
        write_video(tmp_path / f"clip.{suffix}", source(), fps=8)


def test_frame_folders_are_read_in_natural_order(tmp_path: Path, moving: Moving) -> None:
    frames = moving(12)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{index}.png")
    assert np.array_equal(read_video(tmp_path).frames, frames)


def test_frames_of_two_sizes_are_refused(tmp_path: Path, moving: Moving) -> None:
    Image.fromarray(moving()[0]).save(tmp_path / "0.png")
    Image.fromarray(moving()[0, :-1]).save(tmp_path / "1.png")
    with pytest.raises(UserError, match="frame 1 is 64x47 pixels, the first 64x48"):
        read_video(tmp_path)
    mixed = [moving()[0], moving()[0, :-1]]
    for suffix in VIDEO_FORMATS:
        with pytest.raises(UserError, match="frame 1 is 64x47 pixels, the first 64x48"):
            write_video(tmp_path / f"clip.{suffix}", iter(mixed), fps=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png"]


def bad_videos(folder: Path, clip: bytes) -> dict[str, str]:
    (folder / "cut.mp4").write_bytes(clip[: len(clip) // 3])
    (folder / "words.mp4").write_text("no video, but words")
    (folder / "words.gif").write_text("no video, but words")
    (folder / "words.npy").write_text("no video, but words")
    (folder / "empty.mp4").touch()
    (folder / "none").mkdir()
    np.save(folder / "float.npy", np.zeros((2, 4, 4, 3)))
    np.save(folder / "grey.npy", np.zeros((2, 4, 4), np.uint8))
    np.save(folder / "nothing.npy", np.zeros((0, 4, 4, 3), np.uint8))
    np.save(folder / "objects.npy", np.array([None]), allow_pickle=True)
    return {
        "cut.mp4": "not a video that can be read|damaged or cut short|no frame",
        "words.mp4": "not a video",
        "words.gif": "not a video",
        "words.npy": "damaged or cut short",
        "empty.mp4": "is empty",
        "missing.mp4": "does not exist",
        "none": "holds no picture",
        "float.npy": r"holds float64 \(2, 4, 4, 3\): save the video as uint8",
        "grey.npy": r"holds uint8 \(2, 4, 4\)",
        "nothing.npy": "there is no frame",
        "objects.npy": "damaged or cut short",
    }


def test_what_is_no_video_is_named_in_one_line(tmp_path: Path, moving: Moving) -> None:
    clip = write_video(tmp_path / "clip.mp4", moving(), fps=8).read_bytes()
    for name, complaint in bad_videos(tmp_path, clip).items():
        for read in (read_video, iterate_frames):
            with pytest.raises(UserError, match=complaint) as caught:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [60, 12_000, 60_000])
def test_a_later_page_of_a_gif_that_states_a_huge_size_is_not_decoded(
    tmp_path: Path, moving: Moving, side: int
) -> None:
    content = bytearray(write_video(tmp_path / "a.gif", moving(32, 48), fps=8).read_bytes())
    control = b"\x21\xf9\x04"
    page = content.index(control, content.index(control) + 1) + 8
    assert content[page : page + 1] == b","
    content[page + 5 : page + 9] = 2 * side.to_bytes(2, "little")
    (tmp_path / "a.gif").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"a\.gif"):
        read_video(tmp_path / "a.gif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB


def test_a_sound_file_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
    with pytest.raises(UserError, match="has no video in it"):
        read_video(path)


@pytest.mark.parametrize(
    ("name", "fps", "complaint"),
    [
        ("clip.xyz", 8, r"use one of \.mp4, \.gif"),
        ("clip", 8, "no suffix of a video format"),
        ("clip.mp4", 0, "fps must be above 0 and up to 240, got 0"),
        ("clip.mp4", float("nan"), "fps must be above 0"),
        ("clip.gif", 60, "up to 50, got 60"),
    ],
)
def test_formats_and_rates_out_of_range_are_refused(
    tmp_path: Path, moving: Moving, name: str, fps: float, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        write_video(tmp_path / name, moving(), fps=fps)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", VIDEO_FORMATS)
def test_no_frames_and_frames_of_floats_are_refused(tmp_path: Path, suffix: str) -> None:
    for frames, complaint in (
        ([], "there is no frame"),
        ([np.zeros((4, 4, 3))], "frame 0 is float64"),
        ([np.zeros((4, 4), np.uint8)], "frame 0 is uint8"),
    ):
        with pytest.raises(UserError, match=complaint):
            write_video(tmp_path / f"clip.{suffix}", iter(frames), fps=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", VIDEO_FORMATS)
def test_an_existing_video_is_kept_unless_told_otherwise(
    tmp_path: Path, moving: Moving, suffix: str
) -> None:
    path = tmp_path / f"clip.{suffix}"
    written = write_video(path, moving(3), fps=8)
    with pytest.raises(UserError, match="exists already"):
        write_video(path, moving(4), fps=8)
    assert len(read_video(written).frames) == 3
    write_video(path, moving(4), fps=8, overwrite=True)
    assert len(read_video(written).frames) == 4


def test_a_folder_with_more_than_frames_is_never_overwritten(
    tmp_path: Path, moving: Moving
) -> None:
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="holds more than frames"):
        write_video(tmp_path / "clip.png", moving(), fps=8, overwrite=True)
    assert (tmp_path / "clip" / "diary.txt").exists()


@pytest.mark.parametrize("suffix", VIDEO_FORMATS)
def test_a_disk_that_fills_up_is_named_and_nothing_is_left(
    tmp_path: Path, small_disk: SmallDisk, suffix: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"clip.{suffix}"
    with (
        pytest.raises(UserError, match=r"disk is full.*free some space") as caught,
        small_disk(5000),
    ):
        write_video(path, noise, fps=8)
    assert str(path.with_suffix("") if suffix == "png" else path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_pyavs_own_error_of_a_full_disk_is_understood(
    tmp_path: Path, moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        av.error.err_check(-errno.ENOSPC)

    monkeypatch.setattr(videos, "_to_yuv", full)
    with pytest.raises(UserError, match=r"clip\.mp4 could not be written.*full"):
        write_video(tmp_path / "clip.mp4", moving(), fps=8)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", VIDEO_FORMATS)
def test_a_folder_that_cannot_be_written_to_is_named(
    tmp_path: Path, moving: Moving, suffix: str
) -> None:
    (tmp_path / "out").write_text("a file, so even root cannot write into it")
    with pytest.raises(UserError, match=r"cannot be written.*choose another folder"):
        write_video(tmp_path / "out" / f"clip.{suffix}", moving(), fps=8)
