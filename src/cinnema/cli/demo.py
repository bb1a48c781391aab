"""`cinnema demo`: the example photographs, animated."""

import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.animate import Animate
from cinnema.cli.console import USER_MISTAKE


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Animate the example photographs that come with the package."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("demo")
    """Folder for the videos; those of an earlier demo are replaced."""
    num_samples: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 4
    """How many futures of each photograph."""
    seed: int = 0
    """Which futures."""
    weights: str = "landscape"
    """Name of bundled weights, or a weights file."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def run(self) -> int:
        """Animate and say where the videos lie."""
        code = Animate(
            photos=(example_folder(),),
            output=self.output,
            num_samples=self.num_samples,
            seed=self.seed,
            weights=self.weights,
            device=self.device,
            overwrite=True,
        ).run()
        if code != USER_MISTAKE:
            print(f"The videos lie in {self.output.resolve()}", file=sys.stderr)
        return code


def example_folder() -> Path:
    """Return the folder of the example photographs; ATTRIBUTION.md there names their authors."""
    return Path(str(files("cinnema") / "examples"))
