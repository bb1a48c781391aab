"""`cinnema validate`: how good weights are on scenes they were not trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.cli.console import DONE
from cinnema.cli.data import open_data


@dataclass(frozen=True, kw_only=True)
class Validate:
    """Measure weights on validation scenes never trained on, beside honest baselines."""

    weights: Annotated[str, tyro.conf.Positional] = "landscape"
    """Name of bundled weights, or a weights file."""
    data: Path
    """A packed data set, or a folder of videos."""
    threads: int | None = None
    """Threads on the CPU; all cores unless given."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """Write the numbers to this JSON file as well; one that is there already is replaced."""

    def run(self) -> int:
        """Print the table, and write the JSON file if one is named."""
        from cinnema.core.devices import use_threads
        from cinnema.core.files import write_json
        from cinnema.recipes.assembly import validate

        use_threads(self.threads)
        report = validate(self.weights, data=open_data(self.data).folder)
        print(report.to_table(), flush=True)
        if self.json_file is not None:
            write_json(self.json_file, report.to_dict(), overwrite=True)
        return DONE
