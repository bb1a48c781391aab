"""`cinnema transfer`: photographs move as a video does."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cinnema.cli.jobs import Renderer, find_photos, plan, run_jobs
from cinnema.cli.options import (
    ControlOptions,
    Folder,
    Photos,
    RenderingOptions,
    at_least,
    parse_end_point,
)
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file

if TYPE_CHECKING:
    from cinnema.models.control import Control
    from cinnema.synthesis.animation import Animation
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.transfer import Motion


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Which clip of a video is taken."""

    start: float = 0.0
    """Where in the video its clip begins, in seconds."""
    query_fps: float | None = None
    """The video's frames a second, where its file says nothing (a folder of frames, an array: then
    each frame is taken) or something wrong."""
    query_end_point: Annotated[str | None, tyro.conf.arg(metavar="X,Y,Z")] = None
    """Where the robot's end effector is at the last frame of the video, for weights of a robot."""

    def check_query(self, video: Path) -> None:
        """Raise a UserError for an option out of its range, or a video that is not there."""
        at_least({"--start": (self.start, 0)})
        if not video.is_dir():
            check_input_file(video, kind="a video")
        self.query_control()

    def query_control(self) -> "Control | None":
        """Return the video's own control, where it was given."""
        if self.query_end_point is None:
            return None
        return parse_end_point(self.query_end_point, option="--query-end-point")

    def read(self, pipeline: "Pipeline", video: Path, *, steered: bool) -> "Motion":
        """Read the motion of a video, and tell on standard error what was taken of it."""
        motion = pipeline.read_motion(
            video,
            start=self.start,
            query_fps=self.query_fps,
            steered=steered,
            query_eta=self.query_control(),
        )
        print(f"cinnema: {motion.said}", file=sys.stderr, flush=True)
        return motion


@dataclass(frozen=True, kw_only=True)
class Transfer(ControlOptions, RenderingOptions, QueryOptions):
    """Carry the motion of a video over to photographs."""

    photos: Photos
    """Photographs (JPEG, PNG, WebP, BMP, TIFF), or folders of them."""
    motion: Annotated[Path, tyro.conf.arg(metavar="VIDEO")]
    """The video whose motion is taken: a file or a folder of frames, of any size, frame rate and
    length from half a clip on."""
    frames: int = 16
    """Frames of a video (of a pingpong loop: of the way there)."""
    loop: Literal["none", "pingpong", "crossfade"] = "none"
    """How the end joins the beginning."""
    keep: Literal["way", "residual"] | None = None
    """What is kept of the motion. residual: nu, what the video's first frame leaves open. way: of a
    robot, the way of its hand, and of nu what that leaves open. Left out, way with weights of a
    robot and no --end-point, else residual."""
    output: Folder = Path("transferred")
    """Folder, made if missing. Of sky.jpg and waves.mp4 it gets the video sky_like_waves_00.mp4,
    beside it its JSON and nu, and sky_like_waves_grid.mp4 with both videos."""

    def run(self) -> int:
        """Animate all photographs, print the paths of the videos, and return the exit code."""
        at_least({"--frames": (self.frames, 1 if self.loop == "none" else 2)})
        self.check_rendering()
        self.check_query(self.motion)
        control = self.control()
        photos, num_failed = find_photos(self.photos)
        tag = f"like_{tag_of(self.motion)}"
        jobs = plan(photos, folder=self.output, tag=tag, samples=(0,), options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            from cinnema.synthesis.transfer import what_is_kept

            steered = control is not None
            keep = what_is_kept(pipeline.model, self.keep, steered=steered)
            motion = self.read(pipeline, self.motion, steered=steered or keep == "way")

            def videos(photo: Path) -> "Iterator[Animation]":
                animation = pipeline.transfer(
                    motion,
                    check_input_file(photo, kind="a picture"),
                    eta=control,
                    keep=keep,
                    num_frames=self.frames,
                    loop=self.loop,
                    **self.rendering(),
                )
                return iter((animation,))

            return Renderer(videos, motion)

        return run_jobs(self, jobs, prepare, files={"motion": self.motion}, num_failed=num_failed)


def tag_of(video: Path) -> str:
    """Return a video's name as a part of other files' names.

    Raises:
        UserError: nothing of it is left, as of a single dot.
    """
    name = re.sub(r"[^\w.-]+", "-", video.absolute().stem).strip("-.")
    if not name:
        raise UserError(f"{video} has no name that files could be called after: rename it")
    return name
