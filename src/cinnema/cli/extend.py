"""`cinnema extend`: `cinnema animate`, with the defaults for long videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from cinnema.cli.animate import Animate
from cinnema.cli.options import Folder


@dataclass(frozen=True, kw_only=True)
class Extend(Animate):
    """Animate photographs for long: animate with --extension, and 12 s (or 48 frames)."""

    extension: Annotated[
        Literal["onward", "continuous", "paper"], tyro.conf.arg(aliases=["--method"])
    ] = "continuous"
    """How a video continues after one clip of the model (16 frames at 8 per second with the bundled
    weights). onward: the motion continues. continuous: clips fade into one another; with weights of
    nature, which renew what they show, the same as onward. paper: decoded again from each clip's
    last frame with the same nu."""
    output: Folder = Path("extended")
    """Folder to write to, created if missing; the names are those of animate."""

    is_long: ClassVar[bool] = True
