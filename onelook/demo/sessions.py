"""Each visitor's files: a folder that nobody else can guess, gone when the visitor leaves.

A visitor is known by the session id that Gradio gives to a page. It comes from outside, so it is a
key here and never part of a path.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from onelook.demo.makers import Made
from onelook.demo.run import Run

IDLE_SECONDS = 3600.0  # a visitor whose leaving went unnoticed


@dataclass
class Session:
    """One visitor. run: the one in progress, or the last; uploads: pictures sent by the page.

    is_waiting: a run was asked for and has not begun.
    """

    folder: Path
    run: Run[Made] | None = None
    uploads: set[Path] = field(default_factory=set)
    is_waiting: bool = False
    used: float = field(default_factory=time.monotonic)

    def new_folder(self, kind: str) -> Path:
        """An empty folder for one run; that of the last run of this kind is removed.

        Its name is new each time, so that no browser shows a file it has kept.
        """
        shutil.rmtree(self.folder / kind, ignore_errors=True)
        folder = self.folder / kind / secrets.token_hex(4)
        folder.mkdir(parents=True)
        return folder

    @property
    def made(self) -> Made | None:
        """What the last run made, when it is over and has succeeded."""
        return self.run.made if self.run and self.run.is_over else None

    def forget(self) -> None:
        """Stop the last run, and know nothing of it any more."""
        self.stop()
        self.run = None

    def stop(self) -> None:
        if self.run is not None:
            self.run.stop()


class Sessions:
    """All visitors' folders, under one root."""

    def __init__(self, root: Path, uploads: Path, idle_seconds: float = IDLE_SECONDS):
        """root: takes the visitors' folders. uploads: where the page puts pictures it was sent,
        each in a folder of its own; a picture from elsewhere (an example) is never removed."""
        self.root = root
        self._uploads = uploads
        self._idle_seconds = idle_seconds
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)

    def of(self, visitor: str) -> Session:
        """The visitor's session, new at the first call; sweeps those that are long idle."""
        self._sweep()
        with self._lock:
            if visitor not in self._sessions:
                folder = self.root / secrets.token_urlsafe(24)
                folder.mkdir(mode=0o700)
                self._sessions[visitor] = Session(folder)
            session = self._sessions[visitor]
            session.used = time.monotonic()
            return session

    def start_waiting(self, visitor: str, most: int) -> bool:
        """Count the visitor among those who wait; False where that would be too many."""
        session = self.of(visitor)
        with self._lock:
            waiting = sum(one.is_waiting for one in self._sessions.values() if one is not session)
            session.is_waiting = waiting < most
            return session.is_waiting

    def leave(self, visitor: str) -> None:
        """Stop what the visitor has running and remove the files."""
        with self._lock:
            session = self._sessions.pop(visitor, None)
            others = {upload for one in self._sessions.values() for upload in one.uploads}
        if session is None:
            return
        session.stop()
        if session.run is not None:
            session.run.wait(30)
        shutil.rmtree(session.folder, ignore_errors=True)
        for upload in session.uploads - others:  # the same picture has the same place
            if upload.resolve().parent.parent == self._uploads.resolve():
                shutil.rmtree(upload.parent, ignore_errors=True)

    def _sweep(self) -> None:
        now = time.monotonic()
        with self._lock:
            idle = [
                visitor
                for visitor, session in self._sessions.items()
                if now - session.used > self._idle_seconds
                and (session.run is None or session.run.is_over)
            ]
        for visitor in idle:
            self.leave(visitor)
