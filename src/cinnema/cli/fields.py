"""Fields of a configuration as options: `--motion.clips 1000`, or a file of them.

Options with a dot in their name are fields of the recipe that a command trains by. They are parsed
apart from the command's own options, by tyro over the recipe's type, once the recipe is known.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro

from cinnema.core.errors import UserError, suggestion

_Config = TypeVar("_Config")

# Text that tyro and pydantic print around the description of an error.
_NOISE = re.compile(
    r"1 validation error for \w+ |Value error, |\[type=[^]]*\]|For further information visit \S+"
    r"|For full helptext.*"
)


def split_fields(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Take the options with a dot in their name, and their values, out of a command line.

    `--set name=value` is accepted as another form of `--name value`.

    Args:
        arguments: The command line.

    Returns:
        The other arguments, and the options taken out.

    Example:
        >>> split_fields(["train", "stage1", "--motion.clips", "5", "--data", "sky"])
        (['train', 'stage1', '--data', 'sky'], ('--motion.clips', '5'))
    """
    own: list[str] = []
    fields: list[str] = []
    words = iter(arguments)
    taking = False
    for word in words:
        if word == "--set":
            fields += _as_option(next(words, ""))
            taking = False
            continue
        if word.startswith("-") and not re.match(r"-\.?\d", word):
            taking = word.startswith("--") and "." in word.partition("=")[0]
        (fields if taking else own).append(word)
    return own, tuple(fields)


def with_fields(
    config: _Config, fields: Sequence[str] = (), *, values: Mapping[str, Any] | None = None
) -> _Config:
    """Return a configuration with some fields changed.

    Args:
        config: A frozen pydantic dataclass, possibly with others inside.
        fields: Options, as `split_fields` returns them.
        values: Nested values of fields, as JSON has them; `fields` override them. Of a field that
            is itself a configuration, only the fields that are given change.

    Returns:
        A configuration of the same type, validated.

    Raises:
        UserError: A field does not exist, or a value is not valid.
    """
    from cinnema.core.config import config_from_dict

    if values is not None:
        config = config_from_dict(type(config), _merged(config, values), source="--config")
    if not fields:
        return config
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            changed, unknown = tyro.cli(
                type(config),
                default=config,
                args=list(fields),
                return_unknown_args=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as error:
        raise UserError(_sentence(errors.getvalue())) from error
    if unknown:
        raise _no_field(unknown[0].partition("=")[0], _options(config))
    return changed


def check_field_names(fields: Sequence[str], recipe: str) -> None:
    """Check, without importing torch, that a recipe can have the fields.

    Args:
        fields: Options, as `split_fields` returns them.
        recipe: Module and name of the recipe's class, as "cinnema.training.recipe:KeypointRecipe".

    Raises:
        UserError: A field does not exist; the message names the most similar one.
    """
    from cinnema.cli.field_names import field_options

    options = field_options(recipe)
    for name in [word.partition("=")[0] for word in fields if word.startswith("--")]:
        if name.replace("_", "-") not in options:
            raise _no_field(name, options)


def check_file_of_fields(file: Path, recipe: str) -> None:
    """Check, as `check_field_names`, the fields of a JSON or YAML file.

    Args:
        file: The file.
        recipe: Module and name of the recipe's class.

    Raises:
        UserError: It cannot be read, or a field does not exist.
    """
    from cinnema.cli.field_names import field_options

    options = field_options(recipe)
    for name in _names_in(read_fields(file), "--", options):
        if name not in options:
            raise UserError(f"{file}: {_no_field(name, options)}")


def _names_in(values: Mapping[Any, Any], prefix: str, options: Sequence[str]) -> Iterator[str]:
    """Yield the names of all fields, at any depth, in the form of options."""
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', '-')}"
        is_config = any(option.startswith(f"{name}.") for option in options)
        if is_config and isinstance(value, Mapping):
            yield from _names_in(value, f"{name}.", options)
        elif not is_config:
            yield name


def _no_field(name: str, options: Iterable[str]) -> UserError:
    options = list(options)
    groups = dict.fromkeys(f"{option.partition('.')[0]}." for option in options if "." in option)
    near = [option for option in options if option.startswith(f"{name.partition('.')[0]}.")]
    hint = suggestion(name, options) or f"use one of {', '.join(near or groups)}"
    return UserError(f"there is no field {name}: {hint}")


def read_fields(file: Path) -> dict[str, Any]:
    """Return the values of a JSON or YAML file.

    Raises:
        UserError: The file does not exist, cannot be parsed, or does not hold an object.
    """
    from cinnema.core.documents import parse_yaml
    from cinnema.core.files import check_input_file

    check_input_file(file, kind="a file of fields")
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is neither JSON nor YAML ({error}): correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold an object of fields, as {{...}}: correct it")
    return {str(name): value for name, value in content.items()}


def _options(config: object, prefix: str = "--") -> Iterator[str]:
    """Yield the fields of a configuration as options, with those of the configurations in it."""
    for field in dataclass_fields(config):  # type: ignore[arg-type]
        name, inner = f"{prefix}{field.name.replace('_', '-')}", getattr(config, field.name)
        if is_dataclass(inner):
            yield from _options(inner, f"{name}.")
        else:
            yield name


def _merged(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - dataclasses
    from cinnema.core.config import config_to_dict

    merged = config_to_dict(config)
    for name, value in values.items():
        inner = getattr(config, name, None)
        is_config = is_dataclass(inner) and isinstance(value, Mapping)
        merged[name] = _merged(inner, value) if is_config else value
    return merged


def _sentence(box: str) -> str:
    """Return the text of tyro's message, without its frame and title."""
    lines = [re.sub(r"[╭╮╰╯│─]|^[+|]|[+|]$|-{3,}", " ", line) for line in box.splitlines()[1:]]
    return " ".join(_NOISE.sub(" ", " ".join(" ".join(lines).split())).split())


def _as_option(setting: str) -> list[str]:
    """Return `name=value` as an option; a JSON list becomes several values."""
    name, equals, text = setting.partition("=")
    if not equals or not name:
        raise UserError(f"--set needs name=value, as motion.clips=2000, got {setting!r}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    values = value if isinstance(value, list) else [text if isinstance(value, str) else value]
    return [f"--{name}", *map(str, values)]
