"""Typed configurations, converted to JSON values and back.

A configuration is a frozen pydantic dataclass, possibly nested, beside the code that it configures.
"""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cinnema.core.errors import UserError

_Config = TypeVar("_Config")


def config_to_dict(config: object) -> dict[str, Any]:
    """Convert a configuration to JSON values.

    Args:
        config: A (pydantic) dataclass, possibly nested.

    Returns:
        A dictionary of numbers, strings, lists and dictionaries, which `config_from_dict` converts
        back.
    """
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values


def config_from_dict(
    kind: type[_Config], values: dict[str, Any], *, source: str = "the configuration"
) -> _Config:
    """Convert JSON values to a configuration.

    Args:
        kind: The dataclass of the configuration.
        values: What `config_to_dict` returned, or a part of it; missing fields have their defaults.
        source: Where the values are from, for the message.

    Returns:
        An instance of `kind`, validated.

    Raises:
        UserError: A field is unknown, at any depth, or a value is not valid.
    """
    try:
        return TypeAdapter(kind).validate_python(values, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first.get("ctx", {}).get("error")
        if isinstance(reason, UserError):
            raise UserError(f"{source}: {reason}") from error
        field = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise UserError(
            f"{source}: {field} does not fit {kind.__name__} ({first['msg']}), "
            f"got {first['input']!r}: correct it or leave it out"
        ) from error
