"""`cinnema extend`: futures that are longer than the clip that a model knows."""

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
class Extend(ControlOptions, RenderingOptions, SamplingOptions):
    """Animate photographs for longer than a clip, without drift, or as the paper does."""

    photos: Photos
    """Photographs (JPEG, PNG, WebP, BMP, TIFF), or folders of them."""
    frames: int = 48
    """Frames of a video."""
    method: Literal["continuous", "paper", "onward"] = "continuous"
    """continuous: warps of the photograph of at most 1.5 clips, faded one into the other, so that
    nothing drifts. paper: decoded again from each clip's last frame with the same dynamics.
    onward: the motion leads on from the photograph, ever further."""
    output: Folder = Path("extended")
    """Folder, made if missing; the names are those of animate."""

    def run(self) -> int:
        """Animate all photographs, print the paths of the videos, and return the exit code."""
        at_least({"--frames": (self.frames, 1)})
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
                    extension=self.method,
                    eta=control,
                    **self.sampling(),
                    **self.rendering(),
                )

            return Renderer(videos)

        return run_jobs(self, jobs, prepare, files={"given_nu": self.nu}, num_failed=num_failed)
