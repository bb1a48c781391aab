"""The gallery of docs/gallery: each task as a small animated picture, from the example photographs.

    python benchmarks/gallery.py [--weights landscape] [--output docs/gallery]
        [--push PACKED] [--walk PACKED]

What weights without a control cannot do is left out, and said so; so are `robot` and `person`
without a folder of packed test clips, as `cinnema data simulate push` and `walk` make them, whose
first frames are starts. The pictures together stay below 10 MB.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray

from cinnema.cli.demo import example_folder
from cinnema.data.dataset import PackedDataset
from cinnema.media.pictures import read_photograph
from cinnema.media.videos import VideoFile, write_video
from cinnema.models.control import DRIFT, Drift, EndPoint
from cinnema.synthesis.animation import Animation
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.settings import Extension

_CELL = (288, 180)  # width and height: photographs are cut to this shape
_MOST = 10_000_000  # bytes of all pictures
_FPS = 8.0
_GAP = 4  # pixels between cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="landscape")
    parser.add_argument("--output", type=Path, default=Path("docs/gallery"))
    parser.add_argument("--push", type=Path)
    parser.add_argument("--walk", type=Path)
    options = parser.parse_args()
    pipe = Pipeline.from_pretrained(options.weights)
    photos = [cut(path) for path in sorted(example_folder().glob("*.jpg"))]
    control = pipe.model.control
    steered = control is not None and control.name == DRIFT
    total = 0
    for name, (make, needs_control) in TASKS.items():
        if needs_control and not steered:
            print(f"{name}: left out, {pipe.name} cannot be told the drift")
            continue
        path = options.output / f"{name}.webp"
        write_video(path, make(pipe, photos), fps=_FPS, overwrite=True)
        total += path.stat().st_size
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    for name, (weights, folder) in {
        "robot": ("robot", options.push),
        "person": ("person", options.walk),
    }.items():
        if folder is None:
            print(f"{name}: left out, there are no starts (--push, --walk)")
            continue
        path = options.output / f"{name}.webp"
        body = Pipeline.from_pretrained(weights)
        write_video(path, acting(body, starts_of(folder)), fps=_FPS, overwrite=True)
        total += path.stat().st_size
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"together {total / 1e6:.2f} MB")
    return int(total > _MOST)


def cut(path: Path) -> ndarray:
    """Cut the middle of a photograph to the cells' shape."""
    pixels = read_photograph(path)
    height, width, _ = pixels.shape
    across, down = _CELL
    scale = max(across / width, down / height)
    size = (max(across, round(width * scale)), max(down, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - down) // 2, (size[0] - across) // 2
    return np.ascontiguousarray(small[top : top + down, left : left + across])


def futures(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """Three futures of each photograph, a row each."""
    return stacked(
        [row(photo, frames(pipe.iterate(photo, num_samples=3, seed=1))) for photo in photos]
    )


def long(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """48 frames: without drift, and the paper's way."""
    return stacked(
        [
            row(photo, [extended(pipe, photo, way) for way in ("continuous", "paper")])
            for photo in photos[:2]
        ]
    )


def extended(pipe: Pipeline, photo: ndarray, method: Extension) -> ndarray:
    return pipe.extend(photo, method=method, num_samples=1, seed=1)[0].frames


def transferred(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """A video, and another photograph that moves like it."""
    (source,) = pipe.animate(photos[-1], num_samples=1, seed=0)
    motion = pipe.read_motion(as_video(source))
    return stacked(
        [row(photo, [source.frames, pipe.transfer(motion, photo).frames]) for photo in photos[:-1]]
    )


def directions(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """The same nu to the right, to the upper right and to the left."""
    return stacked(
        [
            row(photo, [drifting(pipe, photo, degrees).frames for degrees in (0, 45, 180)])
            for photo in photos
        ]
    )


def drifting(pipe: Pipeline, photo: ndarray, degrees: float) -> Animation:
    (animation,) = pipe.animate(photo, num_samples=1, seed=1, eta=Drift(direction=degrees))
    return animation


def edited(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """A video that drifts to the right, and the same video told to drift elsewhere."""
    rows = []
    for photo in photos[:2]:
        source = drifting(pipe, photo, 0)
        motion = pipe.read_motion(as_video(source), steered=True)
        turned = [pipe.edit(motion, eta=Drift(direction=degrees)).frames for degrees in (120, 240)]
        rows.append(row(photo, [source.frames, *turned]))
    return stacked(rows)


def between(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """From one sample to another in five steps, after the photograph."""
    steps = frames(pipe.interpolate(photos[0], start=0, end=3, steps=5, seed=1))
    return stacked([row(photos[0], steps[:2]), joined(steps[2:], axis=2)])


def starts_of(folder: Path, *, num: int = 4) -> list[ndarray]:
    """The first frames of some packed test clips, each of another source."""
    dataset = PackedDataset(folder)
    first: dict[str, int] = {}
    for index in dataset.indices("test").tolist():
        first.setdefault(dataset.manifest.clips[index].source, index)
    return [dataset.read(index).frames[0] for index in list(first.values())[:num]]


def acting(pipe: Pipeline, starts: Sequence[ndarray]) -> ndarray:
    """Three futures of each start; told to end left and right, where the weights can be told."""
    rows = []
    for start in starts:
        videos = frames(pipe.iterate(start, num_samples=3, seed=1))
        if pipe.model.control is not None:
            videos += [
                told.frames
                for x in (-0.2, 0.2)
                for told in pipe.iterate(
                    start, num_samples=1, seed=1, eta=EndPoint(x=x, y=0.0, z=0.05)
                )
            ]
        rows.append(row(doubled(start[None])[0], [doubled(video) for video in videos]))
    return stacked(rows)


def doubled(video: ndarray) -> ndarray:
    return video.repeat(2, axis=1).repeat(2, axis=2)


def frames(animations: Iterable[Animation]) -> list[ndarray]:
    return [animation.frames for animation in animations]


def as_video(animation: Animation) -> VideoFile:
    """The photograph and what follows it, as a query."""
    whole = np.concatenate([animation.x0[None], animation.frames])
    return VideoFile(frames=whole, fps=animation.fps, path=Path("animation"))


def row(photo: ndarray, videos: Sequence[ndarray]) -> ndarray:
    """Lay the photograph, standing still, and videos beside each other."""
    still = np.broadcast_to(photo, videos[0].shape)
    return joined([still, *videos], axis=2)


def stacked(rows: Sequence[ndarray]) -> ndarray:
    """Lay rows of one width one below the other."""
    return joined(rows, axis=1)


def joined(parts: Sequence[ndarray], *, axis: int) -> ndarray:
    shape = list(parts[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 128, np.uint8)
    spaced = [piece for part in parts for piece in (gap, part)][1:]
    return np.concatenate(spaced, axis=axis)


TASKS: dict[str, tuple[Callable[[Pipeline, Sequence[ndarray]], ndarray], bool]] = {
    "futures": (futures, False),
    "long": (long, False),
    "transfer": (transferred, False),
    "directions": (directions, True),
    "edit": (edited, True),
    "interpolation": (between, False),
}


if __name__ == "__main__":
    sys.exit(main())
