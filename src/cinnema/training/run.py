"""A training run on disk: it resumes, records its numbers, shows how far it is."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cinnema.core.distributed import Ranks
from cinnema.core.errors import NotFiniteError, UserError
from cinnema.core.files import atomic_path
from cinnema.training.checkpoints import Checkpoints
from cinnema.training.metrics_log import MetricsLog
from cinnema.training.tensorboard import TensorBoardLog


@runtime_checkable
class Stateful(Protocol):
    """Anything that a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return its state as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Take up a state."""


class TrainingRun:
    """One folder for one run: checkpoints, `metrics.jsonl`, and what the caller adds.

    Running the same command again resumes, whatever ended it: at most what came after the latest
    checkpoint is lost. A loop takes a step, counts it (`advance`), records what there is to tell,
    and ends in `save_if_due`, so that a checkpoint and the lines up to it belong together.

    Under several ranks all read the folder; the first alone writes and shows.

    Args:
        folder: Where the run lives; made if missing.
        config: What the run does, as plain values; a folder of another config is refused.
        parts: Networks, optimisers and averages, by name; a checkpoint's state goes into them.
        total: Clips after which the run ends, at least 1.
        seconds_between: Checkpoints are this far apart, in seconds.
        ranks: The processes that train.
        tensorboard: Whether to write the numbers for TensorBoard as well.

    Attributes:
        clips: Clips seen so far, those before a resumption included.
        seconds: Time taken so far, likewise.

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
        _make_folder(folder)
        self._checkpoints = Checkpoints(folder)
        self._log = MetricsLog(folder / "metrics.jsonl")
        self._resume()
        self._tensorboard = (
            TensorBoardLog(folder, clips=self.clips)
            if tensorboard and self.ranks.is_first
            else None
        )
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
        """Share of the run that is done, in [0, 1]."""
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

    def require_finite(
        self, numbers: Mapping[str, float], *, step: int, ids: Sequence[str]
    ) -> None:
        """Refuse to go on from losses that are no numbers; call it before the optimiser moves.

        The numbers must be the same on all ranks, as averages are.

        Args:
            numbers: Losses, and the norm of the gradient.
            step: Its number.
            ids: Which clips this rank's batch holds. Those of all ranks are kept in
                `nan-<step>.json`, in the folder of the run.

        Raises:
            UserError: One of them is infinite or not a number. The checkpoint stays as it is.
        """
        spoilt = {name: f"{v:g}" for name, v in numbers.items() if not math.isfinite(v)}
        if spoilt:
            told = ", ".join(f"{name} {value}" for name, value in spoilt.items())
            reason = f"{self.folder.name}: {told} at step {step} is no number to train on"
            raise self.keep_batch(NotFiniteError(reason), step=step, ids=ids) from None

    def keep_batch(self, reason: NotFiniteError, *, step: int, ids: Sequence[str]) -> UserError:
        """Write down which clips a batch held that gave no number; return the error to raise.

        Args:
            reason: What was no number, the same on all ranks.
            step: Its number.
            ids: Which clips this rank's batch holds.
        """
        batch = [name for part in self.ranks.gather(list(ids)) for name in part]
        path = self.folder / f"nan-{step}.json"
        if self.ranks.is_first:
            content = {"step": step, "clips": self.clips, "reason": str(reason), "batch": batch}
            with atomic_path(path, overwrite=True) as part:
                part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        some = ", ".join(batch[:3]) + (f" and {len(batch) - 3} more" if len(batch) > 3 else "")
        return UserError(
            f"{reason}, on the clips {some} ({path} names all); the last checkpoint is from before "
            "that: look at those clips, or train with a lower learning rate in another folder"
        )

    def save_if_due(self) -> None:
        """Save where the last checkpoint is long enough ago, and at the end.

        Raises:
            UserError: As `save`.
        """
        if time.monotonic() - self._saved > self.seconds_between or self.is_done:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, of what has been counted and recorded so far.

        Raises:
            UserError: The folder cannot be written to, or the disk is full. The checkpoint that
                was there stays.
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
        """Stop showing progress, and save what a block that ended well has not saved."""
        self._progress.stop()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if kind is None and self._clips_saved != self.clips:
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
            self._take_up(state)
        if len(set(self.ranks.gather(self.clips))) > 1:
            raise UserError(
                f"{self.folder}: the processes do not see the same checkpoint there: give a folder "
                "that all machines share"
            )
        if self.ranks.is_first:
            self._checkpoints.tidy()
            # A checkpoint of an earlier version does not know the length.
            length = 0 if state is None else state.get("metrics_length")
            if length is not None:
                self._log.cut(length)

    def _take_up(self, state: dict[str, Any]) -> None:
        path = self._checkpoints.latest
        if not {"config", "clips", "seconds", "parts"} <= state.keys():
            raise _unreadable(path, TypeError("it is not one of cinnema's"))
        if json.loads(state["config"]) != self.config:
            raise UserError(
                f"{self.folder} holds a run of another configuration; resume it with its own "
                "options, or give another folder with --run"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unreadable(path, error) from error
        self.clips, self.seconds = state["clips"], state["seconds"]
        self._clips_saved = self.clips


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


class _Pace(ProgressColumn):
    """Clips a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} clips/s")


def _progress_bar(console: Console) -> Progress:
    """A bar on a terminal; elsewhere nothing, as `record` prints lines there."""
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


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made a folder of a run ({error.strerror}): choose another one"
        ) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0]
    return UserError(
        f"{path} cannot be read as a checkpoint ({reason}): move it away to start afresh"
    )
