"""`cinnema animate`: generates videos of several futures of each photograph."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cinnema.cli.console import USER_MISTAKE
from cinnema.cli.jobs import Renderer, find_photos, plan, run_jobs
from cinnema.cli.options import (
    ArrowOptions,
    ControlOptions,
    Folder,
    Photos,
    RenderingOptions,
    SamplingOptions,
    named_as_options,
)
from cinnema.core.files import check_input_file

if TYPE_CHECKING:
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.video import Video, VideoStream


@dataclass(frozen=True, kw_only=True)
class Animate(ArrowOptions, ControlOptions, RenderingOptions, SamplingOptions):
    """Animate photographs: a video for each future."""

    photos: Photos
    """Photographs (JPEG, HEIC, PNG, WebP, AVIF, BMP, TIFF), or folders of them."""
    output: Folder = Path("animated")
    """Folder to write to, created if missing. For sky.jpg and seed 0 these are the video
    sky_s0_00.mp4, its settings sky_s0_00.json, its motion sky_s0_00.nu.safetensors (for --nu), the
    same for 01 and so on, and a picture of all, sky_s0_grid.png (a video with --grid)."""

    def run(self) -> int:
        """Animate all photographs, print the paths of the videos, and return the exit code."""
        self.check_sampling()
        self.check_rendering()
        photos, num_failed = find_photos(self.photos)
        if not photos:
            return USER_MISTAKE
        control, arrows = self.control(), self.arrows()
        seed, samples = self.numbers()
        jobs = plan(photos, folder=self.output, tag=f"s{seed}", samples=samples, options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            def videos(photo: Path) -> "Iterator[Video] | Iterator[VideoStream]":
                make = pipeline.stream if self.format in self.streamed else pipeline.iterate
                with named_as_options():
                    return make(
                        check_input_file(photo, kind="a picture"),
                        eta=control,
                        **self.sampling(),
                        **self.rendering(),
                        **arrows,
                    )

            return Renderer(videos)

        return run_jobs(self, jobs, prepare, files={"given_nu": self.nu}, num_failed=num_failed)
