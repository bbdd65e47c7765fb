"""The worker process: one engine on one device, one job at a time.

Messages in: {"job", "pictures", "folder", "options"} and {"cancel": job}. Events out: "ready",
"progress", "note", "done" and "failed"; "broken" when the engine cannot be loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onelook.errors import OnelookError
from onelook.service.child import Channel
from onelook.service.logs import places

_LEAST_SECONDS_BETWEEN_PROGRESS = 0.1
_NICENESS = 5  # below the server: health is answered at once while every core computes


class Canceled(BaseException):
    """Raised in the middle of a job, where it stands, when its client wants it no more."""


class Worker:
    """Runs jobs in the main thread; another one listens."""

    def __init__(self, channel: Channel, device: str, vram: str, model: str, weights: str | None):
        self._channel = channel
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._running: str | None = None
        self._unwanted: str | None = None
        signal.signal(signal.SIGUSR1, self._stop_if_unwanted)
        threading.Thread(target=self._listen, daemon=True).start()

        from onelook.engine import Engine
        from onelook.report import Report
        from onelook.warmup import warm_up

        self._engine = Engine(device, vram, weights)
        warm_up(self._engine, model)
        report = Report()
        self._engine.open_backend(model, report)
        self._channel.send("ready", device=self._engine.device, model=report.figures["model"])

    def run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                self._running = job["job"]
                self._stop_if_unwanted()
                self._run_one(job)
                self._running = None
            except Canceled:
                self._running = None
                self._channel.send("failed", kind="Canceled", sentence="canceled")

    def _run_one(self, job: dict[str, Any]) -> None:
        from onelook.options import parse_options

        report = _telling_report(self._channel)
        try:
            picture, *further = map(Path, job["pictures"])
            result = self._engine.generate(
                picture, parse_options(job["options"]), Path(job["folder"]), "output", report,
                further,
            )  # fmt: skip
            files = {
                name: _described(path) for name, path in result.files.items() if path is not None
            }
            self._channel.send("done", files=files, metrics=result.metrics)
        except Exception as error:
            self._channel.send("failed", **_told(error))
            del error
            _free_memory()

    def _listen(self) -> None:
        """Until the service is gone; then there is nothing left to do here."""
        for message in self._channel.messages():
            if "job" in message:
                self._jobs.put(message)
            else:
                self._unwanted = message["cancel"]  # the job may still be to come
                # to the main thread itself: it may wait in a lock, which only a signal leaves
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        os._exit(0)

    def _stop_if_unwanted(self, *_: object) -> None:
        if self._running is not None and self._unwanted == self._running:
            self._unwanted = None
            raise Canceled


def _telling_report(channel: Channel):
    """A Report that tells the service each step and note, and how far the whole is, 0..100."""
    from onelook.report import Report

    told = {"stage": "", "at": 0.0}

    def on_progress(stage: str, fraction: float) -> None:
        now = time.monotonic()
        if stage == told["stage"] and now - told["at"] < _LEAST_SECONDS_BETWEEN_PROGRESS:
            return
        told.update(stage=stage, at=now)
        channel.send("progress", stage=stage, percent=round(100 * report.overall(fraction), 1))

    report = Report(on_progress, lambda sentence: channel.send("note", sentence=sentence))
    return report


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "size": path.stat().st_size, "sha256": digest}


def _told(error: Exception) -> dict[str, Any]:
    """A named error by its sentence; others by class and places, which only the log shows."""
    if isinstance(error, OnelookError):
        return {"kind": type(error).__name__, "sentence": str(error)}
    return {
        "kind": "OutOfMemory" if _is_out_of_memory(error) else "Unexpected",
        "sentence": "",
        "error": type(error).__name__,
        "places": places(error.__traceback__),
    }


def _is_out_of_memory(error: Exception) -> bool:
    """Each library says it in its own way: Python and numpy, torch, warp, OpenCV."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error) for words in ("Failed to allocate", "Insufficient memory"))


def _free_memory() -> None:
    """Give back what a failed job held, so that the next one finds a fresh device."""
    import gc

    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _telling_why_it_breaks(channel: Channel) -> Iterator[None]:
    try:
        yield
    except OnelookError as error:
        channel.send("broken", sentence=str(error))
        sys.exit(1)
    except Exception as error:
        channel.send("broken", sentence="", error=type(error).__name__,
                     places=places(error.__traceback__))  # fmt: skip
        sys.exit(1)


def main(device: str, vram: str, model: str, weights: str = "") -> None:
    os.nice(_NICENESS)
    channel = Channel()
    with _telling_why_it_breaks(channel):
        worker = Worker(channel, device, vram, model, weights or None)
    worker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
