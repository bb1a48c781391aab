"""Frames a second of the shipped weights, at several sizes: frames alone, and written as mp4."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cinnema.bench.photographs import example
from cinnema.bench.rows import Case, Row, Settings, alternate
from cinnema.media.videos import write_video
from cinnema.synthesis.pipeline import Pipeline, open_scene
from cinnema.synthesis.request import NATURAL, Request
from cinnema.synthesis.residual import draw

_SIZES = {"128x128": (128, 128), "1280x720": (1280, 720), "3840x2160": (3840, 2160)}


def measure(settings: Settings) -> Iterator[Row]:
    """Yield frames a second of one video of each size."""
    pipe = Pipeline.from_pretrained("landscape")
    num_frames = 2 if settings.quick else 16
    for name, size in _SIZES.items():
        if settings.quick and size != (128, 128):
            continue
        with TemporaryDirectory() as folder:
            cases = _cases(pipe, size, num_frames, Path(folder))
            costs = alternate(cases, runs=settings.runs)
        first = None
        for case, cost in costs.items():
            row = Row(
                name=f"{name}, {case}",
                unit="frames/s",
                values=tuple(num_frames / seconds for seconds in cost.wall),
                processor=cost.processor,
                note=f"{num_frames} frames",
            )
            yield row if first is None else replace(row, baseline=first)
            first = first or row


def _cases(pipe: Pipeline, size: tuple[int, int], num_frames: int, folder: Path) -> dict[str, Case]:
    request = Request.of(NATURAL, num_frames=num_frames)
    scene = open_scene(pipe.model, example(size), request)
    (residual,) = draw(pipe.model, num_samples=1, seed=0, eta=None, weights="")

    def frames() -> None:
        for _ in scene.stream(residual).frames:
            pass

    def written() -> None:
        video = scene.stream(residual)
        write_video(folder / "video.mp4", video.frames, fps=video.fps, overwrite=True)

    return {"frames": frames, "frames and mp4": written}
