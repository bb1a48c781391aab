"""Refuses what other websites send to the page through a visitor's browser."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine for itself."""

_READING = frozenset({"GET", "HEAD"})
_OWN_SITES = frozenset({"same-origin", "none"})  # none: typed by the visitor

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class Guard:
    """ASGI middleware in front of the page.

    Requests that change something have to come from the page itself, by the browser's headers
    Sec-Fetch-Site and Origin; programs send neither. A page for this machine alone also has to be
    called by one of its own names, as a website could otherwise give its name this machine's
    address (DNS rebinding).

    Args:
        app: What answers the other requests.
        is_local: Whether the page is for this machine alone.
    """

    def __init__(self, app: _App, *, is_local: bool) -> None:
        self._app, self._is_local = app, is_local

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request with 403, or hand it on."""
        reason = self._reason(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            plain = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": plain})
            await send({"type": "http.response.body", "body": reason.encode()})

    def _reason(self, scope: _Message) -> str:
        """Return why a request is refused; empty if it is not."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._is_local and _name_of(f"//{host}") not in LOCAL_NAMES:
            return (
                "this page is for its own machine, as 127.0.0.1 or localhost: start it with "
                "--password to show it under another name"
            )
        if scope.get("method") in _READING or _is_own(headers, host):
            return ""
        return "this request comes from another website"


def _is_own(headers: dict[bytes, str], host: str) -> bool:
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site in _OWN_SITES
    return origin is None or origin.partition("://")[2] == host


def _name_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # brackets that do not match
        return None
