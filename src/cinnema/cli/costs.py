"""`--dry-run`: the resolved recipe on standard output, what it will cost on standard error."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from cinnema.core.config import config_to_dict

if TYPE_CHECKING:
    from cinnema.recipes.cost import CostEstimate


def print_rehearsal(recipe: object, rehearsals: "Sequence[CostEstimate]") -> None:
    """Print a recipe as JSON that `--config` takes, and a table of its trainings.

    Args:
        recipe: A full configuration.
        rehearsals: Of its trainings.
    """
    print(json.dumps(config_to_dict(recipe), indent=2), flush=True)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("Nothing has been trained. Measured here, on made-up clips:")
    table = Table(box=None, pad_edge=False)
    table.add_column("training")
    for column in ("clips", "batch", "trained", "memory", "clips/s", "drawn/s", "hours"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in rehearsals:
        memory = (each.state_bytes + each.activation_bytes) / 2**20
        table.add_row(
            each.name,
            f"{each.clips:,}",
            str(each.batch_size),
            _millions(each.trained),
            f"{memory:,.0f} MiB",
            f"{each.clips_per_second:.1f}",
            "-" if each.drawn_per_second is None else f"{each.drawn_per_second:.0f}",
            f"{each.hours:.2f}",
        )
    console.print(table)
    of_parts: dict[str, list[str]] = {}  # the phases of stage 1 have the same ones
    for each in rehearsals:
        parts = ", ".join(f"{name} {_millions(num)}" for name, num in each.parameters.items())
        of_parts.setdefault(parts, []).append(each.name)
    for parts, names in of_parts.items():
        console.print(f"parameters of {', '.join(names)}: {parts}")
    console.print(
        "memory: weights, gradients, moments, averages, and what a step keeps to go back; "
        "drawn/s: clips that one worker prepares"
    )


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"
