"""Videos read from and written to files, whole or frame by frame.

Frames are uint8 in sRGB, (height, width, 3). Videos are read from every file that PyAV decodes,
from animated pictures, folders of frames and npy arrays; they are written in `VIDEO_FORMATS`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import av
import cv2
import numpy as np
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    VideoReformatter,
)
from jaxtyping import UInt8
from PIL import Image, ImageSequence

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_folder, atomic_path, check_input_file
from cinnema.media.decoding import EXACT, TimedFrame, at_constant_rate, open_video, usual_rate
from cinnema.media.formats import (
    DEFAULT_FPS,
    MAX_FPS,
    MAX_GIF_FPS,
    VIDEO_FORMATS,
    pictures_in,
)
from cinnema.media.pictures import DAMAGE, damaged, open_picture, read_photograph, srgb_of

_AVX512 = 256  # CV_CPU_AVX512_SKX, which has no name in Python
_LOOKAHEAD_PIXELS = 48_000_000
"""Pixels of the frames that the encoder of mp4 looks ahead at."""

_LARGE = 9_000_000
"""Pixels above 4K: each frame that the encoder of mp4 holds takes 50 MB and more."""

Frame = UInt8[np.ndarray, "_ _ 3"]  # of any size: a UserError says if sizes differ
Frames = UInt8[np.ndarray, "t h w 3"]
_Any = TypeVar("_Any")


@dataclass(frozen=True)
class VideoFile:
    """A video read from a file, in memory.

    Attributes:
        frames: sRGB colours.
        fps: Frames per second of `frames`: the file's, divided by the stride.
        path: The file.
    """

    frames: Frames
    fps: float
    path: Path


def read_video(path: str | Path, *, max_frames: int | None = None, stride: int = 1) -> VideoFile:
    """Read a whole video.

    Args:
        path: A video file (mp4, avi, mov, webm, ...), an animated GIF, WebP or PNG, a folder of
            frames (pictures of one size, in natural order of their names) or an .npy array
            (uint8, (frames, height, width, 3)).
        max_frames: Greatest number of frames to read, at least 1; all if None.
        stride: Read every `stride`-th frame, from the first on.

    Returns:
        The video. Of a file with a variable frame rate these are the frames nearest in time at its
        usual rate (`cinnema.media.decoding.usual_rate`).

    Raises:
        UserError: The file is missing, empty, damaged, or not a video; frames differ in size.

    Example:
        >>> video = read_video("waves.mp4", max_frames=17)
        >>> x = to_tensor(video.frames)
    """
    source = open_frames(path)
    frames = at_constant_rate(source.frames, source.fps)
    taken = np.stack(list(_take(frames, max_frames, stride)))
    return VideoFile(frames=taken, fps=source.fps / stride, path=Path(path))


def iterate_frames(
    path: str | Path, *, max_frames: int | None = None, stride: int = 1
) -> Iterator[Frame]:
    """Read a video frame by frame, holding two frames in memory.

    Args:
        path: As in `read_video`, like the others.
        max_frames: Greatest number of frames to read.
        stride: Read every `stride`-th frame.

    Returns:
        An iterator over the frames that `read_video` returns.

    Raises:
        UserError: As in `read_video`. A file that is missing or not a video raises at once, damage
            further in when the iterator reaches it.
    """
    source = open_frames(path)
    return _take(at_constant_rate(source.frames, source.fps), max_frames, stride)


@dataclass(frozen=True)
class FrameSource:
    """The frames that a file stores, as they come.

    Attributes:
        fps: The usual number of frames per second.
        has_times: Whether the file says when each is shown; folders of frames and arrays do not.
        frames: Times in seconds from the first frame on, and frames.
    """

    fps: float
    has_times: bool
    frames: Iterator[TimedFrame]


def open_frames(path: str | Path) -> FrameSource:
    """Open a video, for a reader that needs the time of each frame.

    Args:
        path: As in `read_video`.

    Raises:
        UserError: As in `iterate_frames`.
    """
    path = Path(path)
    if path.is_dir():
        has_times, (fps, frames) = False, _untimed(_folder_frames(pictures_in(path)))
    else:
        check_input_file(path, kind="a video")
        suffix = path.suffix.lower()
        has_times = suffix != ".npy"
        fps, frames = _SOURCES.get(suffix, open_video)(path)
    return FrameSource(fps, has_times, _at_least_one(_timed_of_one_size(frames, path), path))


def write_video(
    path: str | Path, frames: Iterable[Frame], *, fps: float, overwrite: bool = False
) -> Path:
    """Write a video in the format of the file's suffix, completely or not at all.

    - `.mp4`: H.264, yuv420p, BT.709, of near-transparent quality. An odd height or width is padded
      with a copy of the last row or column, as many players refuse odd sizes.
    - `.gif`: 255 colours, chosen over all frames, with error diffusion. Loops.
    - `.webp`: animated, lossy. Loops.
    - `.png`: a **folder** named without the suffix, of `0000.png`, `0001.png`, ...
    - `.npy`: uint8, (frames, height, width, 3).

    Of mp4 and png one frame is held in memory, of the others all.

    Args:
        path: The file to write; its suffix is one of `VIDEO_FORMATS`, in upper or lower case.
        frames: At least one frame, all of one size.
        fps: Frames per second, above 0 and at most 240 (GIF: 50). png and npy do not store it.
        overwrite: Whether an existing file or folder may be replaced.

    Returns:
        `path`, or the folder of frames.

    Raises:
        UserError: The suffix or frame rate is not allowed, the file exists or cannot be written,
            the disk is full, or there is no frame.

    Example:
        >>> write_video("sky.mp4", to_pixels(x), fps=8)
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UserError(
            f"{path} has no suffix of a video format: use one of .{', .'.join(VIDEO_FORMATS)}"
        )
    limit = MAX_GIF_FPS if write is _write_gif else MAX_FPS
    if not 0 < fps <= limit:
        raise UserError(f"{path}: fps must be above 0 and up to {limit:g}, got {fps:g}")
    frames = _at_least_one(_of_one_size(iter(frames), path), path)
    if write is _write_png:
        return _write_png(path.with_suffix(""), frames, overwrite=overwrite)
    with atomic_path(path, overwrite=overwrite) as partial:
        write(partial, frames, fps)
    return path


