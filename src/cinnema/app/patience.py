"""How long the server waits for a request that comes slowly."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 20.0
"""Time of a request to arrive, from the connection, or from its first byte on a connection that has
answered before."""

BYTES_PER_SECOND = 500
"""So many bytes give a request another second, so that large uploads have the time."""


class PatientProtocol(H11Protocol):
    """HTTP over a connection that is closed if a request, header and body, comes too slowly.

    The limits are those of Apache's `RequestReadTimeout`. Without them, whoever sends a byte now
    and then holds a connection for good, and a process may have only so many.
    """

    _deadline = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request, or several."""
        if self._timer is None:
            self._wait()
        self._deadline += len(data) / BYTES_PER_SECOND
        super().data_received(data)
        if self.cycle is not self._last and not self.cycle.more_body:
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._last = self.cycle
        self._deadline = self.loop.time() + SECONDS
        self._timer = self.loop.call_at(self._deadline, self._look)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Close the connection if the time is over."""
        if self not in self.connections:  # but a websocket's by now
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._look)
        else:
            self.transport.abort()
