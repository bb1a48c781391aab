"""Errors to exit codes, and progress: a bar on a terminal, plain lines elsewhere.

Results (paths, tables) go to standard output, everything else to standard error.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from cinnema.core.errors import UserError

DONE = 0
SOME_FAILED = 1
"""Some of several photographs failed; an unforeseen exception ends with the same code."""
USER_MISTAKE = 2
INTERRUPTED = 130

_SECONDS_BETWEEN_LINES = 10.0


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    Args:
        command: returns its own exit code when it comes to its end.

    Returns:
        What `command` returned; 2 after a `UserError`, told in one line; 130 after an interruption.
        Any other exception passes, so that its traceback is seen and Python ends with 1.
    """
    warnings.showwarning = _report_warning
    try:
        return command()
    except UserError as error:
        report_error(error)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("cinnema: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, a pager) has left: that is no error, and nobody is there to tell it.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def report_error(error: UserError) -> None:
    """Print an error as one line on standard error."""
    print(f"cinnema: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def _report_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line: where in the code it arose says nothing to a user."""
    print(f"cinnema: warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


class Progress:
    """How far a command has come.

    On a terminal this is a bar on standard error; elsewhere a plain line for each step.

    Args:
        total: steps to the end.

    Attributes:
        count: steps that are done or skipped.

    Example:
        >>> with Progress(total=8) as progress:
        ...     progress.begin("sky.jpg")
        ...     progress.advance()
    """

    def __init__(self, *, total: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._is_terminal = console.is_terminal
        self._total, self.count = total, 0
        self._description = ""
        self._start = self._told = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console,
            disable=not self._is_terminal, transient=True,
            # Else rich would send to the terminal what is meant for a pipe.
            redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)

    def begin(self, description: str) -> None:
        """Name what the next steps are about."""
        self._description = description
        self._bar.update(self._task, description=description)

    def advance(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self.count += steps
        self._bar.update(self._task, completed=self.count)
        if not self._is_terminal:
            self._tell()

    def reach(self, count: int, *, total: int) -> None:
        """Go to a count of a total that may change.

        Elsewhere than on a terminal this prints a line only now and then, and at the end.
        """
        self.count, self._total = count, total
        self._bar.update(self._task, completed=count, total=total)
        is_due = time.monotonic() - self._told > _SECONDS_BETWEEN_LINES or count >= total
        if not self._is_terminal and is_due:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        seconds = self._told - self._start
        print(
            f"{self._description}: {self.count} of {self._total}, {seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )

    def skip_to(self, count: int) -> None:
        """Go on to a count without a word: what lay between could not be done."""
        self.count = count
        self._bar.update(self._task, completed=count)

    def __enter__(self) -> "Progress":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()