def _take(frames: Iterator[Frame], max_frames: int | None, stride: int) -> Iterator[Frame]:
    if stride < 1:
        raise UserError(f"stride must be at least 1, got {stride}")
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames must be at least 1, got {max_frames}")
    stop = None if max_frames is None else (max_frames - 1) * stride + 1
    return islice(frames, 0, stop, stride)


def _folder_frames(paths: list[Path]) -> Iterator[Frame]:
    return (read_photograph(path, min_side=1) for path in paths)


def _untimed(frames: Iterable[Frame]) -> tuple[float, Iterator[TimedFrame]]:
    return DEFAULT_FPS, ((index / DEFAULT_FPS, frame) for index, frame in enumerate(frames))


def _open_array(path: Path) -> tuple[float, Iterator[TimedFrame]]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*DAMAGE, TokenError) as error:
        raise damaged(path, error) from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape[3:] != (3,):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UserError(
            f"{path} holds {found}: save the video as uint8 of shape (frames, height, width, 3)"
        )
    return _untimed(np.array(frame) for frame in array)


def _open_animation(path: Path) -> tuple[float, Iterator[TimedFrame]]:
    """Read with Pillow: FFmpeg does not read animated WebP, nor compose the pages of a GIF."""
    image = open_picture(path, kind="a video")
    try:
        durations = [_duration(page) for page in _of_the_first_size(image)]
    except DAMAGE as error:
        raise damaged(path, error) from error
    if not any(durations):
        return _untimed(_pages(image, path))
    ends = np.cumsum([duration or 0.1 for duration in durations])  # as browsers show them
    begins = [0.0, *ends.tolist()]
    return usual_rate(begins, []), zip(begins, _pages(image, path), strict=False)


def _of_the_first_size(image: Image.Image) -> Iterator[Image.Image]:
    """Yield each page, not decoded yet: later pages of a GIF may state a huge size."""
    first = image.size
    for page in ImageSequence.Iterator(image):
        if page.size != first:
            width, height = page.size
            raise ValueError(f"a page of {width}x{height} after one of {first[0]}x{first[1]}")
        yield page


def _duration(page: Image.Image) -> float:
    """Seconds for which a page is shown; 0 if it does not say."""
    page.load()  # of a WebP, the duration is known only then
    return max(float(page.info.get("duration", 0)), 0) / 1000


def _pages(image: Image.Image, path: Path) -> Iterator[Frame]:
    with image:
        try:
            for page in _of_the_first_size(image):
                yield srgb_of(page, path)
        except DAMAGE as error:
            raise damaged(path, error) from error


def _of_one_size(frames: Iterator[Frame], path: Path) -> Iterator[Frame]:
    first = None
    for index, frame in enumerate(frames):
        first = frame if first is None else first
        _check_frame(frame, index, first, path)
        yield frame


def _timed_of_one_size(frames: Iterator[TimedFrame], path: Path) -> Iterator[TimedFrame]:
    first = None
    for index, (time, frame) in enumerate(frames):
        first = frame if first is None else first
        _check_frame(frame, index, first, path)
        yield time, frame


def _check_frame(frame: np.ndarray, index: int, first: np.ndarray, path: Path) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UserError(
            f"{path}: frame {index} is {frame.dtype} {frame.shape}, "
            "not uint8 (height, width, 3): convert it with to_pixels"
        )
    if frame.shape != first.shape:
        raise UserError(
            f"{path}: frame {index} is {frame.shape[1]}x{frame.shape[0]} pixels, the first "
            f"{first.shape[1]}x{first.shape[0]}: give all frames one size"
        )


def _at_least_one(frames: Iterator[_Any], path: Path) -> Iterator[_Any]:
    """Return the same frames, the first of them fetched at once, so that errors come early."""
    for first in frames:
        return chain([first], frames)
    raise UserError(f"{path}: there is no frame: use a video with at least one")


