"""Real services for all tests of this folder; a start takes seconds, most of it the worker's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.rest_server import ROOT, RestServer

FAULTY = ROOT / "tests" / "helpers" / "faulty_service.py"


class FaultyServer(RestServer):
    """A service whose worker does what `fault` says, and whose clock is wrong by `clock`."""

    def __init__(self, folder: Path, settings: dict | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self._fault, self._clock = folder / "fault", folder / "clock"
        self.fault()
        self.clock(0)
        command = [sys.executable, str(FAULTY), str(self._fault), str(self._clock)]
        super().__init__(folder, settings, command, {"PYTHONPATH": str(ROOT)})

    def fault(self, what: str = "") -> None:
        self._fault.write_text(what)

    def clock(self, seconds: float) -> None:
        self._clock.write_text(str(seconds))


@pytest.fixture(scope="session")
def start_faulty() -> type[FaultyServer]:
    return FaultyServer


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RestServer]]:
    """All of them, started side by side."""
    folder = tmp_path_factory.mktemp("services")
    (folder / "keys").write_text("second-key\nthird-key\n")
    strict = {
        "api_keys": "first-key",
        "api_keys_file": folder / "keys",
        "cors_origins": "https://shop.example",
        "upload_mb": 0.2,
        "ttl": 3,
        "quota_gb": 0.000_05,
    }
    running = {
        "plain": RestServer(folder / "plain", {"queue": 3}),
        "strict": RestServer(folder / "strict", strict),
        "faulty": FaultyServer(folder / "faulty", {"ttl": 3, "job_seconds": 6}),
    }
    try:
        for server in running.values():
            server.wait_until("healthy")
        yield running
    finally:
        for server in running.values():
            server.stop()


@pytest.fixture(scope="session")
def service(services: dict[str, RestServer]) -> RestServer:
    """The service as it starts by default, with a short queue."""
    return services["plain"]


@pytest.fixture(scope="session")
def strict_service(services: dict[str, RestServer]) -> RestServer:
    """With keys, one web origin, small uploads, a short life of jobs and a small quota."""
    return services["strict"]


@pytest.fixture
def faulty_service(services: dict[str, RestServer]) -> Iterator[FaultyServer]:
    """Its worker and clock are sound before and after each test."""
    yield services["faulty"]
    services["faulty"].fault()
    services["faulty"].clock(0)
