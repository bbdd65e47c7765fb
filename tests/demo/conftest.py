"""The real demo page, the real service for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.demo_server import DemoServer, demo_server
from helpers.rest_server import RestServer

KEY = "a-long-test-key"


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[DemoServer]:
    """`python demo.py`; whatever was done to it, it leaves nothing behind, and no run broke."""
    pytest.importorskip("gradio")
    with demo_server(tmp_path_factory.mktemp("demo"), "--device", "cpu") as running:
        yield running
    assert list(running.tmp.glob("onelook-*")) == [], "scratch was left behind"
    assert "a run broke" not in running.log, running.log


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[str]:
    """The address of a service that asks for KEY."""
    pytest.importorskip("fastapi")
    with RestServer(tmp_path_factory.mktemp("service"), {"api_keys": KEY}) as running:
        yield f"http://127.0.0.1:{running.port}"
