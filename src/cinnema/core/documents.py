"""JSON and YAML that others wrote: what parses is small, and its numbers are ordinary ones."""

import json
import math
from collections.abc import Mapping
from typing import Any

_MAX_DIGITS = 300
_MAX_VALUES = 100_000
_MAX_YAML = 200_000  # characters, which take two seconds


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a JSON document.

    Args:
        text: The document.

    Raises:
        ValueError: It is not JSON, is nested too deeply, or has a number that is not finite, also
            an integer for which a float has no room.
    """
    try:
        return json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_float)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """Return the value of a YAML document, or of a JSON one; no tags are followed.

    Args:
        text: The document.

    Raises:
        ValueError: It is not YAML, is longer than 200,000 characters, is nested too deeply, merges
            mappings (<<), or has more than 100,000 values, as few lines can have whose aliases name
            one another.
    """
    if len(text) > _MAX_YAML:
        raise ValueError(f"it has {len(text):,} characters, more than {_MAX_YAML:,}")
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # it has no types
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Merge nothing, as each level of merging can multiply the size; << is then refused."""

    try:
        value = yaml.load(text, Loader=Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # of many types: values that do not fit their tags
        raise ValueError(" ".join(str(error).split())) from error
    _require_few(value)
    return value


def _int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"{digits[:20]}... has {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is not a finite number")
    return number


def _require_few(value: object) -> None:
    """Count the values as often as they are named; also an object inside itself ends it."""
    waiting, left = [value], _MAX_VALUES
    while waiting:
        item = waiting.pop()
        inner = [*item.keys(), *item.values()] if isinstance(item, Mapping) else item
        if isinstance(inner, list):
            left -= len(inner)
            waiting += inner
        if left < 0:
            raise ValueError(f"it has more than {_MAX_VALUES:,} values")
