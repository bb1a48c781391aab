"""The metrics of a run: `metrics.jsonl`, TensorBoard events, and a plot."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path

_COLUMNS, _PANEL = 3, (3.2, 2.2)  # panels in a row of the plot, and the size of one in inches


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line, without duplicates after a run is resumed.

    A checkpoint stores the length of the file. A resumed run cuts the file back to that length and
    writes the later lines again.

    Args:
        path: The file; it need not exist.

    Example:
        >>> from tempfile import mkdtemp
        >>> log = MetricsLog(Path(mkdtemp()) / "metrics.jsonl")
        >>> log.append({"clips": 32, "loss": 0.5})
        >>> log.length()
        27
        >>> list(log.lines())
        [{'clips': 32, 'loss': 0.5}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, float]) -> None:
        """Append a line of numbers; infinite and NaN become null, as JSON has neither.

        Raises:
            UserError: The file cannot be written to, or the disk is full.
        """
        known = {name: value if math.isfinite(value) else None for name, value in line.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}); the last checkpoint is good: "
                "free disk space or correct the permissions, and run the same command again"
            ) from error

    def length(self) -> int:
        """Flush the file to the disk, and return its length in bytes; 0 if it does not exist."""
        if not self.path.exists():
            return 0
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def cut(self, length: int) -> None:
        """Cut the file back to a length in bytes; a shorter or missing file is left as it is."""
        if self.path.exists() and self.path.stat().st_size > length:
            os.truncate(self.path, length)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the complete lines; none if the file does not exist."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))


class TensorBoardLog:
    """Event files in a run's folder, for `tensorboard --logdir`.

    Args:
        folder: Folder of the run.
        clips: Clips seen so far; TensorBoard hides earlier events with larger counts.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, clips: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--tensorboard needs the package tensorboard, which is not installed: "
                "pip install 'cinnema[tensorboard]', or leave the option out (metrics.jsonl has "
                "the same numbers)"
            ) from error
        self._open = partial(SummaryWriter, str(folder / "tensorboard"), purge_step=clips + 1)
        self._writer: SummaryWriter | None = None

    def append(self, numbers: Mapping[str, float], *, clips: int) -> None:
        """Add numbers at a count of clips."""
        if self._writer is None:
            self._writer = self._open()
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, global_step=clips)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def plot_metrics(folder: Path) -> Path | None:
    """Plot all numbers of a run against the clips seen, into `metrics.png` in its folder.

    Without matplotlib nothing is drawn, and a note is printed on standard error.

    Args:
        folder: Folder of the run.

    Returns:
        The PNG file; None if nothing has been recorded, or matplotlib is not installed.
    """
    lines = list(MetricsLog(folder / "metrics.jsonl").lines())
    names = dict.fromkeys(key for line in lines for key in line if key not in ("clips", "seconds"))
    curves = {name: _points(lines, name) for name in names}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        from rich.console import Console

        text = f"{folder}: no plot, as matplotlib is missing: pip install 'cinnema[report]'"
        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)
        return None
    rows = math.ceil(len(curves) / _COLUMNS)
    figure = Figure((_COLUMNS * _PANEL[0], rows * _PANEL[1] + 0.4), layout="constrained")
    last = lines[-1]
    pace = last["clips"] / max(last["seconds"], 1e-9)
    title = f"{folder.name}: {last['clips']:,} clips in {last['seconds'] / 3600:.2f} h"
    figure.suptitle(f"{title}, {pace:.1f} clips/s")
    for number, (name, points) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(rows, _COLUMNS, number)
        axes.plot(*zip(*points, strict=True), linewidth=1.0)
        axes.set_title(f"{name}  {points[-1][1]:.4g}", fontsize="small")
        axes.tick_params(labelsize="x-small")
        axes.grid(alpha=0.3)
    path = folder / "metrics.png"
    with atomic_path(path, overwrite=True) as part:
        figure.savefig(part, format="png", dpi=100)
    return path


def _points(lines: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    pairs = ((line["clips"], line.get(name)) for line in lines)
    return [(x, y) for x, y in pairs if y is not None]
