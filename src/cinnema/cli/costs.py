"""`--dry-run`: prints the recipe to standard output, and estimated costs to standard error."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from cinnema.core.config import config_to_dict

if TYPE_CHECKING:
    from cinnema.training.cost import CostEstimate


def print_costs(recipe: object, costs: "Sequence[CostEstimate]") -> None:
    """Print a recipe as JSON that `--config` accepts, and a table of estimated costs.

    Args:
        recipe: A full configuration.
        costs: The estimates of its trainings.
    """
    print(json.dumps(config_to_dict(recipe), indent=2), flush=True)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("Nothing has been trained. Measured on this device, with a few steps:")
    table = Table(box=None, pad_edge=False)
    table.add_column("training")
    for column in ("clips", "batch", "trained", "memory", "clips/s", "hours"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in costs:
        memory = (each.state_bytes + each.activation_bytes) / 2**20
        table.add_row(
            each.name,
            f"{each.clips:,}",
            str(each.batch_size),
            _millions(each.trained),
            f"{memory:,.0f} MiB",
            f"{each.clips_per_second:.1f}",
            f"{each.hours:.2f}",
        )
    console.print(table)
    of_parts: dict[str, list[str]] = {}  # phases of stage 1 share their parts
    for each in costs:
        parts = ", ".join(f"{name} {_millions(num)}" for name, num in each.parameters.items())
        of_parts.setdefault(parts, []).append(each.name)
    for parts, names in of_parts.items():
        console.print(f"parameters of {', '.join(names)}: {parts}")
    console.print(
        "memory: weights, gradients, optimiser state, averages, and what the backward pass needs"
    )


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"
