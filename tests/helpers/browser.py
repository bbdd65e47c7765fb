"""A headless Chromium that shows the project's files in `<model-viewer>` and tells what it saw.

The page reports by itself: it loads every file, then posts its findings to the local server that it
came from. Nothing outside this machine is asked.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlencode, urlsplit

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = Path(__file__).with_name("viewer.html")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",  # WebGL in software
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=800,600",
)


def missing_part() -> str | None:
    """What keeps a browser test from running here; None where it can."""
    if _chromium() is None:
        return "Chromium is not installed"
    for package in ("@google/model-viewer", "three"):
        if not (REPOSITORY / "node_modules" / package).is_dir():
            return f"{package} is not installed (npm install)"
    return None


def look_at(folder: Path, models: list[str], videos: list[str], seconds: float = 120) -> dict:
    """Show files of `folder` -> {"models": {name: ...}, "videos": {name: ...}, "errors": [...]}."""
    answers: queue.Queue[dict] = queue.Queue()
    handler = type("Handler", (_Handler,), {"folder": folder, "answers": answers})
    query = urlencode([*(("model", n) for n in models), *(("video", n) for n in videos)])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/?{query}"
        profile = folder / "chromium"
        profile.mkdir()
        with (folder / "chromium.log").open("wb") as log:
            browser = subprocess.Popen(
                [str(_chromium()), *SWITCHES, f"--user-data-dir={profile}", address],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return answers.get(timeout=seconds)
        except queue.Empty:
            said = (folder / "chromium.log").read_text(errors="replace")[-3000:]
            raise AssertionError(f"no report from Chromium after {seconds} s:\n{said}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """The page, the files under test, and node_modules; takes the report."""

    folder: Path
    answers: queue.Queue[dict]

    def translate_path(self, path: str) -> str:
        path = urlsplit(path).path
        if path.startswith("/files/"):
            return str(self.folder / Path(path).name)
        if path.startswith("/node_modules/"):
            return str(REPOSITORY / path.lstrip("/"))
        return str(PAGE)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.answers.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
