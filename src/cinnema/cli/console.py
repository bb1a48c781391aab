"""Exit codes, errors as one line, and progress: a bar on a terminal, plain lines elsewhere.

Results (paths, tables) go to standard output, everything else to standard error.
"""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import FrameType, TracebackType

from cinnema.core.errors import UserError
from cinnema.core.memory import LEAST_MEMORY, is_lack_of_memory, memory_limit

DONE = 0
SOME_FAILED = 1
"""Exit code if some of several inputs failed; the same as Python's after an exception."""
USER_MISTAKE = 2
INTERRUPTED = 130
"""Exit code after Ctrl-C; as in shells, 128 and the number of the signal."""
PIPE_CLOSED = 141

_SECONDS_BETWEEN_LINES = 10.0


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command like Ctrl-C: what is half done is removed.

    Attributes:
        signal: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = number


class OutputLostError(Exception):
    """Standard output takes no more: its reader has left, or its disk is full."""


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    Args:
        command: Returns its own exit code.

    Returns:
        What `command` returned; 2 after a `UserError`, an error of the system or a lack of memory,
        which are printed as one line; 130 after an interruption, 143 and 129 after SIGTERM and
        SIGHUP, 141 if the reader of standard output has left. Other exceptions propagate, so that
        Python prints a traceback and exits with 1.
    """
    _prepare_streams()
    warnings.showwarning = _report_warning
    _warn_of_little_memory()
    with _ended_by_signals():
        try:
            code = command()
            sys.stdout.flush()
        except UserError as error:
            report_error(error)
            return USER_MISTAKE
        except KeyboardInterrupt as stop:
            note("cinnema: interrupted")
            return 128 + stop.signal if isinstance(stop, Terminated) else INTERRUPTED
        except SystemExit:
            raise
        except BaseException as error:  # of pyo3 some are no Exception
            if is_lack_of_memory(error):
                report_error(_lack_of_memory(error))
                return USER_MISTAKE
            if not isinstance(error, OutputLostError | OSError):
                raise
            return _code_of_system_error(error)
        return code


def _code_of_system_error(error: Exception) -> int:
    """Report an error of the system and return the exit code."""
    cause = error.__cause__ if isinstance(error, OutputLostError) else error
    if isinstance(error, OutputLostError | BrokenPipeError):
        with suppress(OSError, ValueError):  # so that Python does not flush it again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(cause, BrokenPipeError):  # `head` and pagers leave early, without an error
        return PIPE_CLOSED
    assert isinstance(cause, OSError)
    what = cause.filename or "standard output, or a file,"
    reason = cause.strerror or str(cause) or type(cause).__name__
    report_error(UserError(f"{what} cannot be used ({reason}): mend that, and run this again"))
    return USER_MISTAKE


def _lack_of_memory(error: BaseException) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return UserError(
        f"there is not enough memory ({reason}): end other programs, raise the limit (ulimit -v), "
        "or ask for less at once, such as a smaller --size"
    )


def _warn_of_little_memory() -> None:
    """Say that memory is limited, as a library may end the process under a tight limit."""
    limit = memory_limit()
    if limit is not None and limit < LEAST_MEMORY:
        note(
            f"cinnema: warning: memory is limited to {limit / 2**30:.2f} GB (ulimit -v); with less "
            f"than {LEAST_MEMORY >> 30} GB a command may fail or crash: raise the limit"
        )


def _prepare_streams() -> None:
    """Let any text be printed, whatever the encoding, and also if a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise `Terminated` in this process when SIGTERM or SIGHUP arrives, unless it ignores them."""
    process = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN if os.getpid() == process else signal.SIG_DFL)
        if os.getpid() == process:
            raise Terminated(number)
        os.kill(os.getpid(), number)  # a worker, which has nothing to clean up

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    with suppress(ValueError):  # not in the main thread
        for number in numbers:
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_result(result: object) -> None:
    """Print a line to standard output.

    Raises:
        OutputLostError: It cannot be written.
    """
    try:
        print(result, flush=True)
    except OSError as error:
        raise OutputLostError from error


def note(text: str) -> None:
    """Print a line to standard error, where that is possible."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def report_error(error: UserError) -> None:
    """Print an error as one line on standard error."""
    note(f"cinnema: error: {' '.join(str(error).split())}")


def report_failure(item: Path, error: Exception) -> None:
    """Print why one of several inputs failed; of what is unforeseen, with a traceback."""
    if isinstance(error, UserError):
        report_error(error)
    elif is_lack_of_memory(error):
        report_error(UserError(f"{item}: {_lack_of_memory(error)}"))
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
        report_error(UserError(f"{item}: {error.filename or 'a file'} cannot be used ({reason})"))
    else:
        note("".join(traceback.format_exception(error)).rstrip())
        report_error(UserError(f"{item}: unforeseen {type(error).__name__}, please report it"))


def _report_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without its source location."""
    note(f"cinnema: warning: {' '.join(str(message).split())}")


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
        self._start = self._begin = self._last_line = time.monotonic()
        self._lock, self._shares = Lock(), dict[int, float]()
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
        self._last_line = time.monotonic()
        if not self.count:
            self._begin = self._last_line  # what was before says nothing of the steps' time
        self._bar.update(self._task, description=description)

    def advance(self, steps: int = 1) -> None:
        """Count steps as done."""
        self.count += steps
        self._bar.update(self._task, completed=self.count)
        if not self._is_terminal:
            self._print_line()

    def within(self, step: int, share: float) -> None:
        """Set how much of a step that is not done yet is done; 1 forgets it.

        Without a terminal, this prints a line with an estimate every ten seconds. Several threads
        may call it, each for steps of its own.
        """
        with self._lock:
            self._shares.pop(step, None)
            if share < 1:
                self._shares[step] = share
            done = self.count + sum(self._shares.values())
            self._bar.update(self._task, completed=done)
            now = time.monotonic()
            if not self._is_terminal and now - self._last_line > _SECONDS_BETWEEN_LINES:
                self._last_line = now
                left = (now - self._begin) * (self._total - done) / max(done, 1e-6)
                note(
                    f"{self._description}: {done:.2f} of {self._total}, "
                    f"{now - self._start:.1f} s, about {left:.0f} s left"
                )

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
        if description != self._description:
            self.begin(description)
        self.reach(count, total=total)

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._start
        note(f"{self._description}: {self.count} of {self._total}, {seconds:.1f} s")

    def finish(self) -> None:
        """Print the total duration."""
        self._bar.stop()
        seconds = time.monotonic() - self._start
        note(f"cinnema: finished in {seconds:.1f} s")

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
