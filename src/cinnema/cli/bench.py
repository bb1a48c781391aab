"""`cinnema bench`: speed and memory on this machine."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cinnema.bench.sections import SECTIONS
from cinnema.cli.console import DONE
from cinnema.cli.ranges import Range
from cinnema.core.errors import UserError, suggestion
from cinnema.core.files import check_output_folder, write_json

PLOT_FORMATS = (".svg", ".png")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed and memory on this machine: medians of cases that take turns.

    Ratios say how many times as fast a case is as the one before it that has none.
    """

    sections: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SECTION...")
    ] = ()
    """Sections to run, by name; all of them by default. An unknown name lists them."""
    runs: Annotated[int, Range(1, 1000)] = 5
    """How often each case runs."""
    quick: bool = False
    """Run small cases, only to see that they work."""
    json_file: Annotated[Path | None, tyro.conf.arg(name="json", metavar="FILE")] = None
    """File to write the results to, replaced if it exists."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Picture of the results, .svg or .png, replaced if it exists; needs matplotlib."""

    def run(self) -> int:
        """Measure, and print the tables."""
        for name in self.sections:
            if name not in SECTIONS:
                hint = suggestion(name, list(SECTIONS)) or f"use some of {', '.join(SECTIONS)}"
                raise UserError(f"the bench has no section {name!r}: {hint}")
        if self.plot is not None:
            check_plot(self.plot)
        for path in (self.json_file, self.plot):
            if path is not None:
                check_output_folder(path.parent)
        from cinnema.bench.report import run_sections
        from cinnema.bench.rows import Settings

        report = run_sections(
            self.sections or tuple(SECTIONS),
            Settings(runs=self.runs, quick=self.quick),
            show=lambda line: print(line, flush=True),
        )
        if self.json_file is not None:
            write_json(self.json_file, report, overwrite=True)
        if self.plot is not None:
            from cinnema.bench.picture import draw_report

            draw_report(report, self.plot)
        return DONE


def check_plot(path: Path) -> None:
    """Raise a UserError unless a picture of the bench can be drawn with this name.

    Args:
        path: The file.
    """
    if path.suffix not in PLOT_FORMATS:
        raise UserError(f"--plot must end in {' or '.join(PLOT_FORMATS)}, got {path.name}")
    if not importlib.util.find_spec("matplotlib"):
        raise UserError(
            "--plot needs matplotlib: install it with pip install 'cinnema[report]', or leave "
            "--plot out"
        )
