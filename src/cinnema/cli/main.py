"""The entry point `cinnema`: the list of commands, and the dispatch to one of them.

A command is a frozen dataclass in the module named here: its fields are the options, its
docstrings the help, its method `run` does the work and returns the exit code. Only the module of
the chosen command is imported, and none imports torch before its options are known to be valid.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from cinnema import __version__
from cinnema.cli.console import DONE, USER_MISTAKE, exit_code_of
from cinnema.core.errors import UserError, suggestion

COMMANDS = {
    "animate": "animate.Animate",
    "extend": "extend.Extend",
    "transfer": "transfer.Transfer",
    "edit": "edit.Edit",
    "interpolate": "interpolate.Interpolate",
    "demo": "demo.Demo",
    "app": "app.App",
    "info": "info.Info",
    "data prepare": "data.Prepare",
    "data simulate": "data.Simulate",
    "data label": "label.Label",
    "data show": "data.Show",
    "data check": "data.Check",
    "finetune": "finetune.Finetune",
    "train stage1": "train.TrainStage1",
    "train stage2": "train.TrainStage2",
    "train bundle": "train.Bundle",
    "train kinds": "train_nature.TrainKinds",
    "train constants": "train_nature.TrainConstants",
    "train flow": "train_nature.TrainFlow",
    "train paper": "train_paper.TrainPaper",
    "import": "importing.Import",
    "evaluate": "evaluate.Evaluate",
    "validate": "validate.Validate",
    "measure": "measure.Measure",
    "backbones": "backbones.Backbones",
    "compare": "compare.Compare",
    "bench": "bench.Bench",
    "licences": "licences.Licences",
}
"""Class of each command, by the words of the command line."""

_ABOUT = """usage: cinnema COMMAND [OPTIONS]

Animates photographs: draws different futures of a picture from a conditional normalizing flow.
"""
_OPTIONS = """
options:
  -h, --help       print this, or the options of a command: cinnema COMMAND --help
  -V, --version    print the version

exit codes: 0 done; 1 some of several inputs failed; 2 invalid options or files, or all
inputs failed; 130, 143 and 129 interrupted; 141 the reader of the output has left
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Arguments after the program's name; those of this process if None.

    Returns:
        The exit code: 0 done; 1 some of several inputs failed; 2 invalid options or files; 130,
        143 and 129 interrupted; 141 the reader of standard output has left.

    Raises:
        SystemExit: The help of a command was printed.

    Example:
        >>> main(["info", "landscape"])
    """
    return exit_code_of(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    from cinnema.cli.parser import parse

    if arguments and arguments[0] in ("--version", "-V"):
        print(f"cinnema {__version__}")
        return DONE
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    name, rest = _command(arguments)
    if name not in COMMANDS:  # no command, or a group of commands
        wants_help = rest[:1] in (["-h"], ["--help"])
        print(_help(name), end="", file=sys.stdout if wants_help else sys.stderr)
        return DONE if wants_help else USER_MISTAKE
    return parse(_class(name), rest, prog=f"cinnema {name}").run()


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the command, or the group of commands, that is named, and the other arguments.

    Raises:
        UserError: There is no such command; the message names the nearest one.
    """
    name = ""
    for index, word in enumerate(arguments):
        longer = f"{name} {word}".lstrip()
        if word.startswith("-") or name in COMMANDS:
            return name, arguments[index:]
        if not any(f"{command} ".startswith(f"{longer} ") for command in COMMANDS):
            raise UserError(f"there is no command {longer!r}: {_nearest(name, word)}")
        name = longer
    return name, []


def _nearest(group: str, word: str) -> str:
    full = {command.split()[-1]: command for command in COMMANDS}
    full |= {command.split()[0]: command.split()[0] for command in COMMANDS}
    names = {last: command for last, command in full.items() if command.startswith(group)}
    found = suggestion(word, list(names))
    for last, command in names.items():
        found = found.replace(f"mean {last}?", f"mean {command}?")
    if not found and "." in word:
        return f"to animate a photograph, cinnema animate {word}"
    return found or "cinnema --help lists all"


def _class(name: str) -> type:
    module, _, kind = COMMANDS[name].partition(".")
    found: type = getattr(import_module(f"cinnema.cli.{module}"), kind)
    return found


def _help(group: str) -> str:
    """List all commands, or those of a group."""
    from cinnema.cli.parser import summary

    names = [name for name in COMMANDS if f"{name} ".startswith(f"{group} ".lstrip())]
    lines = [f"  {name:<15}  {summary(_class(name))}\n" for name in names]
    return f"{_ABOUT}\ncommands:\n{''.join(lines)}{_OPTIONS}"
