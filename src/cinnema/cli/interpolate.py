"""`cinnema interpolate`: videos of one photograph with interpolated motions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cinnema.cli.jobs import Renderer, check_photo, plan, run_jobs
from cinnema.cli.options import ControlOptions, Folder, RenderingOptions
from cinnema.cli.ranges import Range, Seed, Temperature
from cinnema.core.files import check_input_file

if TYPE_CHECKING:
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.video import Video


@dataclass(frozen=True, kw_only=True)
class Interpolate(ControlOptions, RenderingOptions):
    """Animate one photograph with motions interpolated between two."""

    photo: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO")]
    """A photograph (JPEG, HEIC, PNG, WebP, AVIF, BMP, TIFF)."""
    start: Annotated[str, tyro.conf.arg(metavar="NUMBER|FILE")] = "0"
    """First motion: the index of a sample of the seed, from 0, or a nu file of an earlier call."""
    end: Annotated[str, tyro.conf.arg(metavar="NUMBER|FILE")] = "1"
    """Last motion, given like --start."""
    steps: Annotated[int, Range(2, 100)] = 5
    """Number of videos, including both ends, from 2 to 100."""
    seed: Seed = 0
    """Seed of ends that are indices, at least 0."""
    temperature: Temperature = 1.0
    """Factor on ends that are indices, at least 0."""
    output: Folder = Path("interpolated")
    """Folder to write to, created if missing. For sky.jpg these are the videos sky_between_00.mp4
    and so on, each with its JSON and nu, and sky_between_grid.png, all of them in a picture (with
    --grid a video)."""

    def run(self) -> int:
        """Render all steps, print the paths of the videos, and return the exit code."""
        self.check_rendering()
        check_photo(self.photo)
        start, end = _end(self.start), _end(self.end)
        control = self.control()
        samples = tuple(range(self.steps))
        options = self.rendering()
        options["temperature"] = self.temperature
        jobs = plan([self.photo], folder=self.output, tag="between", samples=samples, options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            def videos(photo: Path) -> "Iterator[Video]":
                return pipeline.interpolate(
                    check_input_file(photo, kind="a picture"),
                    start=start,
                    end=end,
                    steps=self.steps,
                    seed=self.seed,
                    eta=control,
                    **options,
                )

            return Renderer(videos)

        ends = {"start_nu": start, "end_nu": end}
        files = {name: path for name, path in ends.items() if isinstance(path, Path)}
        return run_jobs(self, jobs, prepare, files=files)


def _end(text: str) -> int | Path:
    """Return the number of a sample, or the path of a nu file that exists."""
    if text.isdecimal():
        return int(text)
    return check_input_file(text, kind="a nu file or a sample's number")
