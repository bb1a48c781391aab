"""What a video file says about itself: times, fields, colours, shape."""

import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cinnema.core.errors import UserError
from cinnema.media.decoding import at_constant_rate, usual_rate
from cinnema.media.videos import open_frames, read_video

GREY = np.full((16, 32, 3), 128, np.uint8)


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float],
    *,
    codec: str = "ffv1",
    pixel_format: str = "bgr0",
    tags: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write a video with the frames at these times in seconds; FFV1 keeps them exactly."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = Fraction(1, 600)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for frame, time in zip(frames, times, strict=True):
            kind = "rgb24" if frame.shape[2] == 3 else "rgba"
            picture = av.VideoFrame.from_ndarray(frame, format=kind).reformat(format=pixel_format)
            for name in ("color_primaries", "color_trc"):
                if name in (tags or {}):
                    setattr(picture, name, tags[name])
            picture.pts, picture.time_base = round(time * 600), Fraction(1, 600)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def numbered(count: int) -> list[np.ndarray]:
    return [np.full((16, 32, 3), 5 * index, np.uint8) for index in range(count)]


def numbers(frames: np.ndarray) -> list[int]:
    return [int(value) // 5 for value in frames[:, 0, 0, 0]]


def test_frames_of_a_variable_rate_are_repeated_as_long_as_they_are_shown(tmp_path: Path) -> None:
    times = [0, 0.1, 0.2, 0.3, 0.4, 0.8, 1.2]
    path = write(tmp_path / "a.mkv", numbered(7), times)
    video = read_video(path)
    assert video.fps == pytest.approx(10, rel=0.01)
    assert numbers(video.frames) == [0, 1, 2, 3, 4, 4, 5, 5, 5, 5, 6, 6, 6]
    source = open_frames(path)
    assert [time for time, _ in source.frames] == pytest.approx(times, abs=2e-3)


def test_frames_of_a_constant_rate_are_all_read_once(tmp_path: Path) -> None:
    for fps in (7.0, 23.976, 30.0, 59.94):
        path = write(tmp_path / f"{fps}.mkv", numbered(40), [index / fps for index in range(40)])
        video = read_video(path)  # Matroska rounds times to milliseconds
        assert numbers(video.frames) == list(range(40))
        assert video.fps == pytest.approx(fps, rel=0.01)


def test_pages_of_a_gif_are_shown_for_their_own_time(tmp_path: Path) -> None:
    pages = [Image.fromarray(frame) for frame in numbered(4)]
    path = tmp_path / "a.gif"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[100, 100, 300, 100])
    assert numbers(read_video(path).frames) == [0, 1, 2, 2, 3, 3]  # at 0, 0.1, 0.2 and 0.5 s


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=30), st.sampled_from([8.0, 24.0, 240.0]))
def test_resampling_takes_the_nearest_in_time(gaps: list[float], fps: float) -> None:
    times = np.cumsum(gaps) - gaps[0]
    frames = [(float(time), np.full((1, 1, 3), i, np.uint8)) for i, time in enumerate(times)]
    taken = [int(frame[0, 0, 0]) for frame in at_constant_rate(frames, fps)]
    assert taken[0] in (0, *np.flatnonzero(times <= 0.5 / fps + 1e-5))
    for count, index in enumerate(taken):
        distance = np.abs(times - count / fps)
        assert distance[index] <= distance.min() + 1e-5
    assert abs((len(taken) - 1) / fps - times[-1]) <= 0.5 / fps + 1e-5


def test_a_declared_rate_is_taken_if_the_times_agree() -> None:
    ms = [round(1000 * i / 29.97) / 1000 for i in range(100)]
    assert usual_rate(ms, [29.97]) == 29.97
    assert usual_rate(ms, [50.0]) == pytest.approx(29.97, rel=1e-3)
    assert usual_rate([], [12.0]) == 12.0
    assert usual_rate([], []) == 25.0
    assert usual_rate([0, 1e-6, 2e-6, 1.0], []) == 240  # no rate is beyond what can be written


def test_a_jump_of_the_time_stamps_is_closed_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", numbered(4), [0, 0.1, 5000, 5000.1])
    with pytest.warns(UserWarning, match="time stamps jump by 5000 s after 0.1 s"):
        times = [time for time, _ in open_frames(path).frames]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.02)


def test_fields_are_separated(tmp_path: Path) -> None:
    frames = []
    for index in range(8):
        frame = np.full((32, 64, 3), 30, np.uint8)
        for field in (0, 1):
            left = 4 * (2 * index + field)
            frame[field::2, left : left + 8] = 230
        frames.append(frame)
    options = {"crf": "1", "x264-params": "tff=1:interlaced=1"}
    times = [index / 25 for index in range(8)]
    path = write(
        tmp_path / "i.mkv", frames, times, codec="libx264", pixel_format="yuv420p", **options
    )
    read = read_video(path).frames.astype(float)
    assert len(read) == 8
    comb = np.abs(read[:, 1:-1] - (read[:, :-2] + read[:, 2:]) / 2).mean()
    raw = np.stack(frames).astype(float)
    assert comb < 0.3 * np.abs(raw[:, 1:-1] - (raw[:, :-2] + raw[:, 2:]) / 2).mean()


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_brought_into_the_range_of_srgb(tmp_path: Path, transfer: int) -> None:
    white = np.full((16, 32, 3), round(255 * {16: 0.58, 18: 0.75}[transfer]), np.uint8)
    tags = {"color_primaries": 9, "color_trc": transfer, "colorspace": 9, "color_range": 1}
    path = write(tmp_path / "h.mkv", [white], [0], pixel_format="yuv420p10le", tags=tags)
    pixel = read_video(path).frames[0, 8, 8]
    assert pixel.min() >= 225
    assert int(pixel.max()) - int(pixel.min()) <= 4


