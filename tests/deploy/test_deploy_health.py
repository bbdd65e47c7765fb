"""The health check of compose.yaml and of the Kubernetes manifest, against the real Cog server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("cog")

from helpers.cog_schema import ROOT  # noqa: E402
from helpers.cog_server import CogServer  # noqa: E402

PREDICTOR = """
import time
from cog import BasePredictor, Input

class Predictor(BasePredictor):
    def setup(self):
        time.sleep({seconds})
        {then}

    def predict(self, seconds: float = Input(description="how long", default=0)) -> str:
        time.sleep(seconds)
        return "done"
"""


def compose_check() -> list[str]:
    """The command of compose.yaml after "CMD", for this Python."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["onelook"]
    kind, python, *rest = service["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python")
    return rest


def probe(kind: str) -> list[str]:
    """The command of a probe of the Kubernetes manifest, for this Python."""
    documents = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    container = next(documents)["spec"]["template"]["spec"]["containers"][0]
    python, *rest = container[f"{kind}Probe"]["exec"]["command"]
    assert python == "python"
    return rest


def check(server: CogServer, command: list[str]) -> tuple[int, str]:
    """Run a health check as in the server's container -> exit code and what it printed.

    The server's process takes the place of the container's process 1.
    """
    ending = ["--process", str(server.process.pid)] if "--end" in command else []
    done = subprocess.run(
        [sys.executable, *command, *ending],
        cwd=ROOT,
        env={**os.environ, "PORT": str(server.port)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


@contextlib.contextmanager
def cog(folder: Path, seconds: float = 0, then: str = "") -> Iterator[CogServer]:
    """A Cog server with a small predictor, not waited for."""
    folder.mkdir(exist_ok=True)
    (folder / "predict.py").write_text(PREDICTOR.format(seconds=seconds, then=then or "pass"))
    server = CogServer(folder / "server", cwd=folder)
    try:
        yield server
    finally:
        server.kill()


def wait_for(server: CogServer, status: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while check(server, ["-m", "onelook.healthcheck"])[1] != status:
        assert time.monotonic() < deadline, f"never {status}\n{server.log}"
        time.sleep(0.05)


def worker_of(server: CogServer) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    own = [int(child) for child in children.split()]
    if not own:  # started by a thread
        for task in Path(f"/proc/{server.process.pid}/task").iterdir():
            own += [int(child) for child in (task / "children").read_text().split()]
    return own[0]


def test_a_working_server_is_well_while_it_loads_waits_and_works(tmp_path):
    with cog(tmp_path / "slow", seconds=3) as server:
        wait_for(server, "STARTING")
        assert check(server, compose_check()) == (1, "STARTING")
        assert check(server, probe("startup")) == (1, "STARTING")
        assert check(server, probe("liveness")) == (0, "STARTING")
        server.wait_until("READY", 30)
        for command in (compose_check(), probe("startup"), probe("liveness"), probe("readiness")):
            assert check(server, command) == (0, "READY")
        server.request(
            "POST", "/predictions", {"input": {"seconds": 3}}, {"Prefer": "respond-async"}
        )
        assert check(server, compose_check()) == (0, "BUSY")
        assert check(server, probe("liveness")) == (0, "BUSY")
        assert server.process.poll() is None


def test_a_failed_setup_ends_the_container(tmp_path):
    with cog(tmp_path / "failing", then="raise ValueError('no weights')") as server:
        wait_for(server, "SETUP_FAILED")
        assert check(server, probe("liveness")) == (1, "SETUP_FAILED")
        assert server.process.poll() is None, "Cog itself stays up"
        assert check(server, compose_check()) == (1, "SETUP_FAILED")
        server.process.wait(15)


def test_a_lost_worker_ends_the_container(tmp_path):
    with cog(tmp_path / "killed") as server:
        server.wait_until("READY", 30)
        os.kill(worker_of(server), signal.SIGKILL)
        wait_for(server, "UNHEALTHY")
        assert check(server, probe("readiness")) == (1, "UNHEALTHY")
        assert server.process.poll() is None, "Cog itself stays up"
        assert check(server, compose_check()) == (1, "UNHEALTHY")
        server.process.wait(15)
        assert check(server, ["-m", "onelook.healthcheck", "--alive"]) == (1, "NO ANSWER")
