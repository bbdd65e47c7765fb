"""Options and fixtures that every room's tests may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.golden import GOLDEN, Case, read_case
from helpers.playwright_page import browser, missing_part


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=GOLDEN, help="folder of the recorded cases")


@pytest.fixture(scope="session")
def load_case(request: pytest.FixtureRequest) -> Callable[[str], Case]:
    """`load_case("triposr/isosurface")` -> the case under `--golden`."""
    root = request.config.getoption("--golden").resolve()
    return lambda name: read_case(name, root)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """One driven browser for every room: Playwright allows no second one in a process."""
    if why := missing_part():
        pytest.skip(why)
    with browser() as opened:
        yield opened
