"""`cinnema transfer`: transfers the motion of a video to photographs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cinnema.cli.console import USER_MISTAKE
from cinnema.cli.jobs import Renderer, find_photos, plan, run_jobs
from cinnema.cli.options import ControlOptions, Folder, Photos, QueryOptions, RenderingOptions
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file, cut_name

if TYPE_CHECKING:
    from cinnema.synthesis.pipeline import Pipeline
    from cinnema.synthesis.video import Video


@dataclass(frozen=True, kw_only=True)
class Transfer(ControlOptions, RenderingOptions, QueryOptions):
    """Transfer the motion of a video to photographs."""

    photos: Photos
    """Photographs (JPEG, HEIC, PNG, WebP, AVIF, BMP, TIFF), or folders of them."""
    motion: Annotated[Path, tyro.conf.arg(metavar="VIDEO")]
    """Video whose motion is transferred: a file or a folder of frames, of any size and frame rate,
    at least half a clip long."""
    keep: Literal["path", "residual"] | None = None
    """Part of the motion that is transferred. residual: nu, the part that the first frame does not
    determine. path: the path of a robot's hand, and the part of nu that the path leaves open.
    Default: path with weights of a robot and no --end-point, else residual."""
    output: Folder = Path("transferred")
    """Folder to write to, created if missing. For sky.jpg and waves.mp4 these are the video
    sky_like_waves_00.mp4, its JSON and nu, and sky_like_waves_grid.png with a frame of both
    videos (with --grid a video)."""

    def run(self) -> int:
        """Animate all photographs, print the paths of the videos, and return the exit code."""
        self.check_rendering()
        self.check_query(self.motion)
        photos, num_failed = find_photos(self.photos)
        if not photos:
            return USER_MISTAKE
        control = self.control()
        tag = f"like_{tag_of(self.motion)}"
        jobs = plan(photos, folder=self.output, tag=tag, samples=(0,), options=self)

        def prepare(pipeline: "Pipeline") -> Renderer:
            from cinnema.synthesis.transfer import choose_keep

            steered = control is not None
            keep = choose_keep(pipeline.model, self.keep, steered=steered)
            motion = self.read(pipeline, self.motion, steered=steered or keep == "path")

            def videos(photo: Path) -> "Iterator[Video]":
                animation = pipeline.transfer(
                    motion,
                    check_input_file(photo, kind="a picture"),
                    eta=control,
                    keep=keep,
                    **self.rendering(),
                )
                return iter((animation,))

            return Renderer(videos, motion)

        return run_jobs(self, jobs, prepare, files={"motion": self.motion}, num_failed=num_failed)


def tag_of(video: Path) -> str:
    """Return the name of a video, for use in the names of other files.

    Raises:
        UserError: The name has no letter or digit.
    """
    name = re.sub(r"[^\w.-]+", "-", video.absolute().stem).strip("-.")
    if not name:
        raise UserError(f"{video} has no name that other files can be named after: rename it")
    return cut_name(name, 60)
