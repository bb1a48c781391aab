"""The command `cinnema`: its subcommands and their options.

Each subcommand is a frozen dataclass beside the code that it runs; its fields are the options,
its docstrings the help.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from cinnema import __version__
from cinnema.cli.animate import Animate
from cinnema.cli.backbones import Backbones
from cinnema.cli.compare import Compare
from cinnema.cli.console import DONE, exit_code_of
from cinnema.cli.data import Check, Prepare, Show, Simulate
from cinnema.cli.demo import Demo
from cinnema.cli.edit import Edit
from cinnema.cli.evaluate import Evaluate
from cinnema.cli.extend import Extend
from cinnema.cli.finetune import Finetune
from cinnema.cli.importing import Import
from cinnema.cli.info import Info
from cinnema.cli.interpolate import Interpolate
from cinnema.cli.measure import Measure
from cinnema.cli.train import Bundle, TrainStage1, TrainStage2
from cinnema.cli.train_paper import TrainPaper
from cinnema.cli.transfer import Transfer
from cinnema.cli.validate import Validate

Train = Annotated[
    Annotated[TrainStage1, tyro.conf.subcommand("stage1")]
    | Annotated[TrainStage2, tyro.conf.subcommand("stage2")]
    | Annotated[Bundle, tyro.conf.subcommand("bundle")]
    | Annotated[TrainPaper, tyro.conf.subcommand("paper")],
    tyro.conf.subcommand("train", description="Train weights of your own, a stage at a time."),
]
Data = Annotated[
    Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Check, tyro.conf.subcommand("check")],
    tyro.conf.subcommand("data", description="Pack data sets and simulated worlds; look at them."),
]
Command = (
    Annotated[Animate, tyro.conf.subcommand("animate")]
    | Annotated[Backbones, tyro.conf.subcommand("backbones")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Data
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Extend, tyro.conf.subcommand("extend")]
    | Annotated[Finetune, tyro.conf.subcommand("finetune")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Interpolate, tyro.conf.subcommand("interpolate")]
    | Annotated[Measure, tyro.conf.subcommand("measure")]
    | Train
    | Annotated[Transfer, tyro.conf.subcommand("transfer")]
    | Annotated[Validate, tyro.conf.subcommand("validate")]
)

_DESCRIPTION = """A photograph moves: N different futures of a picture, from a conditional flow.

Exit codes: 0 all done; 1 some of several photographs failed, each told in a line; 2 the options or
files are at fault, or all photographs failed; 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows the program's name; None takes it from the shell.

    Returns:
        The exit code: 0 all done; 1 some of several photographs failed; 2 the user's mistake, or
        all photographs failed; 130 interrupted.

    Raises:
        SystemExit: with code 0 after --help and 2 after options that do not exist or do not parse.

    Example:
        >>> main(["info", "landscape"])
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):
        print(f"cinnema {__version__}")
        return DONE
    command = tyro.cli(
        Command,
        prog="cinnema",
        description=_DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    return exit_code_of(command.run)
