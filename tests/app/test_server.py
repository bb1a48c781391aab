"""The page is safe by default: who reaches it, what can be read, and how much is taken."""

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import sleep
from urllib.parse import urlsplit

import pytest
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.utils import QueueError

from cinnema.app import patience
from cinnema.app.limits import Limits
from cinnema.app.server import Running, serving
from cinnema.app.sessions import Sessions
from cinnema.app.studio import Studio
from cinnema.core.errors import UserError
from cinnema.synthesis.pipeline import Pipeline
from visitor import LIMITS, WISH

HALF_A_HEADER = b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999\r\n"
WHOLE_REQUEST = b"GET /favicon.ico HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def running(nature: Pipeline) -> Iterator[Running]:
    with serving(nature, limits=LIMITS) as page:
        yield page


@pytest.fixture
def coast_file(picture_at: Callable[..., Path], tmp_path: Path) -> Path:
    return picture_at(tmp_path / "coast.png")


def status_of(
    url: str,
    *,
    data: bytes | None = None,
    kind: str = "application/json",
    **headers: str,
) -> int:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=data, headers={"Content-Type": kind, **names})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


def sent_as_upload(
    url: str, content: bytes, *, name: bytes = b"a.png", **headers: str
) -> tuple[int, list[str]]:
    body = (
        b'--cut\r\nContent-Disposition: form-data; name="files"; filename="' + name + b'"\r\n'
        b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--cut--\r\n"
    )
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = "multipart/form-data; boundary=cut"
    request = urllib.request.Request(
        f"{url}gradio_api/upload", data=body, headers={"Content-Type": kind, **names}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, []


def test_the_page_listens_to_this_machine_alone(running: Running) -> None:
    assert running.url.startswith("http://127.0.0.1:")
    assert running.shared is None
    assert status_of(running.url) == 200


@pytest.mark.parametrize("options", [{"share": True}, {"host": "0.0.0.0"}, {"host": "192.0.2.1"}])
def test_others_reach_it_only_with_a_password(nature: Pipeline, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="without a password"), serving(nature, **options):  # type: ignore[arg-type]
        pass


def test_with_a_password_nothing_is_shown_without_it(nature: Pipeline, coast_file: Path) -> None:
    with serving(nature, limits=LIMITS, password="a secret") as page:
        assert status_of(f"{page.url}config") == 401
        assert sent_as_upload(page.url, coast_file.read_bytes())[0] == 401
        Client(page.url, auth=("cinnema", "a secret"), verbose=False)
        with pytest.raises(Exception, match=r"(?i)login|credentials|auth"):
            Client(page.url, auth=("cinnema", "a guess"), verbose=False)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/../etc/passwd", "~/.bashrc", "//etc/passwd"])
def test_files_outside_its_folder_cannot_be_read(running: Running, path: str) -> None:
    assert status_of(f"{running.url}gradio_api/file={path}") in (403, 404)


def test_the_source_and_the_weights_cannot_be_read(running: Running) -> None:
    import cinnema

    package = Path(cinnema.__file__).parent
    for path in (package / "__init__.py", package / "weights" / "landscape.safetensors"):
        assert path.exists()
        assert status_of(f"{running.url}gradio_api/file={path}") in (403, 404)


EVIL = "https://evil.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site", "Origin": EVIL},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1:1"},  # another local server
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Host": "["},
        {"Host": "evil.example"},  # whose name has got this machine's address
    ],
    ids=str,
)
def test_other_websites_can_neither_upload_nor_ask_for_videos(
    running: Running, headers: dict[str, str]
) -> None:
    before = sorted(Path(running.sessions.folder).rglob("*"))
    assert sent_as_upload(running.url, b"content", **headers) == (403, [])
    for kind in ("application/json", "text/plain"):
        asked = {"data": b"{}", "kind": kind, **headers}
        assert status_of(f"{running.url}gradio_api/queue/join", **asked) == 403
    assert sorted(Path(running.sessions.folder).rglob("*")) == before
    own = {"Sec_Fetch_Site": "same-origin", "Origin": running.url.rstrip("/")}
    assert sent_as_upload(running.url, b"content", **own)[0] == 200


@pytest.mark.parametrize(
    "name", [b"../../../evil.png", b"/etc/evil.png", b"..\\evil.png", b"a" * 400]
)
def test_an_upload_stays_in_its_folder_whatever_its_name_is(running: Running, name: bytes) -> None:
    code, stored = sent_as_upload(running.url, b"content", name=name)
    folder = Path(running.sessions.folder).resolve()
    assert code == 200
    assert all(Path(path).resolve().is_relative_to(folder) for path in stored)


@pytest.mark.parametrize(
    "start",
    [b"", HALF_A_HEADER, HALF_A_HEADER + b"\r\n\r\nhalf", WHOLE_REQUEST + HALF_A_HEADER],
    ids=["nothing", "half a header", "half a body", "half a second header"],
)
def test_a_request_that_comes_a_byte_at_a_time_is_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(patience, "SECONDS", 0.2)
    monkeypatch.setattr(patience, "BYTES_PER_SECOND", 100_000)
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        client.sendall(start)
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                client.sendall(b"a")
                sleep(0.02)