def test_colours_of_display_p3_are_converted(tmp_path: Path) -> None:
    orange = np.full((16, 32, 3), (153, 77, 26), np.uint8)
    path = write(tmp_path / "p.mkv", [orange], [0], tags={"color_primaries": 12, "color_trc": 13})
    assert np.abs(read_video(path).frames[0, 0, 0].astype(int) - [165, 72, 0]).max() <= 3


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mkv", "ffv1", "bgra"),
        ("a.mov", "prores_ks", "yuva444p10le"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_transparent_parts_lie_over_white(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    frame = np.zeros((32, 64, 4), np.uint8)
    frame[..., 0], frame[:, :32, 3] = 255, 255
    path = write(tmp_path / name, [frame] * 2, [0, 0.1], codec=codec, pixel_format=pixel_format)
    read = read_video(path).frames[0].astype(int)
    assert read[16, 48].min() >= 250
    assert np.abs(read[16, 8] - [255, 0, 0]).max() <= 8


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    for aspect, size in ((Fraction(2), (16, 64)), (Fraction(1, 2), (32, 32))):
        tags = {"sample_aspect_ratio": aspect}
        path = tmp_path / f"{size[1]}.mp4"
        write(path, [GREY] * 2, [0, 0.1], codec="libx264", pixel_format="yuv420p", tags=tags)
        assert read_video(path).frames.shape[1:3] == size


@pytest.mark.parametrize(("height", "matrix"), [(16, 5), (720, 1)])
def test_an_untagged_video_has_the_matrix_of_its_size(
    tmp_path: Path, height: int, matrix: int
) -> None:
    """SD is BT.601 and HD BT.709: green differs by some 20 levels between both."""
    colour = np.full((height, 32, 3), (40, 160, 60), np.uint8)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, height, "yuv444p"
        picture = av.VideoFrame.from_ndarray(colour, format="rgb24")
        picture = picture.reformat(format="yuv444p", dst_colorspace=matrix)
        picture.colorspace = 2  # unspecified
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert np.abs(read_video(path).frames[0, 0, 0].astype(int) - [40, 160, 60]).max() <= 4


def test_the_full_range_is_not_stretched(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 16, 0).repeat(3, 2)
    path = write(tmp_path / "a.avi", [ramp], [0], codec="mjpeg", pixel_format="yuvj420p")
    assert np.abs(read_video(path).frames[0].astype(int) - ramp).mean() < 4


def test_a_mirrored_video_comes_out_as_it_is_shown(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], 16, axis=0).repeat(3, 2)
    path = write(tmp_path / "a.mp4", [ramp], [0], codec="libx264", pixel_format="yuv420p")
    content = path.read_bytes()
    one, minus_one = (65_536).to_bytes(4, "big"), (-65_536).to_bytes(4, "big", signed=True)
    at = content.index(one + bytes(12) + one, content.index(b"tkhd"))
    path.write_bytes(content[:at] + minus_one + content[at + 4 :])
    assert np.abs(read_video(path).frames[0].astype(int) - ramp[:, ::-1]).mean() < 4


def test_what_an_edit_list_cuts_off_is_not_read(tmp_path: Path) -> None:
    """A start before 0 becomes an edit list, as when a phone's video is trimmed."""
    frames, times = numbered(20), [(index - 10) / 10 for index in range(20)]
    path = write(
        tmp_path / "a.mp4", frames, times, codec="libx264", pixel_format="yuv420p", crf="5", bf="0"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_video(path)
    assert abs(numbers(read.frames)[0] - 10) <= 1
    assert len(read.frames) == 10


def test_frames_beyond_the_greatest_size_are_refused_before_they_are_converted(
    tmp_path: Path,
) -> None:
    tags = {"sample_aspect_ratio": Fraction(10)}
    path, wide = tmp_path / "a.mp4", np.zeros((16, 2048, 3), np.uint8)
    write(path, [wide] * 2, [0, 0.1], codec="libx264", pixel_format="yuv420p", tags=tags)
    with pytest.raises(UserError, match="20480x16 pixels, more than 16384"):
        read_video(path)


def test_a_title_that_is_not_utf8_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLETITLE"
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "bgr0"
        frame = av.VideoFrame.from_ndarray(GREY, format="rgb24").reformat(format="bgr0")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLETITLE", b"caf\xe9 caf\xe9 "))
    assert len(read_video(path).frames) == 1


def test_a_codec_without_a_decoder_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", [GREY], [0])
    path.write_bytes(path.read_bytes().replace(b"V_FFV1", b"V_XXXX"))
    with pytest.raises(UserError, match="no decoder for"):
        read_video(path)


def test_an_array_whose_header_is_cut_short_is_damaged(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4, 3), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b" "))
    with pytest.raises(UserError, match="damaged or cut short"):
        read_video(tmp_path / "a.npy")
