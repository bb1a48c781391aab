"""`cinnema backbones`: lists the networks that evaluations use, and whether they are installed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.console import DONE


@dataclass(frozen=True, kw_only=True)
class Backbones:
    """List the networks that `cinnema evaluate` uses: their files, or how to get them.

    Nothing is downloaded.
    """

    folder: Annotated[Path | None, tyro.conf.arg(name="dir")] = None
    """Folder of the files that are not in a package; by default $CINNEMA_BACKBONES."""

    def run(self) -> int:
        """Print the list."""
        from cinnema.backbones.registry import find_backbones

        for found in find_backbones(self.folder).values():
            backbone = found.backbone
            print(f"{backbone.title}: {found.state}")
            print(f"  needed by  {', '.join(backbone.needed_by)}")
            if found.path is None:
                print(f"  to get it  {backbone.how_to_get}")
                continue
            print(f"  file       {found.path}")
            print(f"  sha256     {found.sha256} ({_verdict(found.state, backbone.sha256)})")
        return DONE


def _verdict(state: str, known: tuple[str, ...]) -> str:
    if not known:
        return "no hash is published to compare it with"
    if state == "another":
        return f"NOT the known file, whose hash begins with {known[0][:12]}"
    return "as known"