def test_an_answer_may_take_its_time(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SECONDS", 0.05)
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(b"GET /gradio_api/heartbeat/me HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):  # it is still open
            while client.recv(1000):
                pass


def test_slow_clients_do_not_keep_others_from_the_page(running: Running) -> None:
    address = urlsplit(running.url)
    with ExitStack() as stack:
        for end in 30 * (b"", b"\r\n\r\nhalf"):  # half a header, half a body
            client = socket.create_connection((address.hostname, address.port))
            stack.enter_context(client).sendall(HALF_A_HEADER + end)
        assert status_of(running.url) == 200


@contextmanager
def website(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder, and yield its address and a list of what was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def told_of(url: str, path: str, *, function: int, visitor: str = "somebody") -> str:
    """Ask for the futures of a picture by its path on the server; return all that is answered."""
    by_name = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [by_name, *WISH], "session_hash": visitor, "fn_index": function}
    status_of(f"{url}gradio_api/queue/join", data=json.dumps(body).encode())
    with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash={visitor}") as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def drawing(running: Running) -> int:
    """The number of the function that draws futures."""
    with urllib.request.urlopen(f"{running.url}config") as answer:
        functions = json.loads(answer.read())["dependencies"]
    return next(int(one["id"]) for one in functions if one["api_name"] == "draw")


def test_a_picture_that_was_not_uploaded_is_not_opened(
    running: Running, drawing: int, coast_file: Path
) -> None:
    """The path of a file on the server is no upload, nor is an address."""
    with website(coast_file.parent) as (address, asked):
        for path in (str(coast_file), f"{address}/coast.png"):
            told = told_of(running.url, path, function=drawing)
            assert '"success":false' in told
            assert "video/mp4" not in told
        assert asked == []


def test_too_large_an_upload_is_refused_before_it_is_stored(running: Running) -> None:
    code, stored = sent_as_upload(running.url, bytes(2_200_000))
    assert code == 413
    assert stored == []
    code, stored = sent_as_upload(running.url, bytes(1000))
    assert code == 200
    assert len(stored) == 1


def client_of(url: str) -> Client:
    return Client(url, verbose=False, httpx_kwargs={"timeout": 300})  # other programs compute, too


def draw(url: str, path: Path) -> int:
    """Return the number of different videos that the page shows for a picture."""
    job = client_of(url).submit(handle_file(str(path)), *WISH, api_name="/draw")
    job.result(timeout=300)
    values = (str(value) for update in job.outputs() for value in update)
    return len({value for value in values if "data:video/mp4" in value})


def test_twenty_at_once_are_all_answered(
    running: Running,
    drawing: int,
    nature: Pipeline,
    coast_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos = nature.animate(coast_file, num_samples=4, num_frames=2)  # of all visitors: it is cheap
    monkeypatch.setattr(Studio, "previews", lambda *_: iter(videos))
    _, (path,) = sent_as_upload(running.url, coast_file.read_bytes())
    ask = partial(told_of, running.url, path, function=drawing)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: ask(visitor=f"visitor{n}"), range(20)))
    for told in answers:
        assert len(set(re.findall('data:video/mp4;base64,[^"]*', told))) == 4, told[-300:]


def test_a_longer_queue_than_is_allowed_is_refused(nature: Pipeline, coast_file: Path) -> None:
    limits = Limits(max_queue=1, max_seconds=4)
    with serving(nature, limits=limits) as page:
        clients = [client_of(page.url) for _ in range(5)]
        wish = (WISH[0], 4.0, *WISH[2:])
        jobs = [
            client.submit(handle_file(str(coast_file)), *wish, api_name="/draw")
            for client in clients
        ]
        outcomes = [_outcome(job) for job in jobs]
    assert "answered" in outcomes
    assert any("queue is full" in outcome.lower() for outcome in outcomes), outcomes


def _outcome(job: Job) -> str:
    try:
        job.result(timeout=120)
    except QueueError as error:
        return str(error)
    return "answered"


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ("landscape", {"editor", "direction", "example-video"}),
        ("robot", {"editor"}),
        ("person", set()),
    ],
)
def test_the_page_offers_what_the_weights_can_do(
    tmp_path: Path, weights: str, parts: set[str]
) -> None:
    from cinnema.app.page import Page

    studio = Studio(Pipeline.from_pretrained(weights), LIMITS)
    page = Page(studio, Sessions(tmp_path, most=1)).build()
    shown = {component["props"].get("elem_id") for component in page.config["components"]}
    assert shown & {"editor", "direction", "example-video"} == parts
    assert {"tile0", "tile3", "transfer", "between", "files", "stop"} <= shown


def test_files_are_gone_when_the_page_ends(nature: Pipeline, coast_file: Path) -> None:
    with serving(nature, limits=LIMITS) as page:
        draw(page.url, coast_file)
        (key,) = page.sessions.keys()
        folder = page.sessions.get(key).folder
        assert folder.is_dir()
    assert not folder.parent.exists()


def test_a_port_that_is_taken_is_told(nature: Pipeline, running: Running) -> None:
    port = int(running.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(UserError, match=f"port {port} cannot be used"), serving(nature, port=port):
        pass
