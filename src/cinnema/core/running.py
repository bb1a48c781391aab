"""A training run on disk: checkpoints to resume from, a record of its numbers, its progress."""

import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path

_CHECKPOINT = "checkpoint.pt"


@runtime_checkable
class Stateful(Protocol):
    """Anything that a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Take up a state."""


class TrainingRun:
    """One folder for one run: `checkpoint.pt`, `metrics.jsonl`, and what the caller adds.

    Running the same command again resumes. Checkpoints are written beside and renamed, so the
    last good one is always there.

    Args:
        folder: Where the run lives; made if missing.
        config: What the run does, as plain values; a folder of another config is refused.
        parts: Networks, optimisers and averages, by name; a checkpoint's state goes into them.
        total: Clips after which the run ends, at least 1.
        seconds_between: Checkpoints are this far apart, in seconds.

    Attributes:
        clips: Clips seen so far, those before a resumption included.
        seconds: Time taken so far, likewise.

    Raises:
        UserError: The folder cannot be written to, holds a run of another configuration, or a
            checkpoint that is damaged.

    Example:
        >>> parts = {"network": torch.nn.Linear(1, 1)}
        >>> with TrainingRun(Path("line"), config={"rate": 0.1}, parts=parts, total=64) as run:
        ...     while not run.is_done:
        ...         run.advance(32)  # after a step on 32 clips
        >>> run.clips
        64
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
        _make_folder(folder)
        self._resume()
        self._console = Console(stderr=True)
        self._progress = _progress_bar(self._console)
        self._task = self._progress.add_task(
            folder.name, total=total, completed=self.clips, note=""
        )

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
        """Append a line of numbers to `metrics.jsonl`, with clips and seconds, and show it."""
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
        """Write a checkpoint.

        Raises:
            UserError: The folder cannot be written to, or the disk is full. The checkpoint that
                was there stays.
        """
        self._tick()
        state = {
            "config": json.dumps(self.config),
            "clips": self.clips,
            "seconds": self.seconds,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        # By way of memory: written straight to a file, torch hides that the disk is full.
        content = io.BytesIO()
        torch.save(state, content)
        with atomic_path(self.folder / _CHECKPOINT, overwrite=True) as path:
            path.write_bytes(content.getbuffer())
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
        state = _read_checkpoint(self.folder)
        if state is None:
            return
        if json.loads(state["config"]) != self.config:
            raise UserError(
                f"{self.folder} holds a run of another configuration; resume it with its own "
                "options, or give another folder with --run"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unreadable(self.folder / _CHECKPOINT, error) from error
        self.clips, self.seconds = state["clips"], state["seconds"]


def clips_seen(folder: Path) -> int:
    """Return how many clips the run in a folder has seen at its last checkpoint, 0 without one.

    Args:
        folder: Of a `TrainingRun`; it need not exist.

    Raises:
        UserError: The checkpoint is damaged.
    """
    state = _read_checkpoint(folder)
    return 0 if state is None else int(state["clips"])


def warmup_cosine(progress: float, *, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Return the factor of the learning rate: up in a straight line, then down a half cosine.

    Args:
        progress: Share of the run that is done, in [0, 1].
        warmup: Share of the run that goes up, in [0, 1).
        floor: The factor at the end, in [0, 1].
    """
    if progress < warmup:
        return max(progress / warmup, 1e-3)
    share = (progress - warmup) / (1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made a folder of a run ({error.strerror}): choose another one"
        ) from error


def _progress_bar(console: Console) -> Progress:
    """A bar on a terminal; elsewhere nothing, as `record` prints lines there."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} clips"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def _read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the checkpoint of a run, None if there is none yet."""
    path = folder / _CHECKPOINT
    if not path.exists():
        return None
    try:
        # weights_only: tensors and plain values, so that no code of a stranger's file is run.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises almost anything
        raise _unreadable(path, error) from error
    if not isinstance(state, dict) or not {"config", "clips", "seconds", "parts"} <= state.keys():
        raise _unreadable(path, TypeError("it is not one of cinnema's"))
    return state


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(
        f"{path} cannot be read as a checkpoint ({reason}): move it away to start afresh"
    )
