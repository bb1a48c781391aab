"""Parses command lines: the fields of a dataclass are the options, its docstrings the help."""

import ast
import dataclasses
import inspect
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache, partial
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from cinnema.cli.fields import check_field_names, check_file_of_fields, split_fields
from cinnema.cli.ranges import check_ranges
from cinnema.core.errors import UserError, suggestion

_Command = TypeVar("_Command")


def parse(kind: type[_Command], arguments: Sequence[str], *, prog: str) -> _Command:
    """Return a command with the options that the arguments set.

    Args:
        kind: Dataclass of the command.
        arguments: Arguments after the command's name.
        prog: Name of program and command, for messages.

    Raises:
        UserError: An option does not exist (the message names the most similar one), is missing, or
            has a value that is not valid.
        SystemExit: The help was printed.
    """
    errors = io.StringIO()
    fields: tuple[str, ...] = ()
    arguments = _completed(arguments, getattr(kind, "bare", {}))
    if "fields" in getattr(kind, "__dataclass_fields__", {}):
        arguments, fields = split_fields(arguments)
    try:
        with redirect_stderr(errors):
            command, unknown = tyro.cli(
                kind,
                prog=prog,
                args=list(arguments),
                return_unknown_args=True,
                registry=_registry(),
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as stop:
        if not stop.code:  # the help was printed
            raise
        _refuse_unknown(kind, arguments, prog=prog)  # clearer than tyro's message
        raise UserError(f"{_mistake(errors.getvalue())}: see {prog} --help") from stop
    _refuse_unknown(kind, unknown, prog=prog)
    if unknown:
        raise UserError(f"{prog} does not take {unknown[0]!r} as well: see {prog} --help")
    check_ranges(command)
    if fields:
        check_field_names(fields, kind.recipe_class)  # type: ignore[attr-defined]
    if (file := getattr(command, "config", None)) is not None:
        check_file_of_fields(file, kind.recipe_class)  # type: ignore[attr-defined]
    return dataclasses.replace(command, fields=fields) if fields else command  # type: ignore[type-var]


def _mistake(box: str) -> str:
    """Return what tyro's message says in its frame, without the help of the arguments."""
    _, *lines = [line.replace("│", " ").rstrip() for line in box.splitlines() if line.strip()]
    rules = [i for i, line in enumerate(lines) if re.match(r"\W*[─-]{3}", line)]
    begin = 1 if rules[:1] == [0] else 0  # without a frame there is one below the title
    first, *others = lines[begin : [*rules, len(lines)][begin]]
    if first.strip().startswith("Missing from "):
        missing = [line.split(", ")[-1].strip() for line in others if re.match(r" {6}\S", line)]
        return f"{first.strip(' :').removeprefix('Missing from ')} needs {' and '.join(missing)}"
    text = " ".join(" ".join([first, *others]).split()).removeprefix("Error parsing ").rstrip(".")
    choices = re.search(r"\. Expected one of \((.*)\)", text)
    if choices is None:
        return text.replace(". Expected", ": expected")
    names = sorted(set(re.findall(r"'([^']+)'", choices[1])) - {"None"})
    return f"{text[: choices.start()]}, use one of {', '.join(names)}"


def _completed(arguments: Sequence[str], bare: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Add the value that an option has when it is given alone.

    Args:
        arguments: Arguments of a command.
        bare: All values of such options, the one that the option alone means first.
    """
    completed = []
    for argument, after in pairwise([*arguments, ""]):
        alone = argument in bare and after not in bare[argument]
        completed.append(f"{argument}={bare[argument][0]}" if alone else argument)
    return completed


def _refuse_unknown(kind: type, arguments: Sequence[str], *, prog: str) -> None:
    """Raise a UserError for the first option that a command does not have."""
    named = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    options = _options(kind) if named else []
    renamed = getattr(kind, "renamed", {})  # options of earlier versions
    for name in named:
        if name in renamed:
            raise UserError(f"{prog} has no option {name} any more: it is {renamed[name]}")
        if name.replace("_", "-") not in options:
            hint = suggestion(name, options) or f"see {prog} --help"
            raise UserError(f"{prog} has no option {name}: {hint}")


def summary(kind: type) -> str:
    """Return the first line of a command's docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def _options(kind: type) -> list[str]:
    """Return the names of all options, as the help lists them."""
    with redirect_stdout(io.StringIO()) as text, suppress(SystemExit):
        tyro.cli(kind, args=["--help"], registry=_registry())
    return sorted(set(re.findall(r"--[a-z][\w.-]*", text.getvalue())))


def _registry() -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.struct_rule(_command_fields)
    return registry


def _command_fields(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Describe a command to tyro, which by itself keeps line breaks of docstrings in the help."""
    kind = info.type
    if not dataclasses.is_dataclass(kind) or not kind.__module__.startswith("cinnema.cli."):
        return None  # tyro's own rule applies
    types = get_type_hints(kind, include_extras=True)
    fields = tuple(
        StructFieldSpec(
            name=field.name,
            type=_annotated(types[field.name], field.name),
            default=MISSING_NONPROP if field.default is dataclasses.MISSING else field.default,
            helptext=partial(_docstring, kind, field.name),
        )
        for field in dataclasses.fields(kind)
    )
    return StructConstructorSpec(instantiate=kind, fields=fields)


def _annotated(hint: Any, name: str) -> Any:  # noqa: ANN401 - types as `Annotated` makes them
    """Add the display of a field in the help, unless the annotation defines it."""
    kind, *own = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    shown = tyro.conf.arg(help_behavior_hint=_hint)
    if tyro.conf.Positional in own:
        shown = tyro.conf.arg(help_behavior_hint=_hint, metavar=name.upper())
    return Annotated[(kind, shown, *own)]


def _hint(default: str) -> str:
    """Return the text for a default in the help; empty if there is none."""
    return f"(default: {default})" if default not in ("None", "False", "") else ""


def _docstring(kind: type, name: str) -> str | None:
    return _docstrings(kind).get(name)


@cache
def _docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings below the fields of a dataclass and its bases, as one line each."""
    texts: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        (definition,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return texts
