"""Video files decoded: every frame upright, of square pixels, in sRGB, with its time."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import Colorspace, Interpolation
from jaxtyping import UInt8

from cinnema.core.errors import UserError
from cinnema.media.colour import colour_space, to_srgb
from cinnema.media.formats import DEFAULT_FPS, MAX_FPS, check_size
from cinnema.media.pictures import damaged, over_white

# FFmpeg's fast conversions darken by one level and keep colours in blocks of two pixels; with
# these flags a sixth of that error remains.
EXACT = int(
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
)

Frame = UInt8[np.ndarray, "_ _ 3"]
TimedFrame: TypeAlias = tuple[float, Frame]
"""Seconds since the first frame, and the frame"""

_MATRICES = frozenset({1, 4, 5, 6, 7, 9, 10})  # code points of H.273 that FFmpeg converts from
_RGB = 0
_PROBED = 240  # packets whose times are read to find the frame rate
_REORDERED = 16  # of these, those at the end may not have all their neighbours
_LONGEST_GAP = 60.0
"""Seconds without a frame, and 100 times the usual, that are a break in the time stamps."""


def open_video(path: Path) -> tuple[float, Iterator[TimedFrame]]:
    """Open a video file.

    What the file says about itself is honoured: time stamps (of which edit lists are a part),
    rotation and mirroring, the aspect ratio of pixels, fields (deinterlaced), matrix and range,
    primaries and transfer (HDR is brought into sRGB's range), and transparency (over white). If it
    does not state a matrix, HD is BT.709 and SD BT.601.

    Args:
        path: Any file with video that FFmpeg decodes.

    Returns:
        The usual frame rate, and the frames.

    Raises:
        UserError: The file is not a video, is damaged, or its frames are too large.
    """
    container = _container(path)
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        container.close()
        raise UserError(f"{path} has no video in it: name another file")
    if stream.codec_context is None:
        container.close()
        raise UserError(f"{path} has video that FFmpeg has no decoder for: convert it to mp4")
    check_size(stream.width, stream.height, path)
    declared = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    fps = usual_rate(_packet_times(path, stream.index), declared)
    return fps, _steady(_decode(container, stream, path), fps, path)


def usual_rate(times: list[float], declared: list[float]) -> float:
    """Return the frame rate of a video.

    If no frame is further than half a period from its place at the mean rate, this is the mean
    rate, and else that of the median period. A declared rate that agrees within 1 % is exact.

    Args:
        times: Times of the first frames in seconds, in order; too few if they are not known.
        declared: Rates that the file states, the better ones first.
    """
    gaps = np.diff(np.array(times))
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return declared[0] if declared else DEFAULT_FPS
    mean, ideal = float(gaps.mean()), np.cumsum(np.r_[0, gaps])
    late = np.abs(ideal - mean * np.arange(len(ideal))).max()
    fps = 1 / mean if late < mean / 2 else min(1 / float(np.median(gaps)), MAX_FPS)
    return next((rate for rate in declared if abs(rate / fps - 1) < 0.01), fps)


def at_constant_rate(frames: Iterable[TimedFrame], fps: float) -> Iterator[Frame]:
    """Yield the frames that are nearest to 0, 1 / fps, 2 / fps, ... seconds.

    Frames that already come at this rate are all yielded once.
    """
    count, last = 0, None
    for time, frame in frames:
        if last is not None:
            between = (last[0] + time) / 2 * fps
            while count <= between - 1e-6:
                yield last[1]
                count += 1
        last = time, frame
    while last is not None and count <= last[0] * fps + 0.5 - 1e-6:
        yield last[1]
        count += 1


def _container(path: Path) -> av.container.InputContainer:
    try:
        # Absolute, as FFmpeg would take a colon in a relative name for a protocol.
        # Old files have titles that are not UTF-8.
        return av.open(str(path.absolute()), metadata_errors="replace")
    except av.FFmpegError:
        raise UserError(
            f"{path} is not a video that can be read: use mp4, mov, avi, webm, gif, webp, npy or "
            "a folder of frames"
        ) from None


def _packet_times(path: Path, index: int) -> list[float]:
    """Times of the first frames, without decoding them."""
    times = []
    with _container(path) as container:
        try:
            for packet in islice(container.demux(container.streams[index]), _PROBED):
                if packet.pts is not None and not packet.is_discard and packet.time_base:
                    times.append(float(packet.pts * packet.time_base))
        except av.FFmpegError:  # reported when it is decoded
            pass
    times.sort()
    return times[:-_REORDERED] if len(times) > _PROBED // 2 else times


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, path: Path
) -> Iterator[tuple[float | None, Frame]]:
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    with closing(container):
        try:
            for frame in _deinterlaced(_pictures(container, stream), stream):
                yield frame.time, _pixels(frame, aspect, path)
        except av.FFmpegError as error:
            raise damaged(path, error) from error


def _pictures(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    # FFmpeg's own decoder of VP9 leaves transparency out.
    if stream.codec_context.name == "vp9" and stream.metadata.get("alpha_mode") == "1":
        decoder = av.VideoCodecContext.create("libvpx-vp9", "r")
        for packet in container.demux(stream):
            yield from decoder.decode(packet)
    else:
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


def _deinterlaced(
    frames: Iterator[av.VideoFrame], stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
    """From the first interlaced frame on, interpolate the second field of those that are."""
    graph = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = _bwdif(frame, stream.time_base)
        if graph is None:
            yield frame
        else:
            graph.vpush(frame)
            yield from _pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph)


def _bwdif(frame: av.VideoFrame, time_base: Fraction | None) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or time_base or Fraction(1, 1000),
    )
    nodes = source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    graph.link_nodes(*nodes).configure()
    return graph


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _pixels(frame: av.VideoFrame, aspect: Fraction, path: Path) -> Frame:
    """Convert one frame: square pixels, sRGB, over white, upright."""
    width = round(frame.width * max(aspect, Fraction(1)))
    height = round(frame.height / min(aspect, Fraction(1)))
    check_size(width, height, path)
    space = colour_space(frame.color_primaries, frame.color_trc)
    alpha = any(component.is_alpha for component in frame.format.components)
    eight, sixteen = ("rgba", "rgba64le") if alpha else ("rgb24", "rgb48le")
    converted = frame.reformat(
        width=width,
        height=height,
        format=eight if space.is_srgb else sixteen,
        src_colorspace=_matrix(frame),
        interpolation=EXACT,
    )
    values = converted.to_ndarray()
    rgb = values[..., :3] if space.is_srgb else to_srgb(values[..., :3], space)
    if alpha:
        opacity = values[..., 3] if space.is_srgb else np.round(values[..., 3] / 257)
        rgb = over_white(rgb, opacity.astype(np.uint8))
    return np.ascontiguousarray(_upright(rgb, frame))


def _matrix(frame: av.VideoFrame) -> int | None:
    """The matrix of YUV; None for that which the frame states."""
    if frame.colorspace in _MATRICES or frame.colorspace == _RGB:
        return None
    is_hd = frame.width >= 1280 or frame.height > 576
    return int(Colorspace.ITU709 if is_hd else Colorspace.ITU601)


def _upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turn and mirror by the display matrix, (x, y) to (a x + c y, b x + d y)."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _steady(
    frames: Iterable[tuple[float | None, Frame]], fps: float, path: Path
) -> Iterator[TimedFrame]:
    """Give every frame a time after that of the last, the first 0; breaks are closed and told."""
    shift, last = 0.0, None
    longest = max(_LONGEST_GAP, 100 / fps)
    for time, frame in frames:
        if last is None:
            shift, last = -(time or 0.0), 0.0
        else:
            new = last + 1 / fps if time is None else time + shift
            if not last < new <= last + longest:
                if new > last or new < last - 1:
                    warnings.warn(
                        f"{path}: the time stamps jump by {new - last:.0f} s after {last:.1f} s: "
                        "the frames on both sides follow each other directly",
                        stacklevel=2,
                    )
                shift, new = shift + last + 1 / fps - new, last + 1 / fps
            last = new
        yield last, frame
