"""The real Cog HTTP server in a child process, and a client for it.

As in an image: `python -m cog.server.http` in a folder with `predict.py` and
`.cog/openapi_schema.json`, one prediction at a time. Its temporary files go to a folder of the
test, so that what it leaves behind can be counted.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.cog_schema import ROOT

SETUP_SECONDS = 120  # with an empty kernel cache; otherwise about two


@dataclass(frozen=True)
class Answer:
    """Status code and JSON of one request; None where the body is no JSON."""

    code: int
    body: Any

    @property
    def error(self) -> str:
        """What the user reads about a failed prediction, after Cog's own words and the class."""
        assert self.code == 200, self
        assert self.body["status"] == "failed", self.body["status"]
        return self.body["error"]


class CogServer:
    """Started on construction; use as a context manager, which stops it with SIGTERM."""

    def __init__(
        self, folder: Path, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
    ):
        """folder: takes the log and, in `tmp`, the server's temporary files."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tmp = folder / "tmp"
        self.tmp.mkdir(exist_ok=True)
        self.port = _free_port()
        self._log_file = folder / "server.log"
        binaries = Path(sys.executable).parent  # the worker is started as plain `python`
        environment = {
            **os.environ,
            **(environment or {}),
            "PORT": str(self.port),
            "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.tmp),
        }
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"],
                cwd=cwd,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> CogServer:
        try:
            self.wait_until("READY", SETUP_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def wait_until(self, status: str, seconds: float = 10) -> None:
        """Wait for this health; fails at once when the setup has failed."""
        deadline, found = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log}")
            try:
                health = self.request("GET", "/health-check").body
            except OSError:
                health = {"status": "not listening"}
            found = health["status"]
            if found == status:
                return
            if found == "SETUP_FAILED":
                raise AssertionError(f"setup failed: {health['setup']}\n{self.log}")
            time.sleep(0.02)
        raise AssertionError(f"health is {found}, not {status}, after {seconds} s\n{self.log}")

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """body: bytes as they are, anything else as JSON."""
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            return Answer(response.status, json.loads(text))
        except ValueError:
            return Answer(response.status, None)

    def predict(self, image: Any, **options: Any) -> Answer:
        """One synchronous prediction; waits before for the end of the last one."""
        self.wait_until("READY")
        return self.request("POST", "/predictions", {"input": {"image": image, **options}})

    def start(self, identifier: str, image: str, **options: Any) -> Answer:
        """A prediction that is answered at once, with 202, and runs on."""
        self.wait_until("READY")
        return self.request(
            "POST",
            "/predictions",
            {"id": identifier, "input": {"image": image, **options}},
            {"Prefer": "respond-async"},
        )

    def cancel(self, identifier: str) -> Answer:
        return self.request("POST", f"/predictions/{identifier}/cancel")

    def stop(self, seconds: float = 20) -> None:
        """End it as a container is ended, and wait for the end of all its processes."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the server and its worker at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def data_url(content: bytes, kind: str = "image/png") -> str:
    """The content as the client sends a picture: inline."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def decode_data_url(url: str) -> tuple[str, bytes]:
    """-> the kind (image/png, ...) and the content."""
    head, _, content = url.partition(",")
    assert head.startswith("data:") and head.endswith(";base64"), head
    return head.removeprefix("data:").removesuffix(";base64"), base64.b64decode(content)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
