"""The folder of a training run: checkpoints to resume from, and recorded metrics."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cinnema.core.distributed import Ranks
from cinnema.core.errors import NotFiniteError, UserError
from cinnema.core.files import atomic_path
from cinnema.training.checkpoints import Checkpoints
from cinnema.training.metrics_log import MetricsLog, TensorBoardLog

_SECONDS_BETWEEN_LINES = 15.0  # between progress lines, if standard error is no terminal


@runtime_checkable
class Stateful(Protocol):
    """An object whose state a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Restore a state."""


class TrainingRun:
    """The folder of one run: checkpoints and `metrics.jsonl`.

    Opening the folder again resumes the run from the latest checkpoint, however it ended. A loop
    takes a step, counts its clips (`advance`), records numbers (`record`) and calls `save_if_due`,
    in this order, so that a checkpoint and the lines before it belong together.

    Under several ranks all read the folder; only the first writes, and shows progress.

    Args:
        folder: The folder; created if missing.
        config: Configuration of the run as JSON values; a folder of another one is refused.
        parts: Networks, optimisers and averages, by name, whose states are saved and restored.
        total: Clips after which the run ends, at least 1.
        seconds_between: Seconds between two checkpoints.
        ranks: The processes that train; one by default.
        tensorboard: Whether the numbers are written for TensorBoard as well.

    Attributes:
        clips: Clips seen so far, including those before the run was resumed.
        seconds: Seconds taken so far, including those before the run was resumed.

    Raises:
        UserError: The folder cannot be written to, or holds a run of another configuration, or
            checkpoints that are all damaged; TensorBoard is not installed.

    Example:
        >>> from torch import nn
        >>> parts = {"network": nn.Linear(1, 1)}
        >>> with TrainingRun(Path("line"), config={"rate": 0.1}, parts=parts, total=64) as run:
        ...     while not run.is_done:
        ...         run.advance(32)  # after a step on 32 clips
        ...         run.save_if_due()
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
        ranks: Ranks | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.folder, self.parts, self.total = folder, parts, total
        self.config = json.loads(json.dumps(dict(config)))
        self.seconds_between = seconds_between
        self.ranks = Ranks() if ranks is None else ranks
        self.clips, self._clips_saved = 0, -1
        self.seconds = 0.0
        self._since = self._saved = time.monotonic()
        self._checkpoints = Checkpoints(folder)
        self._log = MetricsLog(folder / "metrics.jsonl")
        self._resume()
        is_written = tensorboard and self.ranks.is_first
        self._tensorboard = TensorBoardLog(folder, clips=self.clips) if is_written else None
        self._made = _make_folder(folder)
        self._console = Console(stderr=True, quiet=not self.ranks.is_first)
        self._progress = _progress_bar(self._console)
        self._task = self._progress.add_task(
            folder.name, total=total, completed=self.clips, note=""
        )
        self._recorded = (self.clips, self.seconds)

    @property
    def is_done(self) -> bool:
        """Whether all clips have been seen."""
        return self.clips >= self.total

    @property
    def progress(self) -> float:
        """Share of the run that is done, from 0 to 1."""
        return min(1.0, self.clips / self.total)

    def advance(self, clips: int) -> None:
        """Count clips that a step has seen, on all ranks together."""
        self.clips += clips
        self._progress.update(self._task, completed=self.clips)

    def record(self, **numbers: float) -> None:
        """Append a line of numbers to `metrics.jsonl`, with clips and seconds, and show it.

        Raises:
            UserError: The file cannot be written to, or the disk is full.
        """
        self._tick()
        if not self.ranks.is_first:
            return
        self._log.append({"clips": self.clips, "seconds": round(self.seconds, 1), **numbers})
        if self._tensorboard is not None:
            self._tensorboard.append(numbers, clips=self.clips)
        self._show(numbers)

    def keep_batch(self, reason: NotFiniteError, *, step: int, clips: Sequence[str]) -> UserError:
        """Write the clips of a batch whose loss is not finite to a file; return the error.

        Args:
            reason: Error that names the loss or norm, the same on all ranks.
            step: Number of the step.
            clips: Names of the clips in this rank's batch. Those of all ranks are written to
                `nan-<step>.json` in the folder of the run.
        """
        batch = [name for part in self.ranks.gather(list(clips)) for name in part]
        path = self.folder / f"nan-{step}.json"
        if self.ranks.is_first:
            content = {"step": step, "clips": self.clips, "reason": str(reason), "batch": batch}
            with atomic_path(path, overwrite=True) as part:
                part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        some = ", ".join(batch[:3]) + (f" and {len(batch) - 3} more" if len(batch) > 3 else "")
        return UserError(
            f"{self.folder.name}: {reason}, on the clips {some} ({path} lists all); the last "
            "checkpoint is older: check those clips, or train with a lower learning rate in "
            "another folder"
        )

    def save_if_due(self) -> None:
        """Save a checkpoint if `seconds_between` have passed since the last one, and at the end.

        Raises:
            UserError: As `save`.
        """
        if time.monotonic() - self._saved > self.seconds_between or self.is_done:
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the present state.

        Raises:
            UserError: The folder cannot be written to, or the disk is full. The previous
                checkpoint is kept.
        """
        self._tick()
        self._saved, self._clips_saved = time.monotonic(), self.clips
        if not self.ranks.is_first:
            return
        self._checkpoints.write(
            {
                "config": json.dumps(self.config),
                "clips": self.clips,
                "seconds": self.seconds,
                "metrics_length": self._log.length(),
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
            }
        )

    def __enter__(self) -> "TrainingRun":
        """Start showing progress."""
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop showing progress; save a checkpoint unless an exception ended the block."""
        self._progress.stop()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if kind is not None:
            _remove_empty(self._made)
        elif self._clips_saved != self.clips:
            self.save()

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now

    def _show(self, numbers: Mapping[str, float]) -> None:
        note = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if self._console.is_terminal:
            self._progress.update(self._task, note=note)
            return
        clips, seconds = self._recorded
        pace = ""
        if self.clips > clips and self.seconds > seconds:
            rate = (self.clips - clips) / (self.seconds - seconds)
            left = max(0, self.total - self.clips) / rate
            pace = f"  {rate:.1f} clips/s  {_duration(left)} left"
            self._recorded = (self.clips, self.seconds)
        line = f"{self.clips}/{self.total} clips  {note}{pace}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def _resume(self) -> None:
        state = self._checkpoints.read()
        if state is not None:
            self._restore(state)
        if len(set(self.ranks.gather(self.clips))) > 1:
            raise UserError(
                f"{self.folder}: the processes do not read the same checkpoint there: give a "
                "folder that all machines share"
            )
        if self.ranks.is_first:
            self._checkpoints.tidy()
            self._log.cut(0 if state is None else state["metrics_length"])

    def _restore(self, state: dict[str, Any]) -> None:
        path = self._checkpoints.latest
        _require_same_config(self.folder, state, self.config)
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unreadable(path, error) from error
        self.clips, self.seconds = state["clips"], state["seconds"]
        self._clips_saved = self.clips


