"""Fields of a configuration changed by name: `motion.clips=2000`, or a JSON file of many.

What is not named stays as it was. Where an inner configuration is optional and not there, naming
a field of it makes one, with its defaults. A name that does not exist is refused with the nearest
ones, a value of the wrong type or range by the configuration itself.
"""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cinnema.core.config import config_from_dict, config_to_dict
from cinnema.core.errors import UserError
from cinnema.core.files import check_input_file

_Config = TypeVar("_Config")


def override(config: _Config, settings: Sequence[str] = (), *, file: Path | None = None) -> _Config:
    """Return a configuration with some fields changed.

    Args:
        config: A frozen (pydantic) dataclass, nested as deep as it likes.
        settings: "name.of.the.field=value" each; a value is JSON, or text as it stands. They count
            more than the file, later ones more than earlier ones.
        file: JSON of the same shape as the configuration, or of a part of it.

    Returns:
        A configuration of the same type, validated.

    Raises:
        UserError: A field does not exist, or a value does not fit it; the file is missing or no
            JSON.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Line:
        ...     slope: float = 1.0
        >>> override(Line(), ["slope=2.5"])
        Line(slope=2.5)
    """
    values = config_to_dict(config)
    if file is not None:
        for name, value in _read(file).items():
            _change(values, [name], value, like=config, source=str(file))
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise UserError(f"--set wants name=value, as motion.clips=2000, got {setting!r}")
        _change(values, name.split("."), _value_of(text), like=config, source="--set")
    named = [*([str(file)] if file else []), *(f"--set {setting}" for setting in settings)]
    return config_from_dict(type(config), values, source=", ".join(named) or "the defaults")


def _change(
    values: dict[str, Any],
    parts: Sequence[str],
    value: Any,  # noqa: ANN401 - whatever JSON holds
    *,
    like: object,
    source: str,
    path: str = "",
) -> None:
    """Change one field, or all that an object names of an inner configuration.

    Any other object takes the place of the one that was there.

    Args:
        values: Of a configuration, or of an object inside one; changed in place.
        parts: The name of the field, from the outside inwards.
        value: That it takes.
        like: The configuration; its type where there is none yet; anything else for an object.
        source: Who asks, for the message.
        path: Of the configuration, for the message.
    """
    name, *rest = parts
    if dataclasses.is_dataclass(like):
        known = [field.name for field in dataclasses.fields(like)]
        if name not in known:
            raise _unknown(name, known, path=path, source=source)
    inner = _inner(like, name)
    options: dict[str, Any] = {"like": inner, "source": source, "path": f"{path}{name}."}
    is_config = dataclasses.is_dataclass(inner)
    if is_config and (rest or isinstance(value, Mapping)) and values.get(name) is None:
        values[name] = {}  # its defaults
    if rest and not isinstance(values.get(name), dict):
        raise UserError(f"{source}: {path}{name} has no fields of its own: name it alone")
    if rest:
        _change(values[name], rest, value, **options)
    elif is_config and isinstance(value, Mapping):
        for field, change in value.items():
            _change(values[name], [field], change, **options)
    else:
        values[name] = value


def _inner(like: object, name: str) -> object:
    """Return what a field of a configuration holds; its type if that is one that is not there."""
    held = None if isinstance(like, type) else getattr(like, name, None)
    if held is not None or not dataclasses.is_dataclass(like):
        return held
    kind = like if isinstance(like, type) else type(like)
    hint = get_type_hints(kind)[name]
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next(filter(dataclasses.is_dataclass, kinds), None)


def _unknown(name: str, fields: Sequence[str], *, path: str, source: str) -> UserError:
    near = difflib.get_close_matches(name, fields, n=3, cutoff=0.5)
    known = ", ".join(f"{path}{field}" for field in near or sorted(fields))
    hint = f"did you mean {known}?" if near else f"there are {known}"
    return UserError(f"{source}: there is no field {path}{name}; {hint}")


def _value_of(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(file: Path) -> dict[str, Any]:
    check_input_file(file, kind="a JSON file of fields")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}): mend it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must hold an object of fields, as {{...}}: mend it")
    return content
