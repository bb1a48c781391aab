"""`cinnema animate`: N different futures of each photograph, as files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file
from cinnema.serve.console import DONE, SOME_FAILED, USER_MISTAKE, Progress, report_error
from cinnema.serve.outputs import Outputs, check_folder, distinct_names, refuse_existing

if TYPE_CHECKING:
    from cinnema.synthesis.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Animate:
    """Animate photographs: one video a sample, and a grid of all beside the first frame."""

    photos: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO...")]
    """Photographs (JPEG, PNG, WebP, BMP, TIFF), or folders of them."""
    num_samples: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """How many futures of each photograph; the first ones are the same whatever the number."""
    seed: int = 0
    """Which futures; at least 0."""
    frames: int = 16
    """Frames of a video (of a pingpong loop: of the way there)."""
    fps: float = 8.0
    """Frames a second."""
    temperature: float = 1.0
    """Spread of the futures, at least 0: 0 is the most typical one, 1 as spread as in training."""
    motion_strength: float = 1.0
    """Factor on all displacements: 0 stands still, 1 as in training."""
    size: str = "native"
    """Of the videos: native (the photograph's), model (what the networks see) or WxH in pixels."""
    loop: Literal["none", "pingpong", "crossfade"] = "none"
    """How the end joins the beginning."""
    keep_still: Annotated[Path | None, tyro.conf.arg(metavar="MASK.png")] = None
    """A picture of the photograph's size, white where nothing may move."""
    format: Literal["mp4", "gif", "webp", "png", "npy"] = "mp4"
    """Of the videos; png is a folder of frames. The grid of png and npy is an mp4."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("animated")
    """Folder, made if missing. Of sky.jpg with seed 0 it gets the video sky_s0_00.mp4, beside it
    sky_s0_00.json (settings, hashes) and sky_s0_00.nu.safetensors (for --nu), then sky_s0_01.mp4
    and so on, and sky_s0_grid.mp4."""
    weights: str = "landscape"
    """Name of bundled weights, or a weights file."""
    nu: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Dynamics that an earlier call saved, its temperature included: one video a photograph;
    --seed and -n do not count."""
    overwrite: bool = False
    """Replace what is there already."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def run(self) -> int:
        """Animate all photographs, print the paths of the videos, and return the exit code."""
        check_options(self)
        photos, num_failed = _find_photos(self.photos)
        num_inputs = len(photos) + num_failed
        if photos:
            jobs = self._plan(photos)
            num_failed += _animate_all(self, jobs)
        if num_failed == 0:
            return DONE
        return SOME_FAILED if num_failed < num_inputs else USER_MISTAKE

    def _plan(self, photos: Sequence[Path]) -> list[Outputs]:
        """Name everything that will be written, and make sure that it can be."""
        seed, samples = self.seed, tuple(range(self.num_samples))
        if self.nu is not None:
            from cinnema.synthesis.residuals import load_nu

            saved = load_nu(self.nu)
            seed, samples = saved.seed or 0, (saved.sample,)
        jobs = [
            Outputs(photo, name, self.output, self.format, seed, samples)
            for photo, name in zip(photos, distinct_names(photos), strict=True)
        ]
        if not self.overwrite:
            refuse_existing(path for job in jobs for path in job.all())
        check_folder(self.output)
        return jobs


def check_options(options: Animate) -> None:
    """Raise a UserError for the first option out of its range, before anything heavy is loaded.

    Args:
        options: what the user asked for.

    Raises:
        UserError: a number is out of its range, --size does not parse, or --keep-still or --nu
            names no file.
    """
    if not options.photos:
        raise UserError(
            "no photograph is named: give files or folders, as in cinnema animate a.jpg"
        )
    at_least = {
        "--num-samples": (options.num_samples, 1),
        "--seed": (options.seed, 0),
        "--frames": (options.frames, 1 if options.loop == "none" else 2),
        "--temperature": (options.temperature, 0),
        "--motion-strength": (options.motion_strength, 0),
    }
    for name, (value, least) in at_least.items():
        if not least <= value < math.inf:
            raise UserError(f"{name} must be at least {least}, got {value}")
    parse_size(options.size)
    _check_fps(options)
    for path, kind in ((options.keep_still, "a mask"), (options.nu, "a nu file")):
        if path is not None:
            check_input_file(path, kind=kind)


def _check_fps(options: Animate) -> None:
    from cinnema.media.videos import MAX_FPS, MAX_GIF_FPS

    limit = MAX_GIF_FPS if options.format == "gif" else MAX_FPS
    if not 0 < options.fps <= limit:
        raise UserError(
            f"--fps must be above 0 and up to {limit:g} for {options.format}, got {options.fps:g}"
        )


def parse_size(text: str) -> Literal["native", "model"] | tuple[int, int]:
    """Return what --size means.

    Args:
        text: native, model, or width and height in pixels as 640x360.

    Returns:
        The word, or (width, height).

    Raises:
        UserError: it is none of these.

    Example:
        >>> parse_size("640x360")
        (640, 360)
    """
    if text == "native":
        return "native"
    if text == "model":
        return "model"
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(
            f"--size must be native, model or width and height as in 640x360, got {text!r}"
        )
    return int(width), int(height)


def _find_photos(inputs: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the photographs, each once, and how many of the inputs hold none."""
    from cinnema.media.pictures import find_pictures

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


def _animate_all(options: Animate, jobs: Sequence[Outputs]) -> int:
    """Animate each photograph; return how many could not be."""
    from cinnema.serve.devices import choose_device
    from cinnema.synthesis.pipeline import Pipeline

    pipeline = Pipeline.from_pretrained(options.weights, device=choose_device(options.device))
    num_failed = 0
    with Progress(total=sum(len(job.samples) for job in jobs)) as progress:
        for job in jobs:
            end = progress.count + len(job.samples)
            try:
                _animate(options, job, pipeline, progress)
            except UserError as error:
                report_error(error)
                num_failed += 1
            progress.skip_to(end)
    return num_failed


def _animate(options: Animate, job: Outputs, pipeline: "Pipeline", progress: Progress) -> None:
    """Write all samples of one photograph, holding one video at a time, and their grid."""
    from cinnema.serve.samples import describe_call, write_sample
    from cinnema.serve.sheets import ContactSheet

    check_input_file(job.photo, kind="a picture")
    progress.begin(str(job.photo))
    about = describe_call(options, job, pipeline)
    sheet = ContactSheet(num_samples=len(job.samples))
    for animation in pipeline.iterate(job.photo, **_pipeline_options(options)):
        video = write_sample(job, animation, about, overwrite=options.overwrite)
        sheet.add(animation)
        progress.advance()
        print(video, flush=True)
    sheet.write(job.grid, fps=options.fps, overwrite=options.overwrite)
    print(job.grid, flush=True)


def _pipeline_options(options: Animate) -> dict[str, Any]:
    return {
        "num_samples": options.num_samples,
        "seed": options.seed,
        "num_frames": options.frames,
        "fps": options.fps,
        "temperature": options.temperature,
        "motion_strength": options.motion_strength,
        "size": parse_size(options.size),
        "loop": options.loop,
        "keep_still": options.keep_still,
        "nu": options.nu,
    }
