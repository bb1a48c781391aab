"""Typed configurations to JSON and back.

A configuration is a frozen pydantic dataclass, nested as deep as it likes; it stands beside the
code that it configures.
"""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cinnema.core.errors import UserError

_Config = TypeVar("_Config")


def config_to_dict(config: object) -> dict[str, Any]:
    """Return a configuration as what JSON can hold.

    Args:
        config: a (pydantic) dataclass, possibly with others inside.

    Returns:
        A dictionary of numbers, strings, lists and dictionaries. `config_from_dict` turns it back.
    """
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values


def config_from_dict(
    kind: type[_Config], values: dict[str, Any], *, source: str = "the configuration"
) -> _Config:
    """Return the configuration that a dictionary describes.

    Args:
        kind: the dataclass to make.
        values: what `config_to_dict` returned, or a part of it: fields left out take their
            defaults.
        source: where the values are from, for the message.

    Returns:
        A `kind`, validated.

    Raises:
        UserError: a field is unknown, at any depth, or a value does not fit.
    """
    try:
        return TypeAdapter(kind).validate_python(values, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first.get("ctx", {}).get("error")
        if isinstance(reason, UserError):  # it says itself what is wrong
            raise UserError(f"{source}: {reason}") from error
        field = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise UserError(
            f"{source}: {field} does not fit {kind.__name__} ({first['msg']}), "
            f"got {first['input']!r}: mend it or leave it out"
        ) from error
