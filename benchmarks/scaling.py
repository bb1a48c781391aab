"""Speed of stage-1 training with one and with several processes, started by torchrun.

Each process has one thread, or one GPU. "same batch" divides the recipe's batch among the
processes, as `torchrun -m cinnema train` does; "batch each" gives every process a whole batch.
Clips are random numbers, so that only steps are measured. Configurations take turns; the median,
minimum and maximum are shown, and the load of the machine at the start of each round.

    python benchmarks/scaling.py --processes 1 2
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from training_steps import own_step

from cinnema.bench.machine import load
from cinnema.core.devices import choose_device
from cinnema.core.distributed import Ranks, joined_ranks
from cinnema.recipes import robot

_WARM_UP = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="number of steps of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _work(options)
        return 0
    batches = {("same batch", n): options.batch for n in options.processes}
    batches |= {("batch each", n): n * options.batch for n in options.processes if n > 1}
    found: dict[tuple[str, int], list[dict[str, Any]]] = {name: [] for name in batches}
    for _ in range(options.rounds):
        for (name, processes), batch in batches.items():
            found[name, processes].append(_start(options, processes=processes, batch=batch))
    Console(width=100).print(_table(found, batches))
    return 0


def _start(options: argparse.Namespace, *, processes: int, batch: int) -> dict[str, Any]:
    before = load()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), __file__, "--worker", "--batch", str(batch)]
    command += ["--steps", str(options.steps), "--device", options.device]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"load": before}


def _work(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    device = choose_device(options.device)
    recipe = robot()
    config = dataclasses.replace(recipe.motion, batch_size=options.batch)
    with joined_ranks(device) as ranks:
        step, take = own_step(recipe, config, device=device, ranks=ranks)
        seconds = _seconds_of_step(take, ranks, steps=options.steps)
        waiting = _seconds_of_averaging(step.networks, ranks, device=device)
        if ranks.is_first:
            print(json.dumps({"rate": options.batch / seconds, "averaging": waiting / seconds}))


def _seconds_of_step(take: Any, ranks: Ranks, *, steps: int) -> float:  # noqa: ANN401
    for number in range(_WARM_UP):
        take(number)
    ranks.gather(None)
    start = time.perf_counter()
    for number in range(steps):
        take(number)
    ranks.gather(None)
    return (time.perf_counter() - start) / steps


def _seconds_of_averaging(model: nn.Module, ranks: Ranks, *, device: torch.device) -> float:
    """Return the time to average the gradients when all processes are ready."""
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.zeros(p.shape, device=device) for p in trained]
    times = []
    for _ in range(5):
        ranks.gather(None)
        start = time.perf_counter()
        ranks.average(gradients)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _table(
    found: dict[tuple[str, int], list[dict[str, Any]]], batches: dict[tuple[str, int], int]
) -> Table:
    table = Table(title="stage 1, phase motion, at the recipe's size", box=None)
    for column in ("", "processes", "batch", "clips/s", "low", "high", "speed-up", "averaging"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("load", justify="right")
    medians = {key: statistics.median(r["rate"] for r in rounds) for key, rounds in found.items()}
    one = medians.get(("same batch", 1))
    for (name, processes), rounds in found.items():
        rates = [r["rate"] for r in rounds]
        median = medians[name, processes]
        table.add_row(
            name,
            str(processes),
            str(batches[name, processes]),
            f"{median:.1f}",
            f"{min(rates):.1f}",
            f"{max(rates):.1f}",
            "-" if one is None else f"{median / one:.2f}",
            f"{statistics.median(r['averaging'] for r in rounds):.1%}",
            f"{statistics.mean(r['load'] for r in rounds):.1f}",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
