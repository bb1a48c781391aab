"""`cinnema edit`: regenerates a video from its first frame with another control."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cinnema.cli.jobs import Renderer, plan, run_jobs
from cinnema.cli.options import ControlOptions, Folder, QueryOptions, RenderingOptions
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.video import Video


@dataclass(frozen=True, kw_only=True)
class Edit(ControlOptions, RenderingOptions, QueryOptions):
    """Change the direction, speed or end point of the motion in a video, and keep the rest."""

    video: Annotated[Path, tyro.conf.Positional]
    """A video file or a folder of frames, of any size and frame rate, at least half a clip long.
    Give the new values with --direction, --speed or --end-point; the others are kept."""
    output: Folder = Path("edited")
    """Folder to write to, created if missing. For sky.mp4 these are the video sky_edit_00.mp4, its
    JSON and nu, and sky_edit_grid.png with a frame of both videos (a video with --grid)."""

    def run(self) -> int:
        """Edit the video, print the paths of what was written, and return the exit code."""
        self.check_rendering()
        self.check_query(self.video)
        control = self.control()
        if control is None:
            raise UserError(
                "nothing to change: give --direction, --speed or, with weights of a robot, "
                "--end-point"
            )
        jobs = plan([self.video], folder=self.output, tag="edit", samples=(0,), options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            motion = self.read(pipeline, self.video, steered=True)

            def videos(_: Path) -> "Iterator[Video]":
                return iter((pipeline.edit(motion, eta=control, **self.rendering()),))

            return Renderer(videos, motion)

        return run_jobs(self, jobs, prepare, files={})
