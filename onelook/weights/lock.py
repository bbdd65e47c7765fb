"""The lock file: which commit was pulled, and size and SHA-256 of every file.

`lock.json` lies in the weights folder. `pull` follows it, so that a copied lock brings the same
bytes on another machine, and `verify` checks the files against it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from onelook.errors import WeightsError
from onelook.weights.files import write_atomically
from onelook.weights.layouts import is_inside

LOCK_NAME = "lock.json"
_VERSION = 1


@dataclass(frozen=True)
class LockedFile:
    """What a file must be, to the byte."""

    bytes: int
    sha256: str


@dataclass
class LockedRepository:
    """One repository at one commit (of a release: its tag); files by path in the repository."""

    revision: str
    files: dict[str, LockedFile] = field(default_factory=dict)


Lock = dict[str, LockedRepository]


def read_lock(folder: Path) -> Lock:
    """The lock of a weights folder, by repository; empty where there is none.

    Raises WeightsError when the file is there and cannot be read as a lock.
    """
    try:
        text = (folder / LOCK_NAME).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        content = json.loads(text)
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}")
        lock = {
            repository: LockedRepository(
                entry["revision"],
                {path: LockedFile(**file) for path, file in entry["files"].items()},
            )
            for repository, entry in content["repositories"].items()
        }
        for path in [*lock, *(path for entry in lock.values() for path in entry.files)]:
            if not is_inside(path):
                raise ValueError(f"{path!r} lies outside")
        return lock
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{LOCK_NAME} in the weights folder is damaged or of another version ({error});"
            " delete it and run: onelook weights pull"
        ) from error


def write_lock(folder: Path, lock: Lock) -> None:
    """Replace the lock of a weights folder, atomically; same content, same bytes."""
    repositories = {repository: asdict(lock[repository]) for repository in sorted(lock)}
    content = {"version": _VERSION, "repositories": repositories}
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write_atomically(folder / LOCK_NAME, text.encode())
