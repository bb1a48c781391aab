"""`cinnema edit`: a video goes on from its own first frame, with another control."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cinnema.cli.jobs import Renderer, plan, run_jobs
from cinnema.cli.options import ControlOptions, Folder, RenderingOptions, at_least
from cinnema.cli.transfer import QueryOptions
from cinnema.core.errors import UserError

if TYPE_CHECKING:
    from cinnema.synthesis.animation import Animation
    from cinnema.synthesis.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Edit(ControlOptions, RenderingOptions, QueryOptions):
    """Change where what moves in a video goes to, and keep the rest of its motion."""

    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
    """A video file or a folder of frames, of any size, frame rate and length from half a clip
    on. --direction or --speed (or --end-point) says what is to change; what is not named stays."""
    frames: int = 16
    """Frames of the new video (of a pingpong loop: of the way there)."""
    loop: Literal["none", "pingpong", "crossfade"] = "none"
    """How the end joins the beginning."""
    output: Folder = Path("edited")
    """Folder, made if missing. Of sky.mp4 it gets the video sky_edit_00.mp4, beside it its JSON
    and nu, and sky_edit_grid.mp4 with both videos."""

    def run(self) -> int:
        """Edit the video, print the paths of what was written, and return the exit code."""
        at_least({"--frames": (self.frames, 1 if self.loop == "none" else 2)})
        self.check_rendering()
        self.check_query(self.video)
        control = self.control()
        if control is None:
            raise UserError(
                "nothing is to change: give --direction, --speed or, with weights of a robot, "
                "--end-point"
            )
        jobs = plan([self.video], folder=self.output, tag="edit", samples=(0,), options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            motion = self.read(pipeline, self.video, steered=True)

            def videos(_: Path) -> "Iterator[Animation]":
                animation = pipeline.edit(
                    motion,
                    eta=control,
                    num_frames=self.frames,
                    loop=self.loop,
                    **self.rendering(),
                )
                return iter((animation,))

            return Renderer(videos, motion)

        return run_jobs(self, jobs, prepare, files={})
