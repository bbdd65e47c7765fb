"""Real services for all tests of this folder; a start takes seconds, most of it the worker's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.rest_server import FaultyServer, RestServer


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
        "url_inputs": "true",
    }
    running = {
        "plain": RestServer(folder / "plain", {"queue": 3}),
        "strict": RestServer(folder / "strict", strict),
        "faulty": FaultyServer(folder / "faulty", {"ttl": 2, "job_seconds": 3}),
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
    """Keys, one web origin, small uploads, pictures by address, short lives, a small quota."""
    return services["strict"]


@pytest.fixture
def faulty_service(services: dict[str, RestServer]) -> Iterator[FaultyServer]:
    """Its worker and clock are sound before and after each test."""
    yield services["faulty"]
    services["faulty"].fault()
    services["faulty"].clock(0)
