"""The web server of the page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from cinnema.app.limits import Limits
from cinnema.core.errors import UserError
from cinnema.synthesis.pipeline import Pipeline

if TYPE_CHECKING:
    from cinnema.app.sessions import Sessions

_MAX_THREADS = 16


class Running(NamedTuple):
    """A page that is being served.

    Attributes:
        url: Its address on this machine.
        shared: Its public address; None without one.
        sessions: The visitors.
    """

    url: str
    shared: str | None
    sessions: "Sessions"


@contextmanager
def serving(
    pipeline: Pipeline,
    *,
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
    share: bool = False,
    open_browser: bool = False,
) -> Iterator[Running]:
    """Serve the page while the block runs; all files of visitors are removed after it.

    Args:
        pipeline: The model.
        limits: What a visitor may ask for.
        host: Address to listen at; any but this machine's own is reached by others.
        port: Port to listen at; None for a free one.
        password: Password of the user "cinnema"; None for none.
        share: Whether gradio's tunnel gives the page a public address.
        open_browser: Whether to open the page in a browser.

    Raises:
        UserError: The port is in use, or others could reach the page without a password.
    """
    if (share or host not in ("127.0.0.1", "localhost", "::1")) and not password:
        raise UserError(
            "others could reach the page without a password: give one, or listen at 127.0.0.1"
        )
    with TemporaryDirectory(prefix="cinnema-app-") as name, _stored_in(name):
        import gradio as gr
        from starlette.middleware import Middleware

        from cinnema.app.guard import Guard
        from cinnema.app.page import Page, web
        from cinnema.app.patience import PatientProtocol
        from cinnema.app.sessions import Sessions
        from cinnema.app.studio import Studio

        limits = limits or Limits()
        sessions = Sessions(Path(name), most=limits.max_sessions)
        page = Page(Studio(pipeline, limits), sessions).build()
        try:
            _, url, shared = page.launch(
                server_name=host,
                server_port=port,
                auth=None if password is None else ("cinnema", password),
                share=share,
                inbrowser=open_browser,
                prevent_thread_lock=True,
                quiet=True,
                show_error=False,
                app_kwargs={"middleware": [Middleware(Guard, is_local=not password)]},
                max_threads=_MAX_THREADS,
                max_file_size=int(limits.max_megabytes * 1e6),
                state_session_capacity=limits.max_sessions,
                footer_links=[],
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                # Fonts of the machine: the page loads nothing from elsewhere.
                theme=gr.themes.Default(
                    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
                ),
                css=web("page.css"),
            )
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used ({error}): choose another one with --port"
            ) from None
        # Read for each connection.
        page.server.config.http_protocol_class = PatientProtocol
        try:
            yield Running(url, shared, sessions)
        finally:
            page.close(verbose=False)


@contextmanager
def _stored_in(folder: str) -> Iterator[None]:
    """Let gradio store all files in a folder, and report nothing to its makers."""
    wanted = {
        "GRADIO_TEMP_DIR": folder,
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
