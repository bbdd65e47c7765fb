"""The real demo page in a child process, its files in a folder of the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.cog_schema import ROOT


@dataclass(frozen=True)
class DemoServer:
    """Where it answers, and the folder that holds its temporary files."""

    address: str
    tmp: Path
    log_file: Path
    process: subprocess.Popen

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def visitors(self) -> list[Path]:
        """The folders of the visitors that are there."""
        return sorted(self.tmp.glob("onelook-scratch-*/visitors/*"))

    def uploads(self) -> list[Path]:
        return [path for path in self.tmp.glob("onelook-scratch-*/uploads/*/*") if path.is_file()]

    def stop(self, seconds: float = 20) -> None:
        """End it as a container is ended."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@contextmanager
def demo_server(folder: Path, *arguments: str, seconds: float = 90) -> Iterator[DemoServer]:
    """`python demo.py`, ready to be asked."""
    tmp = folder / "tmp"
    tmp.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_file = folder / "demo.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "demo.py", "--port", str(port), *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = DemoServer(f"http://127.0.0.1:{port}/", tmp, log_file, process)
    try:
        _wait_for(server, seconds)
        yield server
    finally:
        server.stop()


def _wait_for(server: DemoServer, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log
        with contextlib.suppress(OSError), urllib.request.urlopen(server.address, timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(f"the page does not answer after {seconds} s\n{server.log}")
