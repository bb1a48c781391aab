"""How time and memory of `cinnema animate` grow with frames, futures and pixels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from cinnema.bench.photographs import example
from cinnema.bench.processes import measured
from cinnema.bench.rows import Row, Settings

_CASES = {
    "720p, 1 future of 30 frames": ((1280, 720), 1, 30),
    "720p, 1 future of 120 frames": ((1280, 720), 1, 120),
    "720p, 1 future of 480 frames": ((1280, 720), 1, 480),
    "720p, 4 futures of 30 frames": ((1280, 720), 4, 30),
    "3840x2160, 1 future of 30 frames": ((3840, 2160), 1, 30),
    "4032x3024, 1 future of 16 frames": ((4032, 3024), 1, 16),
}
_QUICK = {"1 frame": ((96, 64), 1, 1), "2 frames": ((96, 64), 1, 2)}


def measure(settings: Settings) -> Iterator[Row]:
    """Yield seconds and peak memory of each case, beside those of the first."""
    first: tuple[Row, Row] | None = None
    cases = _QUICK if settings.quick else _CASES
    with TemporaryDirectory() as folder:
        commands = {}
        for name, (size, samples, frames) in cases.items():
            photo = Path(folder, f"{size[0]}.jpg")
            Image.fromarray(example(size)).save(photo, quality=92)
            commands[name] = [
                "animate", str(photo), "-n", str(samples), "--frames", str(frames),
                "-o", str(Path(folder, "out")), "--overwrite",
            ]  # fmt: skip
        for rows in measured(commands, runs=settings.runs):
            if first is None:
                first = rows
                yield from rows
            else:
                yield from (
                    replace(row, baseline=base) for row, base in zip(rows, first, strict=True)
                )
