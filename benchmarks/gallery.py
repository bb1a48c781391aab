"""Makes the animated pictures of docs/gallery, one for each task, from the example photographs.

    python benchmarks/gallery.py [--output docs/gallery] [--stills FOLDER] [--only NAME ...]
        [--push PACKED] [--walk PACKED]

The pictures of nature need `--stills`, a folder with the photographs that docs/gallery/README.md
lists, each in a folder of its package's name. `robot` and `person` need packed test clips
(`cinnema data simulate push` or `walk`), whose first frames serve as photographs. The exit code is
1 if the pictures in the folder are larger than 10 MB in total.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy import ndarray

from cinnema.cli.demo import example_folder
from cinnema.data.dataset import PackedDataset
from cinnema.media.pictures import read_photograph
from cinnema.media.videos import VideoFile, write_video
from cinnema.models.control import Drift, EndPoint
from cinnema.synthesis.pipeline import Pipeline
from cinnema.synthesis.transfer import Motion
from cinnema.synthesis.video import Video

Picture: TypeAlias = tuple[Callable[[], ndarray], float]
"""Function that makes the frames of a picture, and its frame rate."""

STILLS = {
    "sea": "tuxpaint-data/ocean_waves.jpg",
    "fall": "lomiri-wallpapers-16.04/life_by_Aitzol_Berasategi.jpg",
    "plants": "mate-backgrounds/Dune.jpg",
}
"""Photographs of Debian packages in the folder of `--stills`."""

_CELL = (288, 180)  # width and height of the cropped photographs
_LARGE = (480, 300)  # the same for pictures of one photograph
_MOST = 10_000_000  # largest total size, in bytes
_FPS = 8.0
_LOOP_FPS = 12.0
_GAP = 4  # pixels between cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/gallery"))
    parser.add_argument("--stills", type=Path)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--push", type=Path)
    parser.add_argument("--walk", type=Path)
    options = parser.parse_args()
    tasks: dict[str, Picture] = {name: (partial(task, *TASKS[name]), _FPS) for name in TASKS}
    pictures = {
        **nature_pictures(options.stills),
        **tasks,
        **body_pictures({"robot": options.push, "person": options.walk}),
    }
    for name, (make, fps) in pictures.items():
        if options.only is None or name in options.only:
            path = options.output / f"{name}.webp"
            write_video(path, make(), fps=fps, overwrite=True)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", flush=True)
    total = sum(path.stat().st_size for path in options.output.glob("*.webp"))
    print(f"total: {total / 1e6:.2f} MB")
    return int(total > _MOST)


def nature_pictures(stills: Path | None) -> dict[str, Picture]:
    """Loops of sky, sea, fall and plants, and all of them with two futures each."""
    if stills is None:
        print("nature, sky, sea, fall, plants: skipped without photographs (--stills)")
        return {}
    paths = {"sky": example_folder() / "picos_de_europa.jpg"}
    paths |= {name: stills / file for name, file in STILLS.items()}
    return {
        "nature": (partial(nature, list(paths.values())), _LOOP_FPS),
        **{name: (partial(loop, path), _LOOP_FPS) for name, path in paths.items()},
    }


def nature(paths: Sequence[Path]) -> ndarray:
    """Two seamless loops of each photograph."""
    pipe = Pipeline.from_pretrained("landscape")
    return stacked([row(cut(path), loops(pipe, cut(path), num=2, seconds=2)) for path in paths])


def loop(path: Path) -> ndarray:
    """One seamless loop of a photograph, larger than a cell."""
    pipe = Pipeline.from_pretrained("landscape")
    return loops(pipe, cut(path, shape=_LARGE), num=1, seconds=2)[0]


def loops(pipe: Pipeline, photo: ndarray, *, num: int, seconds: float) -> list[ndarray]:
    videos = pipe.iterate(
        photo, num_samples=num, seed=0, loop="seamless", fps=_LOOP_FPS, seconds=seconds
    )
    return frames(videos)


def body_pictures(folders: dict[str, Path | None]) -> dict[str, Picture]:
    """Futures of the robot and the walking person, whose weights have the same names."""
    for name in (name for name, folder in folders.items() if folder is None):
        print(f"{name}: skipped without packed clips (--push, --walk)")
    return {
        name: (partial(bodies, name, folder), _FPS)
        for name, folder in folders.items()
        if folder is not None
    }


def bodies(weights: str, folder: Path) -> ndarray:
    return futures_of_starts(Pipeline.from_pretrained(weights), starts_of(folder))


def cut(path: Path, *, shape: tuple[int, int] = _CELL) -> ndarray:
    """Crop the centre of a photograph to a width and height."""
    pixels = read_photograph(path)
    height, width, _ = pixels.shape
    across, down = shape
    scale = max(across / width, down / height)
    size = (max(across, round(width * scale)), max(down, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - down) // 2, (size[0] - across) // 2
    return np.ascontiguousarray(small[top : top + down, left : left + across])


def task(make: Callable[[Pipeline, Sequence[ndarray]], ndarray], weights: str) -> ndarray:
    photos = [cut(path) for path in sorted(example_folder().glob("*.jpg"))]
    return make(Pipeline.from_pretrained(weights), photos)


def transferred(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """A video, and other photographs with its motion."""
    (source,) = pipe.animate(photos[-1], num_samples=1, seed=0, protocol="paper")
    motion = pipe.read_motion(as_video(source))
    return stacked(
        [row(photo, [source.frames, moved(pipe, motion, photo)]) for photo in photos[:-1]]
    )


def moved(pipe: Pipeline, motion: Motion, photo: ndarray) -> ndarray:
    return pipe.transfer(motion, photo, protocol="paper").frames


def directions(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """The same nu to the right, to the upper right and to the left."""
    return stacked(
        [
            row(photo, [drifting(pipe, photo, degrees).frames for degrees in (0, 45, 180)])
            for photo in photos
        ]
    )


def drifting(pipe: Pipeline, photo: ndarray, degrees: float) -> Video:
    eta = Drift(direction=degrees)
    (animation,) = pipe.animate(photo, num_samples=1, seed=1, eta=eta, protocol="paper")
    return animation


def edited(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """A video that drifts to the right, and the same video with other directions."""
    rows = []
    for photo in photos[:2]:
        source = drifting(pipe, photo, 0)
        motion = pipe.read_motion(as_video(source), steered=True)
        turned = [turned_to(pipe, motion, degrees) for degrees in (120, 240)]
        rows.append(row(photo, [source.frames, *turned]))
    return stacked(rows)


def turned_to(pipe: Pipeline, motion: Motion, degrees: float) -> ndarray:
    return pipe.edit(motion, eta=Drift(direction=degrees), protocol="paper").frames


def between(pipe: Pipeline, photos: Sequence[ndarray]) -> ndarray:
    """Five steps from one sample to another."""
    videos = pipe.interpolate(photos[0], start=0, end=3, steps=5, seed=1, protocol="paper")
    steps = frames(videos)
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


TASKS: dict[str, tuple[Callable[[Pipeline, Sequence[ndarray]], ndarray], str]] = {
    "transfer": (transferred, "landscape"),
    "directions": (directions, "landscape"),
    "edit": (edited, "landscape"),
    "interpolation": (between, "landscape"),
}
"""Tasks, and the weights that show them."""


if __name__ == "__main__":
    sys.exit(main())
