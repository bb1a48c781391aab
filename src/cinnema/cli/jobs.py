"""Rendering jobs: names, renders and writes videos of several inputs, one at a time."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, cast

from cinnema.cli.console import (
    DONE,
    SOME_FAILED,
    USER_MISTAKE,
    OutputLostError,
    Progress,
    print_result,
    report_failure,
)
from cinnema.cli.options import RenderingOptions
from cinnema.cli.outputs import (
    Outputs,
    describe_call,
    distinct_names,
    refuse_existing,
    write_sample,
)
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, check_output_folder, never_left_empty
from cinnema.media.formats import VIDEO_SUFFIXES, find_pictures, generated_in

if TYPE_CHECKING:
    import numpy as np

    from cinnema.media.grids import VideoGrid
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.transfer import Motion
    from cinnema.synthesis.video import Video, VideoStream

_MAX_WRITERS = 2
_GRID_FORMATS = ("mp4", "gif", "webp")  # formats of videos that players support
_LARGE = 4_000_000
"""Pixels of a frame from which one video is written at a time, as frames are held in memory."""


@dataclass(frozen=True)
class Renderer:
    """Functions that make the videos of an input, with a loaded model.

    Attributes:
        videos: Returns the samples of an input, one at a time; errors are raised at the call.
        motion: The transferred motion, whose video is shown beside them in the grid.
    """

    videos: "Callable[[Path], Iterator[Video] | Iterator[VideoStream]]"
    motion: "Motion | None" = None


def find_photos(inputs: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the photographs, each once, and the number of inputs that cannot be used.

    The errors of the latter are printed. No file is decoded.

    Args:
        inputs: Files and folders.

    Raises:
        UserError: There is no input.
    """
    if not inputs:
        raise UserError("no photograph is named: give files or folders, as cinnema animate a.jpg")
    found: dict[Path, Path] = {}
    num_failed = 0
    for path in inputs:
        try:
            photos = _without_generated(path, find_pictures([path]))
        except (UserError, OSError) as error:
            report_failure(path, error)
            num_failed += 1
            continue
        for photo in photos:
            try:
                found.setdefault(check_photo(photo).resolve(), photo)
            except (UserError, OSError, RuntimeError) as error:  # RuntimeError: a loop of links
                report_failure(photo, error)
                num_failed += 1
    return list(found.values()), num_failed


def _without_generated(path: Path, photos: list[Path]) -> list[Path]:
    """Leave out the pictures of a folder that commands have written; those that are named stay."""
    made = generated_in(entry.name for entry in path.iterdir()) if path.is_dir() else set[str]()
    found = [photo.name for photo in photos if photo.name in made]
    if found:
        warnings.warn(
            f"{path}: {found[0]}{f' and {len(found) - 1} more' if found[1:] else ''} was written "
            "by cinnema, and is left out: name the file itself to animate it",
            stacklevel=2,
        )
    if len(found) == len(photos):
        raise UserError(f"{path} holds no other picture: name another folder or a file")
    return [photo for photo in photos if photo.name not in made]


