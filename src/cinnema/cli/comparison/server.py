"""Web server of the page and its videos, for browsers on this machine only."""

import json
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, get_args

from cinnema.cli.comparison.answers import AnswerFile
from cinnema.cli.comparison.pairs import MIME_TYPES, Side, Trial
from cinnema.core.errors import UserError

_HOST = "127.0.0.1"
_MOST_BYTES = 1000  # of a request
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob:; media-src blob:"
)


class Refusal(Exception):  # noqa: N818 - a response, not an error of this program
    """A request that is answered by an HTTP error."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class ComparisonServer(ThreadingHTTPServer):
    """Web server that shows trials one after the other and records the answers.

    The addresses of videos are numbers and sides, which do not reveal the set.

    Args:
        trials: Trials in the order in which they are shown.
        answers: Answers to these trials.
        question: The question that is asked.
        port: Port to listen at; 0 takes a free one.

    Raises:
        UserError: The port is in use or not allowed.

    Example:
        >>> with ComparisonServer(trials, answers, question="Which is sharper?") as server:
        ...     print(server.url)
        ...     server.serve_forever()
    """

    daemon_threads = True

    def __init__(
        self, trials: Sequence[Trial], answers: AnswerFile, *, question: str, port: int = 0
    ) -> None:
        self._trials, self._answers, self._question = tuple(trials), answers, question
        self._lock = threading.Lock()
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} cannot be used ({error}): choose another one, or leave --port out "
                "for a free one"
            ) from None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{_HOST}:{self.server_port}/"

    def state(self) -> dict[str, Any]:
        """Return what the page shows next; the folders only once all trials are answered."""
        with self._lock:
            return self._state()

    def answer(self, trial: int, side: Side, *, milliseconds: int) -> dict[str, Any]:
        """Record an answer and return the new state.

        Args:
            trial: Number of the trial; has to be the current one.
            side: The chosen side.
            milliseconds: Time that the answer took.

        Raises:
            Refusal: The trial is not the current one.
            UserError: The answer cannot be written.
        """
        with self._lock:
            if trial != self._answers.current:
                raise Refusal(HTTPStatus.CONFLICT, "that pair is not the current one")
            self._answers.append(side, milliseconds=milliseconds)
            return self._state()

    def undo(self) -> dict[str, Any]:
        """Remove the last answer and return the new state.

        Raises:
            Refusal: There is no answer.
            UserError: The file cannot be written.
        """
        with self._lock:
            if not self._answers.answers:
                raise Refusal(HTTPStatus.CONFLICT, "there is no answer to take back")
            self._answers.undo()
            return self._state()

    def video(self, trial: int, side: Side) -> tuple[str, bytes]:
        """Return the type and the content of a video."""
        path = self._trials[trial].clip(side).path
        return MIME_TYPES[path.suffix.lower()], path.read_bytes()

    def _state(self) -> dict[str, Any]:
        current = self._answers.current
        state: dict[str, Any] = {
            "question": self._question,
            "total": len(self._trials),
            "answered": len(self._answers.answers),
            "trial": current,
        }
        if current is None:
            summary = self._answers.summary()
            share = summary.share
            state["summary"] = {
                "a": summary.a, "b": summary.b, "left": summary.left, "chosen": share.chosen,
                "total": share.total, "value": share.value, "low": share.low,
                "high": share.high, "p": share.p,
            }  # fmt: skip
        return state


class _Handler(BaseHTTPRequestHandler):
    server: ComparisonServer
    server_version, sys_version = "cinnema", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page, the state or a video."""
        self._respond(self._get)

    def do_POST(self) -> None:
        """Record an answer, or remove the last."""
        self._respond(self._post)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name in the base class
        """Print nothing."""

    def _get(self) -> tuple[str, bytes]:
        match self.path.strip("/").split("/"):
            case [""]:
                page = files(__package__) / "page.html"
                return "text/html; charset=utf-8", page.read_bytes()
            case ["state"]:
                return _json(self.server.state())
            case ["video", trial, side] if trial.isdecimal():
                return self._video(int(trial), side)
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")

    def _video(self, trial: int, side: str) -> tuple[str, bytes]:
        try:
            return self.server.video(trial, _side(side))
        except IndexError:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such pair") from None
        except OSError:
            raise Refusal(HTTPStatus.NOT_FOUND, "the video is no longer there") from None

    def _post(self) -> tuple[str, bytes]:
        values = self._received()
        if self.path == "/undo":
            return _json(self.server.undo())
        if self.path != "/answer":
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
        trial, milliseconds = values.get("trial"), values.get("milliseconds")
        if not isinstance(trial, int) or not isinstance(milliseconds, int):
            raise Refusal(HTTPStatus.BAD_REQUEST, "trial and milliseconds must be whole numbers")
        side = _side(values.get("chosen"))
        return _json(self.server.answer(trial, side, milliseconds=milliseconds))

    def _received(self) -> dict[str, Any]:
        """Return the JSON object of the request."""
        length = self.headers.get("Content-Length", "")
        # Pages of other sites cannot send this type without a preflight request.
        is_json = self.headers.get("Content-Type") == "application/json"
        if not is_json or not length.isdecimal() or int(length) > _MOST_BYTES:
            self.close_connection = True  # the body is not read
            raise Refusal(HTTPStatus.BAD_REQUEST, "send a small JSON object")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise Refusal(HTTPStatus.BAD_REQUEST, "send a small JSON object")
        return values

    def _respond(self, method: Callable[[], tuple[str, bytes]]) -> None:
        try:
            self._check_host()
            kind, content = method()
            status = HTTPStatus.OK
        except Refusal as refusal:
            (kind, content), status = _json({"error": str(refusal)}), refusal.status
        except UserError as error:
            kind, content = _json({"error": str(error)})
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        with suppress(ConnectionError):  # the browser has closed the connection
            self._send(status, kind, content)

    def _check_host(self) -> None:
        """Refuse requests under another host name (DNS rebinding)."""
        names = {f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")}
        if self.headers.get("Host") not in names:
            self.close_connection = True
            raise Refusal(HTTPStatus.FORBIDDEN, "this server is for this machine only")

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)


def _json(values: dict[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(values).encode()


def _side(value: object) -> Side:
    if value not in get_args(Side):
        raise Refusal(HTTPStatus.BAD_REQUEST, "a side is left or right")
    return "left" if value == "left" else "right"
