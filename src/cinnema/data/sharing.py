"""Which part of a work is this process's, among many processes or machines."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cinnema.core.errors import UserError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Share:
    """Which part of a work is this process's: every `count`-th piece, from number `index` on.

    Attributes:
        index: From 0 to count - 1.
        count: How many processes share the work, at least 1.

    Raises:
        UserError: The numbers are out of their range.

    Example:
        >>> Share.parse("1/3").of(["a", "b", "c", "d", "e"])
        ['b', 'e']
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.count < 1 or not 0 <= self.index < self.count:
            last = max(self.count, 1) - 1
            raise UserError(
                f"there is no share {self.index}/{self.count}: of {last + 1} the first is "
                f"0/{last + 1}, the last {last}/{last + 1}"
            )

    def of(self, pieces: Sequence[_T]) -> list[_T]:
        """Return this share of a list."""
        return list(pieces[self.index :: self.count])

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Return the share that a text such as "2/8" names.

        Raises:
            UserError: It is not two whole numbers with a stroke, or they are out of range.
        """
        index, stroke, count = text.partition("/")
        if not (stroke and index.strip().isdecimal() and count.strip().isdecimal()):
            raise UserError(f"a share is written i/n, as 0/8 or 7/8, got {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Share":
        """Return the share that torchrun or a scheduler gives this process, else all.

        The first of these that is set counts: torchrun's RANK and WORLD_SIZE; the task of a
        Slurm array (--array=0-7); the task of a Slurm step (srun -n 8).

        Args:
            environment: The process's variables.

        Raises:
            UserError: Those variables are no numbers, or the array's numbers have gaps.
        """
        if {"RANK", "WORLD_SIZE"} <= environment.keys():
            return cls(_number(environment, "RANK"), _number(environment, "WORLD_SIZE"))
        if "SLURM_ARRAY_TASK_ID" in environment:
            return cls._of_array(environment)
        if {"SLURM_PROCID", "SLURM_NTASKS"} <= environment.keys():
            return cls(_number(environment, "SLURM_PROCID"), _number(environment, "SLURM_NTASKS"))
        return cls()

    @classmethod
    def _of_array(cls, environment: Mapping[str, str]) -> "Share":
        first, step = 0, 1
        if "SLURM_ARRAY_TASK_MIN" in environment:
            first = _number(environment, "SLURM_ARRAY_TASK_MIN")
        if "SLURM_ARRAY_TASK_STEP" in environment:
            step = max(1, _number(environment, "SLURM_ARRAY_TASK_STEP"))
        count = _number(environment, "SLURM_ARRAY_TASK_COUNT")
        task = _number(environment, "SLURM_ARRAY_TASK_ID")
        index, rest = divmod(task - first, step)
        if rest or not 0 <= index < count:
            raise UserError(
                f"task {task} is none of {count} Slurm array tasks in a row from {first}: "
                "number them without gaps (--array=0-7), or name the share yourself (--shard 2/8)"
            )
        return cls(index, count)


EVERYTHING = Share()
"""The share of a process that works alone."""


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.strip().isdecimal():
        raise UserError(
            f"{name} must be a whole number, got {text!r}: set it right, or name the share "
            "yourself (--shard 2/8)"
        )
    return int(text)
