"""`cinnema app`: its limits are options, and it says what sharing means."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from cinnema.app import server
from cinnema.app.limits import Limits

Run = Callable[..., Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record how the page is served, and end at once, as after Ctrl-C."""
    calls: list[dict[str, Any]] = []

    @contextmanager
    def serving(_: object, **options: Any) -> Iterator[server.Running]:
        calls.append(options)
        yield server.Running("http://127.0.0.1:1/", None, None)  # type: ignore[arg-type]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serving", serving)
    monkeypatch.setattr("cinnema.cli.app.time.sleep", interrupt)
    return calls


def test_every_limit_is_an_option_that_help_explains(cinnema: Run) -> None:
    told = " ".join(cinnema("app", "--help").out)
    for field in fields(Limits):
        assert f"--{field.name.replace('_', '-')}" in told


def test_the_page_is_local_and_without_a_password_by_default(
    cinnema: Run, served: list[dict[str, Any]], tiny_weights: Path
) -> None:
    result = cinnema("app", "--weights", tiny_weights, "--no-browser")
    assert result.code == 0
    assert result.out == ["Open http://127.0.0.1:1/ in a browser; Ctrl-C ends."]
    (options,) = served
    assert (options["host"], options["password"], options["share"]) == ("127.0.0.1", None, False)
    assert options["limits"] == Limits()


def test_limits_reach_the_page(
    cinnema: Run, served: list[dict[str, Any]], tiny_weights: Path
) -> None:
    assert cinnema("app", "--weights", tiny_weights, "--max-seconds", 3, "--max-queue", 7).code == 0
    assert served[0]["limits"] == Limits(max_seconds=3, max_queue=7)


@pytest.mark.parametrize("option", ["--public", "--share"])
def test_a_password_is_made_up_where_others_reach_the_page(
    cinnema: Run, served: list[dict[str, Any]], tiny_weights: Path, option: str
) -> None:
    result = cinnema("app", "--weights", tiny_weights, option)
    password = served[0]["password"]
    assert len(password) >= 12
    assert result.out[-1] == f"User cinnema, password {password}"
    assert served[0]["host"] == ("0.0.0.0" if option == "--public" else "127.0.0.1")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_limit_that_limits_nothing_is_refused(cinnema: Run, value: str) -> None:
    assert cinnema("app", f"--max-megapixels={value}").is_mistake("--max-megapixels", "must be at")


def test_without_gradio_the_extra_is_named(cinnema: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinnema.cli.app.find_spec", lambda _: None)
    assert cinnema("app").is_mistake("pip install 'cinnema[app]'")
