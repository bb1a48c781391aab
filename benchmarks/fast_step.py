"""Speed of training steps in bfloat16, compared with float32.

Stage 1 of the recipe robot, on random clips (`cinnema bench published` has those of the
paper):

    python benchmarks/fast_step.py [--batch-size N] [--rounds 2]

The precisions take turns in one process, so other programs on the machine affect all of them.
Speeds are clips per second of wall-clock time, and clips per second of processor time. The latter
depends little on other programs but is reliable with OMP_NUM_THREADS=1 only, because waiting
threads use processor time. The first step is shown separately.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from training_steps import own_step

from cinnema.bench.machine import describe
from cinnema.bench.paper_steps import Take
from cinnema.paper.training.precision import Precision
from cinnema.recipes import robot
from cinnema.training import keypoint
from cinnema.training.recipe import KeypointRecipe

PRECISIONS: tuple[Precision, ...] = ("float32", "fast")
DEFAULT_BATCH = {"robot": 16}


@dataclass
class Times:
    """Durations of the steps of one precision, in seconds."""

    take: Take
    first: float = 0.0
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def step(self, number: int) -> None:
        """Take a step; step 0 is recorded separately."""
        wall, processor = time.perf_counter(), time.process_time()
        self.take(number)
        seconds = time.perf_counter() - wall
        if number == 0:
            self.first = seconds
            return
        self.wall.append(seconds)
        self.processor.append(time.process_time() - processor)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainings", nargs="*", help=f"of {', '.join(MAKERS)}; default: all")
    parser.add_argument("--batch-size", type=int, help="default: each training's own")
    parser.add_argument("--rounds", type=int, default=2, help="number of measured steps")
    options = parser.parse_args()
    names = options.trainings or list(MAKERS)
    if unknown := set(names) - MAKERS.keys():
        parser.error(f"there is no training {', '.join(unknown)}: use {', '.join(MAKERS)}")
    print(describe(), flush=True)
    header = "training  precision  batch  first step s"
    print(f"{header}      clips/s  times  clips/CPU s  times", flush=True)
    for name in names:
        batch_size = options.batch_size or DEFAULT_BATCH[name]
        measure(name, batch_size=batch_size, rounds=options.rounds)
        gc.collect()
    return 0


def measure(name: str, *, batch_size: int, rounds: int) -> None:
    """Let precisions take turns, and print a line for each."""
    found: dict[str, Times] = {}
    for precision in PRECISIONS:
        found[precision] = Times(MAKERS[name](precision, batch_size))
        found[precision].step(0)
    for number in range(1, rounds + 1):
        for times in found.values():
            times.step(number)
    base = found.get("float32")
    for precision, times in found.items():
        row = f"{name:9} {precision:10} {batch_size:5}  {times.first:12.1f}"
        for kind in ("wall", "processor"):
            seconds = statistics.median(getattr(times, kind))
            factor = statistics.median(getattr(base, kind)) / seconds if base else float("nan")
            row += f"  {batch_size / seconds:11.3f}  {factor:5.2f}"
        print(row, flush=True)


def own_picture_step(new_recipe: Callable[[], KeypointRecipe]) -> Callable[[Precision, int], Take]:
    def make(precision: Precision, batch_size: int) -> Take:
        recipe = new_recipe()
        training = replace(recipe.picture, batch_size=batch_size)
        with computing_in(precision):
            return own_step(recipe, training, device=torch.device("cpu"))[1]

    return make


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Let steps that are created in the block compute in a precision."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    preferred = keypoint.fast_dtype
    keypoint.fast_dtype = lambda _: dtype  # type: ignore[attr-defined]
    try:
        yield
    finally:
        keypoint.fast_dtype = preferred  # type: ignore[attr-defined]


MAKERS: dict[str, Callable[[Precision, int], Take]] = {
    "robot": own_picture_step(robot),
}


if __name__ == "__main__":
    sys.exit(main())
