"""A hub of our own: an HTTP server with the few endpoints that the hub's client asks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "a" * 40


@dataclass
class Hub:
    """Repositories by name, and what goes wrong with them."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commit: str = COMMIT
    small: tuple[str, ...] = (".json", ".txt")  # not in large file storage: no SHA-256 is listed
    gated: set[str] = field(default_factory=set)
    token: str = "hf_good"
    cuts: dict[str, list[int]] = field(default_factory=dict)  # path -> bytes until the line drops
    damaged: set[str] = field(default_factory=set)
    ignores_ranges: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, repository: str, files: dict[str, bytes]) -> None:
        """Publish files in a repository."""
        self.repositories.setdefault(repository, {}).update(files)

    def cut(self, path: str, *after: int) -> None:
        """Drop the next connections for a file, each after so many bytes."""
        self.cuts[path] = list(after)

    def fetched(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a file's content."""
        return [byte_range for method, url, byte_range in self.requests if url.endswith(path)]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            hub.requests.append(("GET", path, self.headers.get("Range")))
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
                self._describe(*match.groups())
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._send_file(match[1], match[3], match[2] in (hub.commit, "main"))
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/releases/download/[^/]+/(.+)", path):
                assert "authorization" not in self.headers, "the hub's token left the hub"
                self._send_file(match[1], match[2], True)
            else:
                self._fail(404, "")

        def do_HEAD(self) -> None:  # what the client's own download into its cache asks
            repository, path = re.fullmatch(r"/(.+?/.+?)/resolve/[^/]+/(.+)", self.path).groups()
            content = hub.repositories[repository][path]
            self.send_response(200)
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def _describe(self, repository: str, revision: str) -> None:
            if repository not in hub.repositories:
                return self._fail(401, "RepoNotFound")
            if revision not in ("main", "v1", hub.commit):
                return self._fail(404, "RevisionNotFound")
            siblings = []
            for path, content in hub.repositories[repository].items():
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                entry = {"rfilename": path, "size": len(content), "blobId": blob}
                if not path.endswith(hub.small):
                    sha256 = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
                siblings.append(entry)
            answer = {"id": repository, "sha": hub.commit, "siblings": siblings}
            self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _send_file(self, repository: str, path: str, exists: bool) -> None:
            allowed = self.headers.get("authorization") == f"Bearer {hub.token}"
            if repository in hub.gated and not allowed:
                return self._fail(403, "GatedRepo")
            content = hub.repositories.get(repository, {}).get(path)
            if content is None or not exists:
                return self._fail(404, "EntryNotFound")
            if path in hub.damaged:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start = 0
            if (wanted := self.headers.get("Range")) and not hub.ignores_ranges:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start and start >= len(content):
                return self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            body = content[start:]
            cuts = hub.cuts.get(path)
            end = cuts.pop(0) if cuts else None
            self._answer(206 if start else 200, body, headers if start else {}, end)

        def _answer(self, status, body, headers, end=None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:end])
            if end is not None:
                self.wfile.flush()
                self.close_connection = True

        def _fail(self, status: int, code: str) -> None:
            self._answer(status, b"", {"X-Error-Code": code} if code else {})

        def log_message(self, *args) -> None:
            pass

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, named to the client by `HF_ENDPOINT`."""
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setattr("onelook.weights.hub.GITHUB", state.url)
    monkeypatch.setattr("onelook.weights.download.RETRY_SECONDS", (0.01, 0.01))
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder and an empty hub cache; no place named by the environment."""
    for name in os.environ:
        if name.startswith(("ONELOOK_", "HF_", "HUGGINGFACE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ONELOOK_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is logged in, whatever this machine's own configuration says."""
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
