"""`cinnema validate`: metrics of a warping model on held-out scenes that it was not trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.console import DONE, Progress
from cinnema.cli.evaluate import Json
from cinnema.cli.options import Weights
from cinnema.cli.ranges import Threads
from cinnema.core.bundled import find_weights
from cinnema.core.errors import UserError
from cinnema.core.files import check_output_folder, write_json


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Measure weights and baselines on validation scenes that they were not trained on.

    The same metrics as `cinnema evaluate WEIGHTS FOLDER --only flow-error reconstruction samples
    likelihood sample-motion --parts`, on the crops that the recipe of drift keeps for
    validation.
    """

    weights: Annotated[Weights, tyro.conf.Positional] = "drift"
    """Weights to measure: the name of bundled ones or a file."""
    data: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder of packed clips or of videos, which are packed on first use."""
    threads: Threads = None
    """CPU threads; default: one for each core."""
    json_file: Json = None
    """JSON file for the numbers; replaced if it exists."""

    def run(self) -> int:
        """Measure, print the tables, and write the file."""
        find_weights(self.weights)
        if not self.data.is_dir():
            raise UserError(f"{self.data} is not a folder: name a folder of clips with --data")
        if self.json_file is not None and not self.json_file.exists():
            check_output_folder(self.json_file.parent)
        from cinnema.core.devices import use_threads
        from cinnema.evaluation.results import as_text
        from cinnema.evaluation.runner import evaluate_crops
        from cinnema.models.files import load_model, load_warping_model
        from cinnema.recipes.clips import split_crops
        from cinnema.recipes.drift import drift

        use_threads(self.threads)
        model = load_warping_model(self.weights, purpose="`cinnema validate`")
        with Progress(total=0) as bar:
            crops = split_crops(
                drift().data, model.config.stage1, root=self.data, progress=bar.report
            )
            evaluation = evaluate_crops(
                model,
                crops.held_out,
                train=crops.train,
                name=self.data.name,
                sha256=load_model(self.weights).sha256,
                progress=bar.report,
            )
        print(as_text(evaluation), flush=True)
        if self.json_file is not None:
            write_json(self.json_file, evaluation.to_dict(), overwrite=True)
        return DONE
