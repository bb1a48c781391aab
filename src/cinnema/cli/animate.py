"""`cinnema animate`: N different futures of each photograph, as files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cinnema.cli.jobs import Renderer, find_photos, plan, run_jobs
from cinnema.cli.options import (
    ControlOptions,
    Folder,
    Photos,
    RenderingOptions,
    SamplingOptions,
    at_least,
)
from cinnema.core.files import check_input_file

if TYPE_CHECKING:
    from cinnema.synthesis.animation import Animation
    from cinnema.synthesis.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Animate(ControlOptions, RenderingOptions, SamplingOptions):
    """Animate photographs: one video a sample, and a grid of all beside the first frame."""

    photos: Photos
    """Photographs (JPEG, PNG, WebP, BMP, TIFF), or folders of them."""
    frames: int = 16
    """Frames of a video (of a pingpong loop: of the way there)."""
    loop: Literal["none", "pingpong", "crossfade"] = "none"
    """How the end joins the beginning."""
    output: Folder = Path("animated")
    """Folder, made if missing. Of sky.jpg with seed 0 it gets the video sky_s0_00.mp4, beside it
    sky_s0_00.json (settings, hashes) and sky_s0_00.nu.safetensors (for --nu), then sky_s0_01.mp4
    and so on, and sky_s0_grid.mp4."""

    def run(self) -> int:
        """Animate all photographs, print the paths of the videos, and return the exit code."""
        at_least({"--frames": (self.frames, 1 if self.loop == "none" else 2)})
        self.check_sampling()
        self.check_rendering()
        control = self.control()
        photos, num_failed = find_photos(self.photos)
        seed, samples = self.numbers()
        jobs = plan(photos, folder=self.output, tag=f"s{seed}", samples=samples, options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            def videos(photo: Path) -> "Iterator[Animation]":
                return pipeline.iterate(
                    check_input_file(photo, kind="a picture"),
                    num_frames=self.frames,
                    loop=self.loop,
                    eta=control,
                    **self.sampling(),
                    **self.rendering(),
                )

            return Renderer(videos)

        return run_jobs(self, jobs, prepare, files={"given_nu": self.nu}, num_failed=num_failed)
