"""One scratch folder per process, emptied between requests and gone with the process.

A killed process cannot clean up, so a new one also removes the folders of processes that are gone.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

_PREFIX = "onelook-scratch-"


class Scratch:
    """`folder` belongs to this process alone."""

    def __init__(self, root: Path | None = None):
        root = Path(root or tempfile.gettempdir())
        _remove_orphans(root)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=root))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    def empty(self) -> None:
        """Remove everything in the folder; the folder stays."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _remove_orphans(root: Path) -> None:
    for folder in root.glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        if owner and not _is_running(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
