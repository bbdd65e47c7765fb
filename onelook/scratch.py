"""One scratch folder per process, emptied between requests and gone with the process.

A killed process cannot clean up, so a new one also removes the folders that nobody holds. A folder
is held by a lock, which the system lets go when its process ends, however it ends. A process id in
the name would not do: after a restart the ids come again, and containers may share a folder.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "onelook-scratch-"


class Scratch:
    """`folder` belongs to this object alone, for as long as its process lives."""

    def __init__(self, root: Path | None = None):
        root = Path(root or tempfile.gettempdir())
        root.mkdir(parents=True, exist_ok=True)
        _remove_orphans(root)
        self.folder, self._lock = _hold_new_folder(root)
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    def empty(self) -> None:
        """Remove everything in the folder; the folder stays."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _hold_new_folder(root: Path) -> tuple[Path, int | None]:
    """A new folder and the descriptor that holds it; None where locks are not supported."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        lock = _lock(folder, wait=True)
        if folder.exists():
            return folder, lock
        # another start took it for an orphan just before it was locked


def _remove_orphans(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*/"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path, wait: bool = False) -> int | None:
    """The folder's descriptor, locked; None where another holds it, or it is gone or foreign."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
