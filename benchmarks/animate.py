"""Time and peak memory of `cinnema animate` from a cold start.

One photograph of 1280x720 pixels, 4 samples of 16 frames; a new process for each run, including
imports and writing:

    python benchmarks/animate.py [--runs 3] [--weights landscape]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cinnema.bench.machine import RSS_UNIT, num_cores
from cinnema.cli.demo import example_folder

_WIDTH, _HEIGHT = 1280, 720


class Cost(NamedTuple):
    """Wall-clock seconds, seconds of processor time, and peak memory in bytes."""

    wall: float
    processor: float
    peak: int


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a cold `cinnema animate`.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--weights", default="landscape")
    options = parser.parse_args()
    print(f"cinnema animate, {_WIDTH}x{_HEIGHT}, 4 samples of 16 frames, {num_cores()} cores")
    print("  run   wall s    cpu s  peak GB")
    with tempfile.TemporaryDirectory() as folder:
        photo = _photograph(Path(folder))
        costs = [
            _measure(photo, Path(folder) / f"run{run}", weights=options.weights)
            for run in range(options.runs)
        ]
    for name, cost in [*((str(run), cost) for run, cost in enumerate(costs)), ("max", _max(costs))]:
        print(f"{name:>5} {cost.wall:8.2f} {cost.processor:8.2f} {cost.peak / 1e9:8.2f}")
    return 0


def _photograph(folder: Path) -> Path:
    """Crop the first example to 1280x720."""
    path = folder / "photograph.jpg"
    with Image.open(sorted(example_folder().glob("*.jpg"))[0]) as example:
        height = round(example.height * _WIDTH / example.width)
        scaled = example.resize((_WIDTH, height), Image.Resampling.LANCZOS)
        scaled.crop((0, 0, _WIDTH, _HEIGHT)).save(path, quality=92)
    return path


def _measure(photo: Path, output: Path, *, weights: str) -> Cost:
    command = [sys.executable, "-m", "cinnema", "animate", str(photo)]
    command += ["-n", "4", "--frames", "16", "--weights", weights, "-o", str(output)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # wait4 returns the usage of this child; RUSAGE_CHILDREN is the maximum over all children.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * RSS_UNIT)


def _max(costs: list[Cost]) -> Cost:
    return Cost(*(max(values) for values in zip(*costs, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
