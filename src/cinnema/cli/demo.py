"""`cinnema demo`: animates the example photographs."""

import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.animate import Animate
from cinnema.cli.console import DONE
from cinnema.cli.options import Device, Folder, Weights
from cinnema.cli.ranges import NumSamples, Seed
from cinnema.media.formats import pictures_in


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Animate the example photographs of the package."""

    output: Folder = Path("demo")
    """Folder for the videos; those of an earlier demo are replaced."""
    num_samples: Annotated[NumSamples, tyro.conf.arg(aliases=["-n"])] = 4
    """Number of futures of each photograph."""
    seed: Seed = 0
    """Seed of the futures, at least 0."""
    weights: Weights = "landscape"
    """Weights to use: the name of bundled ones or a file."""
    device: Device = "auto"
    """Device to compute on; auto uses a GPU if available."""

    def run(self) -> int:
        """Animate, and print the paths of the videos."""
        photos = pictures_in(example_folder())
        print(
            f"cinnema: {self.num_samples} futures of {len(photos)} photographs, with the weights "
            f"{self.weights}; half a minute or more each on a CPU",
            file=sys.stderr,
            flush=True,
        )
        code = Animate(
            photos=(example_folder(),),
            output=self.output,
            num_samples=self.num_samples,
            seed=self.seed,
            weights=self.weights,
            device=self.device,
            grid=True,
            overwrite=True,
        ).run()
        if code == DONE:
            print("cinnema: open these videos first:", file=sys.stderr)
            for photo in photos:
                grid = self.output.resolve() / f"{photo.stem}_s{self.seed}_grid.mp4"
                about = f"{photo.stem}, top left, and {self.num_samples} futures of it"
                print(f"  {grid}  ({about})", file=sys.stderr, flush=True)
        return code


def example_folder() -> Path:
    """Return the folder of the example photographs; ATTRIBUTION.md there names their authors."""
    return Path(str(files("cinnema") / "examples"))
