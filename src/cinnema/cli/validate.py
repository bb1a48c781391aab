"""`cinnema validate`: the held-out likelihood of a model beside that of simple priors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.data import open_data
from cinnema.cli.evaluate import ClipOptions
from cinnema.cli.options import Weights
from cinnema.cli.ranges import Threads
from cinnema.core.files import write_json


@dataclass(frozen=True, kw_only=True)
class Validate(ClipOptions):
    """Measure the likelihood of held-out clips, beside simple priors fitted to training clips.

    The same as cinnema evaluate WEIGHTS FOLDER --only latents.
    """

    weights: Annotated[Weights, tyro.conf.Positional] = "landscape"
    """Weights to measure: the name of bundled ones or a file."""
    data: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of packed clips or of videos, which are packed on first use."""
    threads: Threads = None
    """CPU threads; default: one for each core."""

    def run(self) -> int:
        """Measure, print the table, and write the file."""
        self.check_clips(self.weights, self.data)
        from cinnema.core.devices import choose_device, use_threads
        from cinnema.evaluation.results import as_text
        from cinnema.models.files import load_model

        use_threads(self.threads)
        loaded = load_model(self.weights)
        with Progress(total=0) as bar:
            evaluation = self.evaluate(
                loaded,
                open_data(self.data, bar.report),
                bar.report,
                only=("latents",),
                device=choose_device(self.device),
            )
        assert evaluation is not None
        print(as_text(evaluation), flush=True)
        if self.json_file is not None:
            write_json(self.json_file, evaluation.to_dict(), overwrite=True)
        return DONE
