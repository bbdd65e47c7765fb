"""The real REST service in a process of its own, and a plain client for it.

`uvicorn api:app`, set up by environment variables as an operator would. Its files go to a folder of
the test, so that what it leaves behind can be counted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
_FAULTY = Path(__file__).parent / "faulty_service.py"
CREATE = "/api/v1/image-to-3d"
ASYNC = {"Prefer": "respond-async"}
SMALL = {"decimation_target": 1000, "texture_size": 256, "generate_video": False}
CUT_OUT_ONLY = {"generate_model": False, "generate_video": False, "return_no_background": True}
LARGE = {"decimation_target": 2000000, "texture_size": 8192}  # many seconds


@dataclass(frozen=True)
class Answer:
    code: int
    headers: Mapping[str, str]  # names in lower case
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class RestServer:
    """Started on construction; use as a context manager, which stops it with SIGTERM."""

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any] | None = None,
        command: list[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        """folder: takes the log and, in `storage`, the service's files. settings: by their names.
        command: another program instead of uvicorn; it gets the port as its last argument.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.storage = folder / "storage"
        self._log_file = folder / "service.log"
        given = {"storage": self.storage, "drain_seconds": 5} | dict(settings or {})
        given = {f"ONELOOK_SERVE_{name.upper()}": str(value) for name, value in given.items()}
        command = command or [sys.executable, "-m", "uvicorn", "api:app", "--port"]
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, str(self.port)],
                cwd=ROOT,
                env={**os.environ, **given, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> RestServer:
        try:
            self.wait_until("healthy")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        """The service's own lines; uvicorn's first two come before it has a say."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def files(self) -> list[str]:
        """Every file and folder below the service's own folder in its storage."""
        (scratch,) = self.storage.iterdir()
        return sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*"))

    def wait_for_no_files(self, of: str = "", seconds: float = 5) -> None:
        """Until nothing is there any more, or nothing of this job."""
        deadline = time.monotonic() + seconds
        while left := [name for name in self.files() if name.startswith(of)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.02)

    def worker_pid(self) -> int:
        """Of the worker that became ready last."""
        ready = [line for line in self.log_lines if line["event"] == "worker ready"]
        return ready[-1]["pid"]

    def health(self) -> dict[str, Any]:
        return self.request("GET", "/health").body

    def wait_until(self, status: str, seconds: float = 60) -> None:
        deadline, found = time.monotonic() + seconds, None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended:\n{self.log}")
            with contextlib.suppress(OSError):
                found = self.health()["status"]
            if found == status:
                return
            time.sleep(0.02)
        raise AssertionError(f"health is {found}, not {status}, after {seconds} s\n{self.log}")

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The path is sent as it stands, without any clean-up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def create(
        self, picture: bytes, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        """POST a picture with options."""
        body, kind = form(picture, **options)
        return self.request("POST", CREATE, body, {"Content-Type": kind, **(headers or {})})

    def start(self, picture: bytes, **options: Any) -> str:
        """-> the id of a job that is answered at once."""
        answer = self.create(picture, ASYNC, **options)
        assert answer.code == 202, answer
        return answer.body["job_id"]

    def job(self, identifier: str) -> dict[str, Any]:
        answer = self.request("GET", f"/api/v1/jobs/{identifier}")
        assert answer.code == 200, answer
        return answer.body

    def wait_for(self, identifier: str, *states: str, seconds: float = 60) -> dict[str, Any]:
        """The job, once it is in one of these states (default: over)."""
        states = states or ("succeeded", "failed", "canceled")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.job(identifier)
            if job["status"] in states:
                return job
            time.sleep(0.03)
        raise AssertionError(f"{job['status']}, not {states}, after {seconds} s: {job}")

    def wait_for_stage(self, identifier: str, stage: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.job(identifier)
            if job["stage"] == stage:
                return
            assert job["status"] in ("queued", "processing"), job
            time.sleep(0.01)
        raise AssertionError(f"no {stage} after {seconds} s: {job}")

    def events(self, identifier: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Server-sent events: name and data of each, to the end of the stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", f"/api/v1/jobs/{identifier}/events")
        response, name = connection.getresponse(), ""
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response:
            kind, _, value = line.decode().strip().partition(": ")
            if kind == "event":
                name = value
            elif kind == "data":
                yield name, json.loads(value)
        connection.close()

    def stop(self, seconds: float = 20) -> int:
        """End it as a container is ended; -> its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class FaultyServer(RestServer):
    """Its worker does what `fault` says, its clock is wrong by `clock`: see faulty_service.py."""

    def __init__(self, folder: Path, settings: dict | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self._fault, self._clock = folder / "fault", folder / "clock"
        self.fault()
        self.clock(0)
        command = [sys.executable, str(_FAULTY), str(self._fault), str(self._clock)]
        super().__init__(folder, settings, command, {"PYTHONPATH": str(ROOT)})

    def fault(self, what: str = "") -> None:
        self._fault.write_text(what)

    def clock(self, seconds: float) -> None:
        self._clock.write_text(str(seconds))


def form(picture: bytes | None, **options: Any) -> tuple[bytes, str]:
    """A multipart form -> its body and content type."""
    mark = secrets.token_hex(16)
    parts = []
    for name, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(head.encode() + text.encode() + b"\r\n")
    if picture is not None:
        parts.append(file_part(mark, "image", picture))
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def file_part(mark: str, name: str, content: bytes) -> bytes:
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="picture.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + content + b"\r\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
