"""The machine's Chromium driven by Playwright, and a record of everything that went wrong in it."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from helpers.browser import SWITCHES, _chromium
from PIL import Image


def missing_part() -> str | None:
    """What keeps a driven browser from running here; None where it can."""
    if _chromium() is None:
        return "Chromium is not installed"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install '.[dev]'"
    return None


@dataclass
class Window:
    """A page, what it complained about, and the hosts other than this machine that it asked."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        switches = [switch for switch in SWITCHES if switch != "--headless"]
        opened = driver.chromium.launch(executable_path=str(_chromium()), args=switches)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def window(opened: Any, width: int = 900, height: int = 700) -> Iterator[Window]:
    """A fresh window. A request to any other host is refused and noted."""
    context = opened.new_context(
        viewport={"width": width, "height": height}, accept_downloads=True, locale="en-GB"
    )
    context.set_default_timeout(60_000)
    shown = Window(context.new_page())

    def decide(route: Any) -> None:
        address = urlsplit(route.request.url)
        if address.scheme in ("http", "https") and address.hostname != "127.0.0.1":
            shown.foreign.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    context.route("**/*", decide)
    shown.page.on("console", lambda said: _note(shown, said.type, said.text))
    shown.page.on("pageerror", lambda error: _note(shown, "error", str(error)))
    try:
        yield shown
    finally:
        context.close()


def picture_of(element: Any) -> np.ndarray:
    """What an element shows -> (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"))


def _note(shown: Window, kind: str, text: str) -> None:
    if kind == "error":
        shown.complaints.append(text)
