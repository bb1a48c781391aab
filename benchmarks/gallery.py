"""Makes the animated pictures of docs/gallery, one for each task, from the example photographs.

    python benchmarks/gallery.py [--weights landscape] [--output docs/gallery]
        [--push PACKED] [--walk PACKED]

Tasks that the weights do not support are skipped with a message. `robot` and `person` need packed
test clips (`cinnema data simulate push` or `walk`), whose first frames serve as photographs. The
exit code is 1 if the pictures are larger than 10 MB in total.
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
from cinnema.synthesis.moments import Extension
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.video import Video

_CELL = (288, 180)  # width and height of the cropped photographs
_MOST = 10_000_000  # largest total size, in bytes
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
            print(f"{name}: skipped, {pipe.name} has no control of the drift")
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
            print(f"{name}: skipped without packed clips (--push, --walk)")
            continue
        path = options.output / f"{name}.webp"
        body = Pipeline.from_pretrained(weights)
        write_video(path, futures_of_starts(body, starts_of(folder)), fps=_FPS, overwrite=True)
        total += path.stat().st_size
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"total: {total / 1e6:.2f} MB")
    return int(total > _MOST)


def cut(path: Path) -> ndarray:
    """Crop the centre of a photograph to the shape of a cell."""
    pixels = read_photograph(path)
    height, width, _ = pixels.shape
    across, down = _CELL
    scale = max(across / width, down / height)
    size = (max(across, round(width * scale)), max(down, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - down) // 2, (size[0] - across) // 2
    return np.ascontiguousarray(small[top : top + down, left : left + across])


def futures(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """Three futures of each photograph."""
    return stacked(
        [row(photo, frames(pipe.iterate(photo, num_samples=3, seed=1))) for photo in photos]
    )


def long(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """48 frames, extended continuously and as in the paper."""
    return stacked(
        [
            row(photo, [extended(pipe, photo, method) for method in ("continuous", "paper")])
            for photo in photos[:2]
        ]
    )


def extended(pipe: Pipeline, photo: ndarray, method: Extension) -> ndarray:
    return pipe.extend(photo, extension=method, num_samples=1, seed=1)[0].frames


def transferred(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """A video, and other photographs with its motion."""
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


def drifting(pipe: Pipeline, photo: ndarray, degrees: float) -> Video:
    (animation,) = pipe.animate(photo, num_samples=1, seed=1, eta=Drift(direction=degrees))
    return animation


def edited(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """A video that drifts to the right, and the same video with other directions."""
    rows = []
    for photo in photos[:2]:
        source = drifting(pipe, photo, 0)
        motion = pipe.read_motion(as_video(source), steered=True)
        turned = [pipe.edit(motion, eta=Drift(direction=degrees)).frames for degrees in (120, 240)]
        rows.append(row(photo, [source.frames, *turned]))
    return stacked(rows)


def between(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """Five steps from one sample to another."""
    steps = frames(pipe.interpolate(photos[0], start=0, end=3, steps=5, seed=1))
    return stacked([row(photos[0], steps[:2]), joined(steps[2:], axis=2)])


def starts_of(folder: Path, *, num: int = 4) -> list[ndarray]:
    """Return the first frames of packed test clips from different sources."""
    dataset = PackedDataset(folder)
    first: dict[str, int] = {}
    for index in dataset.indices("test").tolist():
        first.setdefault(dataset.manifest.clips[index].source, index)
    return [dataset.read(index).frames[0] for index in list(first.values())[:num]]


def futures_of_starts(pipe: Pipeline, starts: Sequence[ndarray]) -> ndarray:
    """Three futures of each start, and two with a given end point if the weights have a control."""
    rows = []
    for start in starts:
        videos = frames(pipe.iterate(start, num_samples=3, seed=1))
        if pipe.model.control is not None:
            videos += [
                steered.frames
                for x in (-0.2, 0.2)
                for steered in pipe.iterate(
                    start, num_samples=1, seed=1, eta=EndPoint(x=x, y=0.0, z=0.05)
                )
            ]
        rows.append(row(doubled(start[None])[0], [doubled(video) for video in videos]))
    return stacked(rows)


def doubled(video: ndarray) -> ndarray:
    return video.repeat(2, axis=1).repeat(2, axis=2)


def frames(animations: Iterable[Video]) -> list[ndarray]:
    return [animation.frames for animation in animations]


def as_video(animation: Video) -> VideoFile:
    """Return the photograph and the frames after it as a query."""
    whole = np.concatenate([animation.x0[None], animation.frames])
    return VideoFile(frames=whole, fps=animation.fps, path=Path("animation"))


def row(photo: ndarray, videos: Sequence[ndarray]) -> ndarray:
    """Concatenate the photograph and videos horizontally."""
    still = np.broadcast_to(photo, videos[0].shape)
    return joined([still, *videos], axis=2)


def stacked(rows: Sequence[ndarray]) -> ndarray:
    """Concatenate rows vertically."""
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
