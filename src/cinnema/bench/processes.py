"""Commands of cinnema in processes of their own: time, processor time and peak memory."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cinnema.bench.machine import RSS_UNIT
from cinnema.bench.rows import Row
from cinnema.core.errors import UserError


class Cost(NamedTuple):
    """What a process took.

    Attributes:
        wall: Seconds from its start to its end.
        processor: Seconds of processor time of all threads.
        peak: Peak memory in GB.
    """

    wall: float
    processor: float
    peak: float


def run_command(arguments: Sequence[str], *, expected: int = 0) -> Cost:
    """Run `cinnema` in a new process.

    Args:
        arguments: Its arguments.
        expected: The exit code that it must have.

    Raises:
        UserError: The exit code is another.
    """
    command = [sys.executable, "-m", "cinnema", *arguments]
    launched = subprocess.run(
        [sys.executable, "-m", "cinnema.bench.launcher", *command],
        capture_output=True,
        check=True,
    )
    code, wall, processor, peak = json.loads(launched.stdout)
    if code != expected:
        raise UserError(f"{' '.join(command)} ended with {code}: run it to see why")
    return Cost(wall, processor, peak * RSS_UNIT / 1e9)


def measured(
    commands: Mapping[str, Sequence[str]], *, runs: int, expected: Mapping[str, int] | None = None
) -> Iterator[tuple[Row, Row]]:
    """Run commands in turns, and yield a row of seconds and one of peak memory for each.

    Args:
        commands: Arguments of each, by name.
        runs: How often each runs.
        expected: Exit codes that are not 0, by name.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, arguments in commands.items():
            code = (expected or {}).get(name, 0)
            costs[name].append(run_command(arguments, expected=code))
    for name, each in costs.items():
        wall, processor, peak = zip(*each, strict=True)
        yield (
            Row(name=name, unit="s", values=wall, processor=processor),
            Row(name=f"{name}, peak memory", unit="GB", values=peak),
        )
