"""One real Cog server for all tests of this folder; its setup takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.cog_server import CogServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CogServer]:
    with CogServer(tmp_path_factory.mktemp("cog")) as running:
        yield running
