"""Errors to exit codes, and progress."""

import sys
import warnings
from io import StringIO

import pytest

from cinnema.cli.console import Progress, exit_code_of
from cinnema.core.errors import UserError


def raising(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("a.png\nis no picture"), 2), (KeyboardInterrupt(), 130), (BrokenPipeError(), 0)],
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
