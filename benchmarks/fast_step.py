"""How much faster than plain float32 a training step is in bf16, and compiled.

Stage 1 (encoder and decoder against both discriminators) and stage 2 (the cINN and its encoders) of
the published Landscape configuration, and the two stages 1 of our own, on random clips:

    python benchmarks/fast_step.py [stage1 stage2 sky robot] [--precisions float32 fast compiled]
        [--batch-size N] [--rounds 2]

All precisions take turns in one process, so that other work on the machine meets all of them. Two
paces are told: clips a second, and clips a second of the processor's own time, in which other work
does not count. The second is only to be trusted with OMP_NUM_THREADS=1: several threads that wait
for each other on a busy machine burn time. The first step, which compiles, is told apart.
"""

import argparse
import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from random_clips import random_crops, random_landmarks, random_video, video_batch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.loader import VideoBatch
from cinnema.models.warping.stage1 import Stage1
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.recipes import PaperRecipe, landscape
from cinnema.paper.training.autoencoding import AutoencodingNetworks, AutoencodingStep
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.training.precision import Precision
from cinnema.paper.video_encoder import VideoEncoder
from cinnema.recipes import landscape as sky_recipe
from cinnema.recipes import robot
from cinnema.training import video_step
from cinnema.training.keypoint import KeypointStep
from cinnema.training.loop import Position, Step
from cinnema.training.warping import WarpingStep

CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "fast", "compiled")
DEFAULT_BATCH = {"stage1": 2, "stage2": 8, "sky": 16, "robot": 16}
Take = Callable[[int], object]


@dataclass
class Pace:
    """What the steps of one precision took, in seconds."""

    take: Take
    first: float = 0.0
    wall: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def step(self, number: int) -> None:
        """Take a step; the first, number 0, is told apart."""
        wall, own = time.perf_counter(), time.process_time()
        self.take(number)
        seconds = time.perf_counter() - wall
        if number == 0:
            self.first = seconds
            return
        self.wall.append(seconds)
        self.own.append(time.process_time() - own)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure fast training steps against float32.")
    parser.add_argument("trainings", nargs="*", help=f"of {', '.join(MAKERS)}; all if none")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch-size", type=int, help="each training's own if not given")
    parser.add_argument("--rounds", type=int, default=2, help="measured steps of each")
    options = parser.parse_args()
    names = options.trainings or list(MAKERS)
    if unknown := set(names) - MAKERS.keys():
        parser.error(f"there is no training {', '.join(unknown)}: use {', '.join(MAKERS)}")
    print(machine(), flush=True)
    header = "training  precision  batch  first step s"
    print(f"{header}      clips/s  times  clips/own s  times", flush=True)
    for name in names:
        batch_size = options.batch_size or DEFAULT_BATCH[name]
        measure(name, options.precisions, batch_size=batch_size, rounds=options.rounds)
        gc.collect()
    return 0


def machine() -> str:
    """Say what the processor has, and how much of it is used."""
    has = {
        "AVX-512": torch.cpu._is_avx512_supported(),
        "bf16 in AVX-512": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    told = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    about = f"{processor()}: {told}; {threads} threads on {cores} cores{load}"
    return f"{about}; torch {torch.__version__}"


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure(name: str, precisions: list[Precision], *, batch_size: int, rounds: int) -> None:
    """Let precisions take turns, and print a line for each."""
    of_paper = name in ("stage1", "stage2")
    paces: dict[str, Pace] = {}
    for precision in precisions:
        if not of_paper and precision == "compiled":
            continue  # these have no such option
        paces[precision] = Pace(MAKERS[name](precision, batch_size))
        paces[precision].step(0)
    for number in range(1, rounds + 1):
        for pace in paces.values():
            pace.step(number)
    base = paces.get("float32")
    for precision, pace in paces.items():
        row = f"{name:9} {precision:10} {batch_size:5}  {pace.first:12.1f}"
        for kind in ("wall", "own"):
            seconds = statistics.median(getattr(pace, kind))
            times = statistics.median(getattr(base, kind)) / seconds if base else float("nan")
            row += f"  {batch_size / seconds:11.3f}  {times:5.2f}"
        print(row, flush=True)


def paper_stage1(precision: Precision, batch_size: int) -> Take:
    recipe = landscape()
    config = recipe.autoencoding
    step = AutoencodingStep(
        AutoencodingNetworks(recipe.stage1),
        config,
        perceptual=LPIPS.load(config.network),
        precision=precision,
    )
    return taken(step, recipe, batch_size, epoch=config.adversarial_from)


def paper_stage2(precision: Precision, batch_size: int) -> Take:
    recipe = landscape()
    step = FlowStep(
        new_flow(recipe.flow),
        recipe.flow_training,
        video_encoder=VideoEncoder(recipe.stage1.encoder),
        image_encoder=ImageEncoder(recipe.conditioner.encoder),
        precision=precision,
    )
    return taken(step, recipe, batch_size, epoch=0)


def taken(step: Step[VideoBatch], recipe: PaperRecipe, batch_size: int, *, epoch: int) -> Take:
    batch = video_batch(random_video(batch_size, recipe.num_frames + 1, recipe.size))
    return lambda number: step.take(batch, Position(number, epoch=epoch))


def own_sky(precision: Precision, batch_size: int) -> Take:
    """Our stage 1 of skies, phase "picture"."""
    recipe = sky_recipe()
    training = replace(recipe.picture, batch_size=batch_size)
    batch = random_crops(recipe, batch_size, num_rendered=training.frames)
    lpips = LPIPS.load(training.network)
    with computing_in(precision):
        step = WarpingStep(Stage1(recipe.stage1), training, device=CPU, perceptual=lpips)
    return lambda number: step.take(batch, Position(number))


def own_robot(precision: Precision, batch_size: int) -> Take:
    """Our stage 1 of the robot, phase "picture"."""
    recipe = robot()
    training = replace(recipe.picture, batch_size=batch_size)
    batch = random_landmarks(recipe, batch_size)
    lpips = LPIPS.load(training.network)
    with computing_in(precision):
        step = KeypointStep(recipe.new_stage1(), training, device=CPU, perceptual=lpips)
    return lambda number: step.take(batch, Position(number))


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Let steps that are made in the block compute in a precision, whatever the device prefers."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    preferred = video_step.fast_dtype
    video_step.fast_dtype = lambda _: dtype  # type: ignore[attr-defined]
    try:
        yield
    finally:
        video_step.fast_dtype = preferred  # type: ignore[attr-defined]


MAKERS: dict[str, Callable[[Precision, int], Take]] = {
    "stage1": paper_stage1,
    "stage2": paper_stage2,
    "sky": own_sky,
    "robot": own_robot,
}


if __name__ == "__main__":
    sys.exit(main())