def _write_mp4(path: Path, frames: Iterator[Frame], fps: float) -> None:
    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])
    rate = Fraction(fps).limit_denominator(1001)
    options = {"movflags": "+faststart"}  # the index first, so that browsers start at once
    with av.open(str(path.absolute()), "w", format="mp4", options=options) as container:
        options = _x264_options(height * width)
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Without the tags players guess, and small videos get the colours of BT.601.
        context = stream.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        reformatter = VideoReformatter()
        for frame in chain([first], frames):
            container.mux(stream.encode(_to_yuv(frame, (height, width), reformatter)))
        container.mux(stream.encode(None))


def _x264_options(num_pixels: int) -> dict[str, str]:
    """Return the settings of the encoder for frames of a size.

    The preset "veryfast" with a longer lookahead takes half the time of "faster" at equal PSNR, for
    a tenth more bytes: docs/performance.md. Of large frames it holds fewer in memory: it looks less
    far ahead, and makes no B-frames. With one thread, the bytes do not depend on the number of
    cores. With AVX-512, x264's macroblock tree reads memory that it has not written, and the bytes
    differ from one run to the next, so AVX2 is used in its place.
    """
    lookahead = min(20, max(2, _LOOKAHEAD_PIXELS // num_pixels))
    parameters = [f"rc-lookahead={lookahead}"]
    if num_pixels > _LARGE:
        parameters = ["rc-lookahead=2", "bframes=0"]
    if cv2.checkHardwareSupport(_AVX512):
        parameters.append("asm=AVX2")
    return {
        "preset": "veryfast",
        "crf": "15.2",
        "threads": "1",
        "x264-params": ":".join(parameters),
    }


def _to_yuv(frame: Frame, size: tuple[int, int], reformatter: VideoReformatter) -> av.VideoFrame:
    height, width, _ = frame.shape
    if (height, width) != size:
        odd = ((0, size[0] - height), (0, size[1] - width), (0, 0))
        frame = np.pad(frame, odd, mode="edge")
    return reformatter.reformat(
        av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
    )


def _write_gif(path: Path, frames: Iterator[Frame], fps: float) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    palette = _common_palette(pictures)
    pages = [
        picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for picture in pictures
    ]
    durations = _durations(len(pages), fps, unit=10)
    _save_animation(pages, path, durations, optimize=False)


def _common_palette(pictures: list[Image.Image]) -> Image.Image:
    """Choose 255 colours for all frames at once; one palette for all keeps still parts still.

    The 256th stays free: Pillow marks with it what did not change since the frame before.
    """
    step = max(1, len(pictures) // 16)
    samples = [np.asarray(picture.copy()) for picture in pictures[::step]]
    thin = max(1, int((sum(sample[..., 0].size for sample in samples) / 500_000) ** 0.5))
    montage = np.concatenate([sample[::thin, ::thin] for sample in samples])
    return Image.fromarray(montage).quantize(colors=255, kmeans=1)


def _write_webp(path: Path, frames: Iterator[Frame], fps: float) -> None:
    pages = [Image.fromarray(frame) for frame in frames]
    _save_animation(pages, path, _durations(len(pages), fps, unit=1), quality=85, method=4)


def _save_animation(
    pages: list[Image.Image],
    path: Path,
    durations: list[int],
    **options: Any,  # noqa: ANN401 - Pillow's own
) -> None:
    pages[0].save(
        path, save_all=True, append_images=pages[1:], duration=durations, loop=0, **options
    )


def _durations(count: int, fps: float, *, unit: int) -> list[int]:
    """Milliseconds of each frame, multiples of `unit`, that keep the rate over the whole video."""
    ends = np.round(np.arange(count + 1) * (1000 / fps / unit)).astype(int) * unit
    return [int(milliseconds) for milliseconds in np.diff(ends)]


def _write_npy(path: Path, frames: Iterator[Frame], fps: float) -> None:  # noqa: ARG001
    write_array(path, np.stack(list(frames)))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as an npy file.

    `np.save` would bypass Python's files, and hide that a disk is full, or not say so.

    Args:
        path: The file.
        array: Of numbers.

    Raises:
        OSError: It cannot be written.
    """
    array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)


def _write_png(folder: Path, frames: Iterator[Frame], *, overwrite: bool) -> Path:
    if overwrite and folder.is_dir() and any(not _is_frame(path) for path in folder.iterdir()):
        raise UserError(
            f"{folder} holds more than frames, which overwriting would delete: "
            "choose another name or empty the folder"
        )
    with atomic_folder(folder, overwrite=overwrite) as partial:
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(partial / f"{index:04d}.png", compress_level=4)
    return folder


def _is_frame(path: Path) -> bool:
    return path.suffix == ".png" and path.stem.isdigit()


_SOURCES: dict[str, Callable[[Path], tuple[float, Iterator[TimedFrame]]]] = {
    ".npy": _open_array,
    ".gif": _open_animation,
    ".webp": _open_animation,
    ".png": _open_animation,
    ".apng": _open_animation,
}
_WRITERS: dict[str, Callable[..., object]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".webp": _write_webp,
    ".png": _write_png,
    ".npy": _write_npy,
}
