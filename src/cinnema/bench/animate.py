"""`cinnema animate` from a cold start, and a warm pipeline by stage."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
from PIL import Image

from cinnema.bench.photographs import example
from cinnema.bench.processes import measured
from cinnema.bench.rows import Row, Settings
from cinnema.media.videos import write_video
from cinnema.synthesis.pipeline import Pipeline

_STAGES = ("open the photograph", "first frame", "16 frames", "16 frames as mp4")


def measure(settings: Settings) -> Iterator[Row]:
    """Yield what commands take in new processes, then the stages of a loaded pipeline."""
    size = (160, 96) if settings.quick else (1280, 720)
    pixels = example(size)
    with TemporaryDirectory() as folder:
        photo = Path(folder, "photo.jpg")
        Image.fromarray(pixels).save(photo, quality=92)
        yield from _cold(photo, settings)
        yield from _warm(pixels, Path(folder), settings)


def _cold(photo: Path, settings: Settings) -> Iterator[Row]:
    out = ["-o", str(photo.parent / "out"), "--overwrite"]
    animate = ["animate", str(photo), *out]
    commands = {
        "--help": ["--help"],
        "a missing file": ["animate", str(photo.parent / "missing.jpg")],
        "4 futures of 16 frames": [*animate, "-n", "4", "--frames", "16"],
    }
    if settings.quick:
        commands["4 futures of 16 frames"] = [*animate, "-n", "1", "--frames", "2"]
    else:
        commands["4 futures of 4 s at 24 frames a second"] = [*animate, "-n", "4"]
    for seconds, peak in measured(commands, runs=settings.runs, expected={"a missing file": 2}):
        yield seconds
        if "futures" in seconds.name:
            yield peak


def _warm(pixels: np.ndarray, folder: Path, settings: Settings) -> Iterator[Row]:
    pipe = Pipeline.from_pretrained("landscape")
    walls: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    processors: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for run in range(1 + settings.runs):
        laps = list(_stages(pipe, pixels, folder / "warm.mp4", seed=run))
        if run:  # the first one warms up
            for stage, (wall, processor) in zip(_STAGES, laps, strict=True):
                walls[stage].append(wall)
                processors[stage].append(processor)
    for stage in _STAGES:
        yield Row(
            name=f"warm, until {stage}" if stage == "first frame" else f"warm, {stage}",
            unit="s",
            values=tuple(walls[stage]),
            processor=tuple(processors[stage]),
        )


def _stages(
    pipe: Pipeline, pixels: np.ndarray, path: Path, *, seed: int
) -> Iterator[tuple[float, float]]:
    """Yield the seconds, and those of the processor, since the start of a future."""
    start = perf_counter(), process_time()

    def lap() -> tuple[float, float]:
        return perf_counter() - start[0], process_time() - start[1]

    (video,) = pipe.stream(pixels, num_samples=1, num_frames=16, seed=seed)
    yield lap()
    next(video.frames)
    yield lap()
    for _ in video.frames:
        pass
    yield lap()
    start = perf_counter(), process_time()
    (video,) = pipe.stream(pixels, num_samples=1, num_frames=16, seed=seed)
    write_video(path, video.frames, fps=24, overwrite=True)
    yield lap()
