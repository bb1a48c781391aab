"""`cinnema extend`: `cinnema animate`, with the defaults for videos longer than one clip."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from cinnema.cli.animate import Animate
from cinnema.cli.options import Folder


@dataclass(frozen=True, kw_only=True)
class Extend(Animate):
    """Animate photographs for longer than one clip: animate with --extension and 48 frames."""

    extension: Annotated[
        Literal["onward", "continuous", "paper"], tyro.conf.arg(aliases=["--method"])
    ] = "continuous"
    """How a video continues after one clip of the model (16 frames at 8 per second with the bundled
    weights). onward: the motion continues, ever further from the photograph. continuous: warps of
    the photograph that are at most 1.5 clips old, faded one into the other, so that nothing drifts.
    paper: decoded again from each clip's last frame with the same nu."""
    output: Folder = Path("extended")
    """Folder to write to, created if missing; the names are those of animate."""

    default_frames: ClassVar[int] = 48
