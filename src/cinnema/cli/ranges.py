"""Ranges of the numbers that options take, checked before anything is done."""

import dataclasses
from typing import Annotated, TypeAlias, get_args, get_origin, get_type_hints

from cinnema.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """What a number may be, in the annotation of a command's field.

    Attributes:
        least: Least value.
        most: Greatest value.
    """

    least: float
    most: float


Seed: TypeAlias = Annotated[int, Range(0, 2**63 - 1)]
Threads: TypeAlias = Annotated[int | None, Range(1, 1024)]
Temperature: TypeAlias = Annotated[float, Range(0, 100)]
NumSamples: TypeAlias = Annotated[int, Range(1, 1000)]
BatchSize: TypeAlias = Annotated[int, Range(1, 4096)]


def check_ranges(command: object) -> None:
    """Raise a UserError for the first number of a command that is out of its range, or not finite.

    Args:
        command: A dataclass, whose numbers have a `Range` in their annotations.
    """
    for name, limits in ranges_of(type(command)).items():
        value = getattr(command, name)
        option = f"--{name.replace('_', '-')}"
        if value is not None and not value >= limits.least:  # true of NaN, too
            raise UserError(f"{option} must be at least {limits.least:g}, got {value}")
        if value is not None and value > limits.most:
            raise UserError(f"{option} must be at most {limits.most:.12g}, got {value}")


def ranges_of(kind: type) -> dict[str, Range]:
    """Return the ranges of a command's numbers, by the names of their fields."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in dataclasses.fields(kind):
        for part in _metadata(hints[field.name]):
            if isinstance(part, Range):
                found[field.name] = part
    return found


def _metadata(hint: object) -> tuple[object, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()
