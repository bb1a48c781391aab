"""A training run on disk: checkpoints to resume from, a record of its numbers, its progress."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path


class Stateful(Protocol):
    """Anything that a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Take up a state."""


class TrainingRun:
    """One folder for one run: `checkpoint.pt`, `metrics.jsonl`, and what the caller adds.

    Running the same command again resumes. Checkpoints are written beside and renamed, so the
    last good one is always there.

    Args:
        folder: Where the run lives; made if missing.
        config: What the run does, as plain values; a folder of another config is refused.
        parts: Networks, optimisers and averages, by name.
        total: Clips after which the run ends.
        seconds_between: Checkpoints are this far apart.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, Any],
        parts: Mapping[str, Stateful],
        total: int,
        seconds_between: float = 120.0,
    ) -> None:
        self.folder, self.parts, self.total = folder, parts, total
        self.config = json.loads(json.dumps(dict(config)))
        self.seconds_between = seconds_between
        self.clips = 0
        self.seconds = 0.0
        self._since = self._saved = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} clips"),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(folder.name, total=total, note="")

    @property
    def is_done(self) -> bool:
        """Whether all clips have been seen."""
        return self.clips >= self.total

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.clips / self.total)

    def advance(self, clips: int) -> None:
        """Count clips that a step has seen, and save when it is time to."""
        self.clips += clips
        self._progress.update(self._task, completed=self.clips)
        if time.monotonic() - self._saved > self.seconds_between or self.is_done:
            self.save()

    def record(self, **numbers: float) -> None:
        """Append a line of numbers to `metrics.jsonl`, and show it."""
        self._tick()
        line = {"clips": self.clips, "seconds": round(self.seconds, 1), **numbers}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        note = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self._console.is_terminal:
            self._progress.update(self._task, note=note)
        else:
            self._console.print(f"{self.clips}/{self.total} clips  {note}", highlight=False)

    def save(self) -> None:
        """Write a checkpoint."""
        self._tick()
        state = {
            "config": json.dumps(self.config),
            "clips": self.clips,
            "seconds": self.seconds,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        with atomic_path(self.folder / "checkpoint.pt", overwrite=True) as path:
            torch.save(state, path)
        self._saved = time.monotonic()

    def __enter__(self) -> "TrainingRun":
        """Start showing progress."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop showing progress."""
        self._progress.stop()

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(
                f"{path} cannot be read as a checkpoint ({error}); move it away to start afresh"
            ) from error
        if json.loads(state["config"]) != self.config:
            raise UserError(
                f"{self.folder} holds a run of another configuration; resume it with its own "
                "options, or give another folder with --run"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.clips, self.seconds = state["clips"], state["seconds"]


def warmup_cosine(progress: float, *, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Return the factor of the learning rate at a share of the run: up at once, then a cosine."""
    import math

    if progress < warmup:
        return max(progress / warmup, 1e-3)
    share = (progress - warmup) / (1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
