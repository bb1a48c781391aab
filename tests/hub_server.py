"""A stand-in for the Hugging Face hub: the part of its HTTP interface that models go through."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_of_the_owner"


@dataclass
class Repository:
    """Files of each commit, and the commits that branches and tags are at."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, changed: dict[str, bytes], branch: str = "main") -> str:
        files = {**self.commits.get(self.refs.get(branch, ""), {}), **changed}
        name = sha1(repr([len(self.commits), sorted(files.items())]).encode()).hexdigest()
        self.commits[name] = files
        self.refs[branch] = name
        return name


@dataclass
class Hub:
    """What the server knows, and what it was asked: method and path of each request."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # large files by their hash
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, values: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(values).encode(), Content_Type="application/json")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        """Answer /owner/name/resolve/revision/file."""
        self.hub.asked.append(f"{self.command} {self.path}")
        if "/resolve/" not in self.path:
            return self.answer(404)
        owner, name, _, revision, file = unquote(self.path).lstrip("/").split("/", 4)
        repository = self.hub.repositories.get(f"{owner}/{name}")
        if repository is None or (repository.private and not self.allowed()):
            return self.answer(404, X_Error_Code="RepoNotFound")
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        content = repository.commits[commit].get(file)
        if content is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        etag = f'"{sha256(content).hexdigest()}"'
        return self.answer(200, content, ETag=etag, X_Repo_Commit=commit)

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.body()
        if not self.allowed():
            return self.answer_json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/validate-yaml":  # the front matter of a card
            return self.answer_json({"warnings": [], "errors": []})
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.path.endswith("/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        _, _, owner, name, action, branch = unquote(self.path).lstrip("/").split("/")
        repository = self.hub.repositories[f"{owner}/{name}"]
        if action == "preupload":
            return self.answer_json({"files": [modes(file) for file in json.loads(body)["files"]]})
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = repository.commit(files, branch)
        url = f"{self.hub.url}/{owner}/{name}/commit/{commit}"
        return self.answer_json({"success": True, "commitUrl": url, "commitOid": commit})

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self.answer_json({"error": "it exists", "url": url}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=private)
        self.hub.repositories[name].commit({".gitattributes": b""})
        return self.answer_json({"url": url})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {**file, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{file['oid']}"}}}
            for file in asked["objects"]
        ]
        self.answer_json({"transfer": "basic", "objects": objects})

    def do_PUT(self) -> None:
        content = self.body()
        name = sha256(content).hexdigest()
        assert self.path == f"/lfs/{name}"
        self.hub.objects[name] = content
        self.answer(200)


def modes(file: dict[str, Any]) -> dict[str, Any]:
    """Return how a file is to be uploaded: weights as large files, as on the hub."""
    is_large = file["path"].endswith(".safetensors")
    mode = "lfs" if is_large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("HandlerOfOneHub", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub, whose owner is logged in, and an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        files = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another server's protocol
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served
