"""Errors to exit codes, and progress."""

import errno
import os
import signal
import sys
import time
import warnings
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from cinnema.cli import console
from cinnema.cli.console import Progress, exit_code_of, note, print_result, report_failure
from cinnema.core.errors import UserError
from cinnema.core.files import atomic_path


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("a.png\nis no picture"), 2), (KeyboardInterrupt(), 130), (BrokenPipeError(), 141)],
)
def test_what_the_user_can_mend_has_an_exit_code_and_no_traceback(
    capfd: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    assert exit_code_of(lambda: raising(error)) == code
    assert "Traceback" not in capfd.readouterr().err


def test_a_mistake_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    exit_code_of(lambda: raising(UserError("a.png\n  is no picture")))
    assert capfd.readouterr().err == "cinnema: error: a.png is no picture\n"


def test_what_is_unforeseen_passes() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: raising(ZeroDivisionError()))


def test_a_long_step_that_is_reported_often_prints_a_line_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("cinnema.cli.console.time.monotonic", lambda: now)
    with Progress(total=0) as progress:
        for count in range(100):
            progress.report("measuring", count, 100)
            now += 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].endswith("measuring: 11 of 100, 11.0 s")
    assert len(lines) == 9


def test_a_warning_is_told_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        warnings.simplefilter("always")
        warnings.warn("other\nweights", stacklevel=1)
        return 0

    with warnings.catch_warnings():
        exit_code_of(command)
    assert capfd.readouterr().err == "cinnema: warning: other weights\n"


class Terminal(StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_a_pipe_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = Terminal(), StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", pipe)
    with Progress(total=2) as progress:
        progress.begin("sky[1].jpg")
        progress.advance()
        print("sky_s0_00.mp4")
    assert pipe.getvalue() == "sky_s0_00.mp4\n"
    assert "sky[1].jpg" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()


def test_skipping_tells_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(total=8) as progress:
        progress.skip_to(4)
        progress.begin("b.jpg")
        progress.advance()
    assert capfd.readouterr().err.startswith("b.jpg: 5 of 8")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_like_an_interruption(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    def command() -> int:
        with atomic_path(tmp_path / "out" / "clip.mp4") as partial:
            partial.write_bytes(b"half")
            os.kill(os.getpid(), number)
            time.sleep(60)
        return 0

    before = signal.signal(number, signal.SIG_DFL)  # nohup would have it ignored
    try:
        assert exit_code_of(command) == code
        assert not list(tmp_path.iterdir())
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_as_under_nohup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert exit_code_of(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_any_name_can_be_printed_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "cp1252", "utf-8"):
        pipe = TextIOWrapper(BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", pipe)
        assert exit_code_of(lambda: print_result("写\udce9.mp4") or 0) == 0
        assert pipe.buffer.getvalue().endswith(b"\\udce9.mp4\n")


class Full(StringIO):
    """A stream to a disk that is full, or whose reader has left."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, _: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 2), (errno.EPIPE, 141)])
def test_results_that_cannot_be_printed_end_a_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(number))
    assert exit_code_of(lambda: print_result("a.mp4") or 0) == code
    error = capfd.readouterr().err
    assert error.count("\n") == (code == 2)
    assert "Traceback" not in error


def test_notes_that_cannot_be_printed_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full(errno.ENOSPC))
    assert exit_code_of(lambda: note("half done") or 0) == 0
    assert exit_code_of(lambda: raising(UserError("a.png is no picture"))) == 2


def test_closed_streams_take_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)

    def command() -> int:
        with Progress(total=1) as progress:
            progress.advance()
        print_result("a.mp4")
        return 0

    assert exit_code_of(command) == 0


def test_an_error_of_the_system_names_the_file_in_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    error = OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300)
    assert exit_code_of(lambda: raising(error)) == 2
    assert capfd.readouterr().err.startswith(f"cinnema: error: {'a' * 300} cannot be used")


def test_a_lack_of_memory_is_one_line_and_a_tight_limit_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(lambda: raising(MemoryError())) == 2
    assert capfd.readouterr().err.startswith("cinnema: error: there is not enough memory (Memory")
    report_failure(Path("a.png"), RuntimeError("can't start new thread"))
    assert capfd.readouterr().err.startswith("cinnema: error: a.png: there is not enough memory")
    monkeypatch.setattr(console, "memory_limit", lambda: 1 << 30)
    assert exit_code_of(lambda: 0) == 0
    assert "memory is limited to 1.00 GB (ulimit -v)" in capfd.readouterr().err
