"""Accuracy of the wind estimated from frames, on synthetic skies (where it is known) and real ones.

    python benchmarks/wind.py [--skies 200] [--size 128] [--seed 90210] [--data FOLDER]

The synthetic skies are test starts of a seed on which nothing was tuned. FOLDER contains real clips
and their manifest.json; from each cloud scene clips of 17 frames at its suggested stride are
measured, whole and by halves.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cinnema.data.dataset import PackedDataset, open_dataset
from cinnema.data.records import RawClip
from cinnema.data.scenes import Scene, find_scenes
from cinnema.data.wind import Wind, estimate_wind
from cinnema.simulators.sky import Skies

_FRAMES = 17
# Smallest speed at which a direction is meaningful, in picture sizes per clip: one pixel of 128.
_SLOWEST = 1 / 128
_CLIPS_A_SCENE = 4


class Estimate(NamedTuple):
    """Known and estimated displacement over a clip in picture sizes, and the mean confidence."""

    known: NDArray[np.float64]
    found: NDArray[np.float64]
    confidence: float

    @property
    def error(self) -> float:
        """Error of the direction, in degrees, 0 to 180."""
        return angle_between(self.known, self.found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skies", type=int, default=200, help="number of synthetic skies")
    parser.add_argument(
        "--size", type=int, default=128, help="height and width of the synthetic skies, in pixels"
    )
    parser.add_argument("--seed", type=int, default=90210)
    parser.add_argument("--data", type=Path, help="folder of real clips with a manifest.json")
    options = parser.parse_args()
    if options.skies:
        report_skies(options.skies, size=options.size, seed=options.seed)
    if options.data:
        report_scenes(options.data)
    return 0


def report_skies(num: int, *, size: int, seed: int) -> None:
    estimates: list[Estimate] = []
    calm: list[Estimate] = []
    for clip in test_skies(num, size=size, seed=seed):
        wind = estimate_wind(clip.frames)
        known = clip.tracks["wind"][1:].sum(axis=0).astype(np.float64)
        estimate = Estimate(known, over_clip(wind), float(wind.confidence.mean()))
        (estimates if np.linalg.norm(known) > _SLOWEST else calm).append(estimate)
    print(f"{num} synthetic skies at {size} px, seed {seed}, test starts, {_FRAMES} frames")
    print(
        f"({len(calm)} of them drift by less than {_SLOWEST:.4f} per clip and are excluded; their"
    )
    print(f"mean confidence is {np.mean([e.confidence for e in calm] or [0]):.2f})")
    print("confidence      kept   direction error, degrees   speed")
    print("                        median    90%   under 10   correlation")
    print_row("all", estimates, estimates)
    print_row("above 0.5", [e for e in estimates if e.confidence > 0.5], estimates)
    edges = [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 1.0]
    for low, high in pairwise(edges):
        some = [e for e in estimates if low < e.confidence <= high]
        print_row(f"{low:.1f} to {high:.1f}", some, estimates)
    correlation = rank_correlation([e.confidence for e in estimates], [e.error for e in estimates])
    print(f"rank correlation of confidence and direction error: {correlation:.2f}")


def test_skies(num: int, *, size: int, seed: int) -> Iterator[RawClip]:
    skies = Skies(10 * num, size=size, seed=seed, num_frames=_FRAMES)
    for item in skies.items():
        if item.split == "test":
            yield from (clip for clip in skies.read(item) if isinstance(clip, RawClip))


def print_row(name: str, some: list[Estimate], all_of_them: list[Estimate]) -> None:
    share = len(some) / len(all_of_them)
    if len(some) < 3:
        print(f"{name:<12} {share:7.0%}")
        return
    errors = np.array([e.error for e in some])
    speeds = np.array([[np.linalg.norm(e.known), np.linalg.norm(e.found)] for e in some])
    print(
        f"{name:<12} {share:7.0%} {np.median(errors):9.1f} {np.percentile(errors, 90):6.1f}"
        f" {np.mean(errors < 10):10.0%} {np.corrcoef(speeds.T)[0, 1]:13.2f}"
    )


def report_scenes(root: Path) -> None:
    print("\nscene            clips  direction   speed      confidence  difference of halves")
    print("                       degrees     per clip                degrees")
    dataset = open_dataset(root)
    scenes = find_scenes(dataset)
    for scene in [s for s in scenes if s.texture == "clouds"] or scenes:
        clips = list(scene_clips(dataset, scene))
        winds = [estimate_wind(clip) for clip in clips]
        mean = np.mean([over_clip(wind) for wind in winds], axis=0)
        middle = _FRAMES // 2
        halves = [
            angle_between(*(over_clip(estimate_wind(h)) for h in (c[: middle + 1], c[middle:])))
            for c in clips
        ]
        print(
            f"{scene.name:<17}{len(clips):5d} {np.degrees(np.arctan2(mean[1], mean[0])):10.1f}"
            f" {np.mean([np.linalg.norm(over_clip(w)) for w in winds]):10.3f}"
            f" {np.mean([w.confidence.mean() for w in winds]):14.2f} {np.median(halves):10.1f}"
        )


def scene_clips(dataset: PackedDataset, scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """Yield a few clips spread over the scene, resized to squares."""
    stride = dataset.manifest.clips[scene.clips[0]].stride or 1
    video = [frame for position in scene.clips for frame in dataset.read(position).frames]
    frames = [
        cv2.resize(frame, (256, 256), interpolation=cv2.INTER_AREA) for frame in video[::stride]
    ]
    num = min(_CLIPS_A_SCENE, len(frames) // _FRAMES)
    for start in np.linspace(0, len(frames) - _FRAMES, max(1, num)).astype(int):
        yield np.stack(frames[max(0, start) : start + _FRAMES])


def over_clip(wind: Wind) -> NDArray[np.float64]:
    """Return the displacement over a clip of 16 steps, in picture sizes."""
    return np.asarray(wind.mean, dtype=np.float64) * (_FRAMES - 1)


def angle_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    turn = np.arctan2(a[1], a[0]) - np.arctan2(b[1], b[0])
    return float(np.degrees(np.abs(np.angle(np.exp(1j * turn)))))


def rank_correlation(a: list[float], b: list[float]) -> float:
    ranks: NDArray[np.int64] = np.argsort(np.argsort(np.array([a, b]), axis=1), axis=1)
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


if __name__ == "__main__":
    sys.exit(main())
