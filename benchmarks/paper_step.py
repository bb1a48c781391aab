"""Time and peak memory of one training step of each published recipe at full size.

Random clips in the published batch sizes, every phase of every training, one process for each:

    python benchmarks/paper_step.py [bair iper landscape dtdb] [--batch-size N] [--most-gb 20]

The step is the first of its process and includes initialisation; with `--steps 2`, the second one
is timed, and the peak is that of both: from then on, Adam's moments take memory as well. A step
that needs more than `--most-gb` is measured again with half the batch, which the table shows.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import get_args

import torch

from cinnema.bench.machine import RSS_UNIT, num_cores
from cinnema.bench.paper_steps import TRAININGS, paper_step
from cinnema.core.allocator import keep_freed_memory
from cinnema.paper.recipes import PaperRecipe, bair, dtdb, iper, landscape
from cinnema.paper.training.precision import Precision

RECIPES: dict[str, Callable[[], PaperRecipe]] = {
    "bair": bair,
    "iper": iper,
    "landscape": landscape,
    "dtdb": lambda: dtdb("fire"),
}
_TOO_LARGE = 3  # exit code of a process that reached its memory limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}; default: all")
    parser.add_argument("--batch-size", type=int, help="default: the published one")
    parser.add_argument("--most-gb", type=float, default=20.0, help="memory limit of a process")
    parser.add_argument("--steps", type=int, default=1, help="the last one is timed")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument(
        "--recompute-activations", action="store_true", help="of stage 1, in the backward pass"
    )
    parser.add_argument("--training", choices=TRAININGS, help="measure this one in this process")
    options = parser.parse_args()
    recipes = options.recipes or list(RECIPES)
    if unknown := set(recipes) - RECIPES.keys():
        parser.error(f"there is no recipe {', '.join(unknown)}: use {', '.join(RECIPES)}")
    if options.training:
        if len(recipes) != 1:
            parser.error("--training measures one recipe: name it")
        return _measure_here(recipes[0], options)
    print(f"first step, {torch.get_num_threads()} threads on {num_cores()} cores", flush=True)
    print("recipe     training      batch  published   step s  peak GB  losses", flush=True)
    for name in recipes:
        for training in TRAININGS:
            _measure(name, training, options)
    return 0


def _measure(name: str, training: str, options: argparse.Namespace) -> None:
    """Measure in a new process, with a smaller batch if there is too little memory."""
    batch_size, most_gb = options.batch_size or published_batch(name, training), options.most_gb
    while True:
        command = [sys.executable, __file__, name, "--training", training]
        command += ["--batch-size", str(batch_size), "--most-gb", str(most_gb)]
        command += ["--steps", str(options.steps), "--precision", options.precision]
        command += ["--recompute-activations"] * options.recompute_activations
        code = subprocess.run(command, check=False).returncode
        if code == _TOO_LARGE and batch_size > 2:
            print(f"{name:10} {training:12} {batch_size:6}  more than {most_gb:g} GB", flush=True)
            batch_size //= 2
            continue
        if code:
            raise SystemExit(f"{' '.join(command)} ended with {code}")
        return


def _measure_here(name: str, options: argparse.Namespace) -> int:
    training, limit = options.training, int(options.most_gb * 1e9)
    published = published_batch(name, training)
    batch_size = options.batch_size or published
    keep_freed_memory()  # as `cinnema train` does
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        take = paper_step(
            RECIPES[name](),
            training,
            batch_size=batch_size,
            precision=options.precision,
            recompute_activations=options.recompute_activations,
        )
        for number in range(options.steps):
            start = time.perf_counter()
            losses = take(number)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return _TOO_LARGE
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 1e9
    shown = " ".join(f"{key}={float(value):.3g}" for key, value in losses.items())
    row = f"{name:10} {training:12} {batch_size:6} {published:10} {seconds:8.1f} {peak:8.2f}"
    print(f"{row}  {shown}", flush=True)
    return 0


def published_batch(name: str, training: str) -> int:
    recipe = RECIPES[name]()
    sizes = (recipe.autoencoding, recipe.conditioning, recipe.flow_training)
    return dict(zip(TRAININGS, sizes, strict=True))[training].batch_size


if __name__ == "__main__":
    sys.exit(main())