def check_photo(path: Path) -> Path:
    """Return the path of a photograph.

    Raises:
        UserError: The file does not exist, is empty, or is a video.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise UserError(
            f"{path} is a video, and this takes photographs: cinnema edit changes the motion of a "
            f"video, cinnema transfer PHOTO --motion {path} applies it to a photograph"
        )
    return check_input_file(path, kind="a picture")


def plan(
    inputs: Sequence[Path],
    *,
    folder: Path,
    tag: str,
    samples: tuple[int, ...],
    options: RenderingOptions,
) -> list[Outputs]:
    """Return the names of all files that will be written, and check that they can be.

    Args:
        inputs: Photographs or videos.
        folder: Folder of the files, which is not created yet.
        tag: Part of the files' names, after the input's.
        samples: Numbers of the samples.
        options: Options of the command.

    Raises:
        UserError: A file exists, or the folder cannot be written to.
    """
    suffix = _grid_suffix(options, num_samples=len(samples))
    jobs = [
        Outputs(source, name, folder, options.format, tag, samples, suffix)
        for source, name in zip(inputs, distinct_names(inputs), strict=True)
    ]
    if not options.overwrite:
        refuse_existing(path for job in jobs for path in job.all())
    check_output_folder(folder)
    return jobs


def _grid_suffix(options: RenderingOptions, *, num_samples: int) -> str | None:
    """Return the ending of the file that shows all samples; None if there is none."""
    if options.format == "html":
        return "html" if num_samples > 1 else None
    if not options.grid:
        return "png"
    return options.format if options.format in _GRID_FORMATS else "mp4"


def run_jobs(
    options: RenderingOptions,
    jobs: Sequence[Outputs],
    prepare: "Callable[[Pipeline], Renderer]",
    *,
    files: Mapping[str, Path | None],
    num_failed: int = 0,
) -> int:
    """Render and write all jobs, print the paths of the videos, and return the exit code.

    Args:
        options: Options of the command.
        jobs: Jobs from `plan`.
        prepare: Called once with the loaded model, for work shared by all jobs.
        files: Other files that are read, by their names in the JSON.
        num_failed: Number of inputs that could not be planned.

    Raises:
        UserError: The weights or the device cannot be used, or `prepare` fails.
    """
    num_inputs = len(jobs) + num_failed
    weights = find_weights(options.weights)
    with Progress(total=sum(len(job.samples) for job in jobs)) as progress:
        progress.begin(f"loading {options.weights}")
        from cinnema.core.devices import choose_device
        from cinnema.synthesis.pipeline import Pipeline

        pipeline = Pipeline.from_pretrained(
            weights, device=choose_device(options.device), precision=options.precision
        )
        renderer = prepare(pipeline)
        for job in jobs:
            end = progress.count + len(job.samples)
            try:
                with never_left_empty(job.folder):
                    _run(options, job, pipeline, renderer, files=files, progress=progress)
            except OutputLostError:
                raise
            except Exception as error:  # whatever is wrong with one, the others are made
                report_failure(job.source, error)
                num_failed += 1
            progress.skip_to(end)
        if num_failed < num_inputs:
            progress.finish()
    if num_failed == 0:
        return DONE
    return SOME_FAILED if num_failed < num_inputs else USER_MISTAKE


def _run(
    options: RenderingOptions,
    job: Outputs,
    pipeline: "Pipeline",
    renderer: Renderer,
    *,
    files: Mapping[str, Path | None],
    progress: Progress,
) -> None:
    """Write all samples of one input, and their grid."""
    videos = renderer.videos(job.source)
    progress.begin(str(job.source))
    masks = {"keep_still": options.keep_still, "move": options.move}
    about = describe_call(job, pipeline, {**files, **masks})
    grid = (_Pages if job.format == "html" else _Grid)(job, renderer.motion, pipeline)
    has_grid = job.grid_suffix is not None
    write = partial(write_sample, job, about=about, overwrite=options.overwrite)
    with _Writers(progress) as writers:
        for animation in videos:
            frames = grid.watch(animation) if has_grid else iter(animation.frames)
            writers.write(animation, frames, write)
    written = grid.write(overwrite=options.overwrite)
    if written is not None and job.grid_suffix != "png":
        print_result(written)


class _Grid:
    """The video that shows all samples of one input beside it, and the transferred motion.

    Or the picture that shows the frame in their middle, if the grid's file is to be a picture.

    Args:
        job: The input.
        motion: The transferred motion, if any.
        pipeline: The pipeline that animates it.
    """

    def __init__(self, job: Outputs, motion: "Motion | None", pipeline: "Pipeline") -> None:
        self._job, self._motion, self._clip_fps = job, motion, pipeline.model.fps
        self._grid: VideoGrid | None = None
        self._is_picture = job.grid_suffix == "png"
        self._fps = 1.0

    def watch(self, animation: "Video | VideoStream") -> "Iterator[np.ndarray]":
        """Return the frames of the next sample, of which small copies are held as they pass."""
        from cinnema.media.grids import VideoGrid

        motion = self._motion
        only = animation.num_frames // 2 if self._is_picture else None
        if self._grid is None:
            shown = 0 if motion is None else 1
            self._grid = VideoGrid(animation.x0, num_videos=len(self._job.samples) + shown)
            if motion is not None:
                query = _query_frames(motion, animation, clip_fps=self._clip_fps)
                self._grid.add(query if only is None else query[only : only + 1])
        self._fps = animation.fps
        return self._grid.watch(animation.frames, only=only)

    def write(self, *, overwrite: bool) -> Path | None:
        """Write the grid, and return its path; None if there is no sample."""
        from cinnema.media.pictures import write_picture
        from cinnema.media.videos import write_video

        if self._grid is None:
            return None
        if self._is_picture:
            return write_picture(self._job.grid, next(self._grid.frames()), overwrite=overwrite)
        return write_video(self._job.grid, self._grid.frames(), fps=self._fps, overwrite=overwrite)


class _Pages:
    """The page with a slider from each sample of one input to the next; see `_Grid`."""

    def __init__(self, job: Outputs, motion: "Motion | None", pipeline: "Pipeline") -> None:
        del motion, pipeline
        self._job, self._videos = job, list["Video"]()

    def watch(self, animation: "Video | VideoStream") -> "Iterator[np.ndarray]":
        """Add a sample, and return its frames."""
        self._videos.append(cast("Video", animation))  # html is not streamed
        return iter(animation.frames)

    def write(self, *, overwrite: bool) -> Path | None:
        """Write the page, and return its path; None if it would hold a single video."""
        from cinnema.synthesis.player import write_player

        if len(self._videos) < 2:
            return None
        return write_player(self._job.grid, self._videos, overwrite=overwrite)


class _StoppedError(Exception):
    """Another sample could not be written, or the command was interrupted."""


class _Writers:
    """Threads that write samples, and report them in order.

    While one video is finished (the encoder holds back frames), frames of the next are rendered.
    Where all frames of a video are in memory, or frames are large, one is written at a time.

    Args:
        progress: Told of each frame.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stop = progress, Event()
        self._pool = ThreadPoolExecutor(_MAX_WRITERS, "writers")
        self._waiting: deque[Future[Path]] = deque()

    def write(
        self,
        animation: "Video | VideoStream",
        frames: "Iterator[np.ndarray]",
        write: "Callable[[Video | VideoStream, Iterator[np.ndarray]], Path]",
    ) -> None:
        """Write a sample soon; the errors of earlier ones are raised here.

        Args:
            animation: The sample.
            frames: Its frames.
            write: Writes them, and returns the path.
        """
        self._waiting.append(self._pool.submit(write, animation, self._told(animation, frames)))
        height, width, _ = animation.x0.shape
        is_light = isinstance(animation.frames, Iterator) and height * width <= _LARGE
        while len(self._waiting) >= (_MAX_WRITERS if is_light else 1):
            self._finish_first()

    def _told(
        self, animation: "Video | VideoStream", frames: "Iterator[np.ndarray]"
    ) -> "Iterator[np.ndarray]":
        for index, frame in enumerate(frames, start=1):
            if self._stop.is_set():
                raise _StoppedError
            yield frame
            self._progress.within(animation.sample, index / animation.num_frames)

    def _finish_first(self) -> None:
        video = self._waiting.popleft().result()
        self._progress.advance()
        print_result(video)

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._waiting:
                self._finish_first()
        finally:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)


def _query_frames(
    motion: "Motion", animation: "Video | VideoStream", *, clip_fps: float | None
) -> "list[np.ndarray]":
    """Return the frames of a query beside those of a video, at its frame rate; the last one stays.

    Args:
        motion: The motion of the query.
        animation: The video.
        clip_fps: Frames per second of the query's clip; None if it has none.
    """
    step = 1.0 if clip_fps is None else clip_fps / animation.fps
    shown = motion.query.shown
    times = range(1, animation.num_frames + 1)
    return [shown[min(max(1, round(time * step)), len(shown) - 1)] for time in times]