def require_same_run(folder: Path, *, config: Mapping[str, Any]) -> None:
    """Raise a UserError if a folder cannot hold the run of a configuration; nothing is written.

    Args:
        folder: Folder of the run, which need not exist.
        config: Configuration of the run as JSON values, as for `TrainingRun`.

    Raises:
        UserError: As `TrainingRun`.
    """
    state = Checkpoints(folder).read()
    if state is not None:
        _require_same_config(folder, state, json.loads(json.dumps(dict(config))))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{folder} cannot be created in {there}: choose another folder for the run")


def _require_same_config(folder: Path, state: dict[str, Any], config: dict[str, Any]) -> None:
    if not {"config", "clips", "seconds", "metrics_length", "parts"} <= state.keys():
        path = Checkpoints(folder).latest
        raise _unreadable(path, TypeError("it is not a checkpoint of a run"))
    if json.loads(state["config"]) != config:
        raise UserError(
            f"{folder} holds a run of another configuration; resume it with its own options, or "
            "give another folder with --run"
        )


@contextmanager
def counted(name: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a task on standard error: a bar on a terminal, lines elsewhere.

    Args:
        name: Description of the task, such as "encoding clips".
        total: Number of units.

    Yields:
        A function to call with the number of units done so far.
    """
    console = Console(stderr=True)
    last_line = time.monotonic()

    def count(done: int) -> None:
        nonlocal last_line
        progress.update(task, completed=done)
        if not console.is_terminal and time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            console.print(f"{name}: {done} of {total}", highlight=False, soft_wrap=True)

    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield count


class _Pace(ProgressColumn):
    """Clips per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} clips/s")


def _progress_bar(console: Console) -> Progress:
    """Return a bar for a terminal; elsewhere it shows nothing, as `record` prints lines there."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} clips"),
        _Pace(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal or console.quiet,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _make_folder(folder: Path) -> list[Path]:
    """Create a folder; return it and its parents that were created, the innermost first."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be created ({error.strerror}): choose another folder for the run"
        ) from error
    return new


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders in which nothing has been written."""
    for folder in folders:
        with suppress(OSError):  # it is not empty, or another process has removed it
            folder.rmdir()


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(
        f"{path} cannot be read as a checkpoint ({reason}): move it away to start afresh"
    )
