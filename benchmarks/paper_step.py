"""What one training step of each published recipe costs at full size: seconds and peak memory.

Random clips in the published batch sizes, every phase of every training, a process for each:

    python benchmarks/paper_step.py [bair iper landscape dtdb] [--batch-size N] [--most-gb 20]

The step is the first of a process: it includes what is done only once. Where a step would take
more than `--most-gb`, it is measured again with half the batch, and the table says so.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from random_clips import random_video, video_batch

from cinnema.backbones.lpips import LPIPS
from cinnema.data.loader import VideoBatch
from cinnema.paper.image_encoder import ImageEncoder
from cinnema.paper.recipes import PaperRecipe, bair, dtdb, iper, landscape
from cinnema.paper.training.autoencoding import AutoencodingNetworks, AutoencodingStep
from cinnema.paper.training.conditioning import ConditioningNetworks, ConditioningStep
from cinnema.paper.training.flow import FlowStep, new_flow
from cinnema.paper.video_encoder import VideoEncoder
from cinnema.training.loop import Position, Step

RECIPES: dict[str, Callable[[], PaperRecipe]] = {
    "bair": bair,
    "iper": iper,
    "landscape": landscape,
    "dtdb": lambda: dtdb("fire"),
}
TRAININGS = ("autoencoding", "conditioning", "flow")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
_TOO_LARGE = 3  # exit code of a process that wanted more memory than it may have


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a step of each of the paper's trainings.")
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}; all if none")
    parser.add_argument("--batch-size", type=int, help="the published one if not given")
    parser.add_argument("--most-gb", type=float, default=20.0, help="memory of a process")
    parser.add_argument("--training", choices=TRAININGS, help="measure this one here")
    options = parser.parse_args()
    recipes = options.recipes or list(RECIPES)
    if unknown := set(recipes) - RECIPES.keys():
        parser.error(f"there is no recipe {', '.join(unknown)}: use {', '.join(RECIPES)}")
    if options.training:
        if len(recipes) != 1:
            parser.error("--training measures one recipe: name it")
        name, most = recipes[0], options.most_gb
        return _measure_here(name, options.training, options.batch_size, most_gb=most)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"first step, {torch.get_num_threads()} threads on {cores} cores", flush=True)
    print("recipe     training      batch  published   step s  peak GB  losses", flush=True)
    for name in recipes:
        for training in TRAININGS:
            _measure(name, training, options.batch_size, most_gb=options.most_gb)
    return 0


def _measure(name: str, training: str, batch_size: int | None, *, most_gb: float) -> None:
    """Measure in a process of its own, with a smaller batch if there is too little memory."""
    batch_size = batch_size or published_batch(name, training)
    while True:
        command = [sys.executable, __file__, name, "--training", training]
        command += ["--batch-size", str(batch_size), "--most-gb", str(most_gb)]
        code = subprocess.run(command, check=False).returncode
        if code == _TOO_LARGE and batch_size > 2:
            print(f"{name:10} {training:12} {batch_size:6}  more than {most_gb:g} GB", flush=True)
            batch_size //= 2
            continue
        if code:
            raise SystemExit(f"{' '.join(command)} ended with {code}")
        return


def _measure_here(name: str, training: str, batch_size: int | None, *, most_gb: float) -> int:
    recipe, limit = RECIPES[name](), int(most_gb * 1e9)
    batch_size = batch_size or published_batch(name, training)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        step, num_frames = new_step(recipe, training)
        video = random_video(batch_size, num_frames, recipe.size)
        start = time.perf_counter()
        position = Position(0, epoch=recipe.conditioning.adversarial_from)
        losses = step.take(video_batch(video), position)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return _TOO_LARGE
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT / 1e9
    shown = " ".join(f"{key}={value:.3g}" for key, value in losses.items())
    published = published_batch(name, training)
    row = f"{name:10} {training:12} {batch_size:6} {published:10} {seconds:8.1f} {peak:8.2f}"
    print(f"{row}  {shown}", flush=True)
    return 0


def published_batch(name: str, training: str) -> int:
    recipe = RECIPES[name]()
    sizes = (recipe.autoencoding, recipe.conditioning, recipe.flow_training)
    return dict(zip(TRAININGS, sizes, strict=True))[training].batch_size


def new_step(recipe: PaperRecipe, training: str) -> tuple[Step[VideoBatch], int]:
    """Return a step of full size, and how many frames it wants."""
    if training == "autoencoding":
        networks = AutoencodingNetworks(recipe.stage1)
        lpips = LPIPS.load(recipe.autoencoding.network)
        step = AutoencodingStep(networks, recipe.autoencoding, perceptual=lpips)
        return step, recipe.num_frames + 1
    if training == "conditioning":
        image_networks = ConditioningNetworks(recipe.conditioner)
        lpips = LPIPS.load(recipe.conditioning.network)
        return ConditioningStep(image_networks, recipe.conditioning, perceptual=lpips), 2
    flow_step = FlowStep(
        new_flow(recipe.flow),
        recipe.flow_training,
        video_encoder=VideoEncoder(recipe.stage1.encoder),
        image_encoder=ImageEncoder(recipe.conditioner.encoder),
    )
    return flow_step, recipe.num_frames + 1


if __name__ == "__main__":
    sys.exit(main())
