"""Exit codes, errors as one line, and progress: a bar on a terminal, plain lines elsewhere.

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
"""Exit code if some of several inputs failed; the same as Python's after an exception."""
USER_MISTAKE = 2
INTERRUPTED = 130

_SECONDS_BETWEEN_LINES = 10.0


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    Args:
        command: Returns its own exit code.

    Returns:
        What `command` returned; 2 after a `UserError`, which is printed as one line; 130 after an
        interruption. Other exceptions propagate, so that Python prints a traceback and exits with
        1.
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
        # The reader (`head`, a pager) has closed the pipe, which is not an error.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def report_error(error: UserError) -> None:
    """Print an error as one line on standard error."""
    print(f"cinnema: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def _report_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without its source location."""
    print(f"cinnema: warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


class Progress:
    """Progress of a command on standard error: a bar on a terminal, else a line for each step.

    The times shown are those since this object was made.

    Args:
        total: Number of steps.

    Attributes:
        count: Number of steps that are done or skipped.

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
        self._start = self._last_line = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=console,
            disable=not self._is_terminal, transient=True,
            # Otherwise rich would write output for a pipe to the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)

    def begin(self, description: str) -> None:
        """Set the description of the next steps."""
        self._description = description
        self._bar.update(self._task, description=description)

    def advance(self, steps: int = 1) -> None:
        """Count steps as done."""
        self.count += steps
        self._bar.update(self._task, completed=self.count)
        if not self._is_terminal:
            self._print_line()

    def reach(self, count: int, *, total: int) -> None:
        """Set the count and the total.

        Without a terminal, this prints a line every ten seconds, and at the end.
        """
        self.count, self._total = count, total
        self._bar.update(self._task, completed=count, total=total)
        is_due = time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES or count >= total
        if not self._is_terminal and is_due:
            self._print_line()

    def report(self, description: str, count: int, total: int) -> None:
        """Set description, count and total in one call."""
        self.begin(description)
        self.reach(count, total=total)

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._start
        print(
            f"{self._description}: {self.count} of {self._total}, {seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )

    def finish(self) -> None:
        """Print the total duration."""
        self._bar.stop()
        seconds = time.monotonic() - self._start
        print(f"cinnema: finished in {seconds:.1f} s", file=sys.stderr, flush=True)

    def skip_to(self, count: int) -> None:
        """Set the count to that after steps that failed, without printing a line."""
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
        """Remove the bar."""
        self._bar.stop()
