"""The page is safe by default: who reaches it, what can be read, and how much is taken."""

import json
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
from urllib.parse import urlsplit

import pytest
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.utils import QueueError

from cinnema.app.limits import Limits
from cinnema.app.server import Running, serving
from cinnema.app.sessions import Sessions
from cinnema.app.studio import Studio
from cinnema.core.errors import UserError
from cinnema.synthesis.pipeline import Pipeline
from visitor import LIMITS, WISH


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


def test_slow_clients_do_not_keep_others_from_the_page(running: Running) -> None:
    address = urlsplit(running.url)
    start = b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n"
    with ExitStack() as stack:
        for end in 30 * (b"", b"\r\n\r\nhalf"):  # half a header, half a body
            client = socket.create_connection((address.hostname, address.port))
            stack.enter_context(client).sendall(start + end)
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


def told_of(url: str, path: str) -> str:
    """Ask for the futures of a picture by its path, as no browser would."""
    by_name = {"path": path, "meta": {"_type": "gradio.FileData"}}
    function = _draw(Client(url, verbose=False))
    body = {"data": [by_name, *WISH], "session_hash": "somebody", "fn_index": function}
    status_of(f"{url}gradio_api/queue/join", data=json.dumps(body).encode())
    with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash=somebody") as answer:
        return str(answer.read().decode())


def test_a_picture_that_was_not_uploaded_is_not_opened(running: Running, coast_file: Path) -> None:
    """The path of a file on the server is no upload, nor is an address."""
    with website(coast_file.parent) as (address, asked):
        for path in (str(coast_file), f"{address}/coast.png"):
            told = told_of(running.url, path)
            assert '"success":false' in told
            assert "video/mp4" not in told
        assert asked == []


def _draw(client: Client) -> int:
    return next(
        int(dependency["id"])
        for dependency in client.config["dependencies"]
        if dependency["api_name"] == "draw"
    )


def test_too_large_an_upload_is_refused_before_it_is_stored(running: Running) -> None:
    code, stored = sent_as_upload(running.url, bytes(2_200_000))
    assert code == 413
    assert stored == []
    code, stored = sent_as_upload(running.url, bytes(1000))
    assert code == 200
    assert len(stored) == 1


def draw(url: str, path: Path) -> int:
    """Return the number of different videos that the page shows for a picture."""
    job = Client(url, verbose=False).submit(handle_file(str(path)), *WISH, api_name="/draw")
    job.result(timeout=300)
    values = (str(value) for update in job.outputs() for value in update)
    return len({value for value in values if "data:video/mp4" in value})


def test_many_at_once_are_all_answered(running: Running, coast_file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: draw(running.url, coast_file), range(8)))
    assert answers == [4] * 8


def test_a_longer_queue_than_is_allowed_is_refused(nature: Pipeline, coast_file: Path) -> None:
    limits = Limits(max_queue=1, max_seconds=4)
    with serving(nature, limits=limits) as page:
        clients = [Client(page.url, verbose=False) for _ in range(5)]
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
