"""Videos of one or several inputs: planned, rendered one at a time, written; some may fail."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cinnema.cli.console import DONE, SOME_FAILED, USER_MISTAKE, Progress, report_error
from cinnema.cli.options import RenderingOptions
from cinnema.cli.outputs import Outputs, check_folder, distinct_names, refuse_existing
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.synthesis.animation import Animation
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.transfer import Motion


@dataclass(frozen=True)
class Renderer:
    """What makes the videos, once the model is there.

    Attributes:
        videos: of an input, all its samples, one at a time; everything is checked at the call.
        motion: what the videos' motion is from, to be shown beside them.
    """

    videos: "Callable[[Path], Iterator[Animation]]"
    motion: "Motion | None" = None


def find_photos(inputs: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the photographs, each once, and how many of the inputs hold none.

    Args:
        inputs: files and folders.

    Raises:
        UserError: nothing is named.
    """
    from cinnema.media.formats import find_pictures

    if not inputs:
        raise UserError(
            "no photograph is named: give files or folders, as in cinnema animate a.jpg"
        )
    found: dict[Path, Path] = {}
    num_failed = 0
    for path in inputs:
        try:
            for photo in find_pictures([path]):
                found.setdefault(photo.resolve(), photo)
        except UserError as error:
            report_error(error)
            num_failed += 1
    return list(found.values()), num_failed


def plan(
    inputs: Sequence[Path],
    *,
    folder: Path,
    tag: str,
    samples: tuple[int, ...],
    options: RenderingOptions,
) -> list[Outputs]:
    """Name everything that will be written, and make sure that it can be.

    Args:
        inputs: photographs or videos.
        folder: of the files.
        tag: what their names have after the input's.
        samples: their numbers.
        options: of the command.

    Raises:
        UserError: something is there already, or the folder cannot be written to.
    """
    jobs = [
        Outputs(source, name, folder, options.format, tag, samples)
        for source, name in zip(inputs, distinct_names(inputs), strict=True)
    ]
    if not options.overwrite:
        refuse_existing(path for job in jobs for path in job.all())
    check_folder(folder)
    return jobs


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
        options: of the command.
        jobs: what `plan` returned.
        prepare: does with the model what all jobs share.
        files: what went in beside the inputs, by the name that the JSON calls it.
        num_failed: inputs of which there was nothing to plan.

    Raises:
        UserError: the weights or the device are at fault, or `prepare` fails.
    """
    num_inputs = len(jobs) + num_failed
    if jobs:
        num_failed += _run_all(options, jobs, prepare, files)
    if num_failed == 0:
        return DONE
    return SOME_FAILED if num_failed < num_inputs else USER_MISTAKE


def _run_all(
    options: RenderingOptions,
    jobs: Sequence[Outputs],
    prepare: "Callable[[Pipeline], Renderer]",
    files: Mapping[str, Path | None],
) -> int:
    from cinnema.core.devices import choose_device
    from cinnema.synthesis.pipeline import Pipeline

    pipeline = Pipeline.from_pretrained(options.weights, device=choose_device(options.device))
    renderer = prepare(pipeline)
    num_failed = 0
    with Progress(total=sum(len(job.samples) for job in jobs)) as progress:
        for job in jobs:
            end = progress.count + len(job.samples)
            try:
                _run(options, job, pipeline, renderer, files=files, progress=progress)
            except UserError as error:
                report_error(error)
                num_failed += 1
            progress.skip_to(end)
    return num_failed


def _run(
    options: RenderingOptions,
    job: Outputs,
    pipeline: "Pipeline",
    renderer: Renderer,
    *,
    files: Mapping[str, Path | None],
    progress: Progress,
) -> None:
    """Write all samples of one input, holding one video at a time, and their grid."""
    from cinnema.cli.samples import describe_call, write_sample
    from cinnema.media.grids import VideoGrid
    from cinnema.media.videos import write_video

    videos = renderer.videos(job.source)
    progress.begin(str(job.source))
    about = describe_call(job, pipeline, {**files, "keep_still": options.keep_still})
    motion, grid = renderer.motion, None
    for animation in videos:
        if grid is None:
            shown = 0 if motion is None else 1
            grid = VideoGrid(animation.x0, num_videos=len(job.samples) + shown)
            if motion is not None:
                grid.add(motion.query.shown[1:], num_frames=len(animation.frames))
        video = write_sample(job, animation, about, overwrite=options.overwrite)
        grid.add(animation.frames)
        progress.advance()
        print(video, flush=True)
    if grid is not None:
        write_video(job.grid, grid.frames(), fps=options.fps, overwrite=options.overwrite)
        print(job.grid, flush=True)
