"""Drift of long videos: sharpness, still regions and seams by frame, for each kind of extension.

Each photograph is extended with the same samples by every method of `cinnema extend`:

    python benchmarks/drift.py [--frames 120] [--samples 1] [--weights landscape] [PHOTO ...]

- sharpness: mean absolute Laplacian of a frame, divided by that of x0.
- still LPIPS: LPIPS (AlexNet) between x0 and the frame in the regions that must not move; 0 is
  ideal.
- step: mean absolute change from the previous frame, in grey levels; large at a seam.
- away: mean absolute difference from x0, in grey levels; it keeps growing if the video drifts.

Values are means over photographs and samples. The default photographs are the package's examples.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy import ndarray

from cinnema.backbones.lpips import LPIPS
from cinnema.cli.demo import example_folder
from cinnema.media.pictures import resize_for_model, to_tensor
from cinnema.models.files import load_warping_model
from cinnema.synthesis.native import refine_mask
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.video import Video

METHODS = ("continuous", "paper", "onward")
_WIDTH = 320  # of the frames, in pixels
_STILL = 0.01  # mask values below this move by less than one grey level


class Measured(NamedTuple):
    """Measurements of one frame."""

    sharpness: float
    still: float
    step: float
    away: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--weights", default="landscape")
    options = parser.parse_args()
    photos = options.photos or sorted(example_folder().glob("*.jpg"))
    pipe = Pipeline(load_warping_model(options.weights, purpose="measuring still regions"))
    lpips = LPIPS.load("alex")
    shown = marks(options.frames)
    print(f"{options.weights}, {len(photos)} photographs, {options.samples} samples, {_WIDTH} px")
    found = {
        method: np.mean(
            [
                measured(animation, still, shown, lpips)
                for photo in photos
                for animation, still in extended(pipe, photo, method, options)
            ],
            axis=0,
        )
        for method in METHODS
    }
    report(found, shown)
    return 0


def marks(num_frames: int) -> list[int]:
    """Return the frames to report: each clip's middle, its end, and the frame after it."""
    clip = 16
    ends = [i for end in range(clip, num_frames + 1, clip) for i in (end - clip // 2, end, end + 1)]
    return sorted({i for i in (1, *ends, num_frames) if i <= num_frames})


def extended(
    pipe: Pipeline, photo: Path, method: str, options: argparse.Namespace
) -> Iterator[tuple[Video, ndarray]]:
    """Yield the videos of a photograph, and the region that must not move."""
    picture = cv2.imread(str(photo))
    height, width, _ = picture.shape
    size = (_WIDTH, round(_WIDTH * height / width))
    for animation in pipe.iterate(
        photo, num_samples=options.samples, num_frames=options.frames, extension=method, size=size
    ):
        yield animation, still_region(pipe, animation.x0)


@torch.inference_mode()
def still_region(pipe: Pipeline, x0: ndarray) -> ndarray:
    """Return the region in which the model's mask allows no motion."""
    stage1 = pipe.model.stage1
    features = stage1.scene(to_tensor(resize_for_model(x0, pipe.model.size))[None])
    moving = torch.sigmoid(stage1.mask(features.joint, features.fine))[0, 0].numpy()
    return refine_mask(moving, x0) < _STILL


@torch.inference_mode()
def measured(animation: Video, still: ndarray, shown: list[int], lpips: LPIPS) -> list[Measured]:
    x0, rows = animation.x0, []
    known = lpips.features(to_tensor(x0)[None])
    for i in shown:
        frame = animation.frames[i - 1]
        before = x0 if i == 1 else animation.frames[i - 2]
        kept = np.where(still[..., None], frame, x0)
        rows.append(
            Measured(
                sharpness=laplacian(frame) / laplacian(x0),
                still=float(lpips.distance(lpips.features(to_tensor(kept)[None]), known)),
                step=difference(frame, before),
                away=difference(frame, x0),
            )
        )
    return rows


def laplacian(frame: ndarray) -> float:
    return float(np.abs(cv2.Laplacian(frame, cv2.CV_32F)).mean())


def difference(a: ndarray, b: ndarray) -> float:
    return float(cv2.absdiff(a, b).mean())


def report(found: dict[str, ndarray], shown: list[int]) -> None:
    names = ("sharpness", "still LPIPS", "step", "away from x0")
    for column, name in enumerate(names):
        print(f"\n{name}\n{'frame':>6} " + " ".join(f"{method:>11}" for method in found))
        for row, i in enumerate(shown):
            values = (found[method][row][column] for method in found)
            print(f"{i:>6} " + " ".join(f"{value:>11.4f}" for value in values))


if __name__ == "__main__":
    sys.exit(main())
