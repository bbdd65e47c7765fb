"""Read every byte of the pulled checkpoints and compare with the lock."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from onelook.weights.files import sha256_of
from onelook.weights.locate import hub_snapshot, named_place, weights_dir
from onelook.weights.lock import LockedFile, LockedRepository, read_lock
from onelook.weights.manifest import checkpoint, expand_names


@dataclass(frozen=True)
class Verified:
    """A file and what is wrong with it; None: it is what was pulled, to the byte."""

    repository: str
    path: str
    problem: str | None


def verify(names: Iterable[str] = ()) -> list[Verified]:
    """Check the named checkpoints, or all that the lock has, against the lock; fixes nothing.

    A checkpoint in a local folder that the environment names has no lock and is left out.
    Raises WeightsError for an unknown name or a damaged lock.
    """
    locked = read_lock(weights_dir())
    jobs: list[tuple[str, str, LockedRepository]] = []
    findings: list[Verified] = []
    for repository, paths in _asked_for(names, locked).items():
        for path in paths:
            if repository in locked and path in locked[repository].files:
                jobs.append((repository, path, locked[repository]))
            else:
                findings.append(Verified(repository, path, "not in the lock: pull it"))
    with ThreadPoolExecutor(2) as pool:
        problems = list(pool.map(lambda job: _problem(*job), jobs))
    findings += [
        Verified(repository, path, problem)
        for (repository, path, _), problem in zip(jobs, problems, strict=True)
    ]
    return sorted(findings, key=lambda one: (one.repository, one.path))


def _asked_for(names: Iterable[str], locked: dict[str, LockedRepository]) -> dict[str, list[str]]:
    """Paths by repository: those of the named checkpoints, or everything in the lock."""
    names = expand_names(names)
    if not names:
        return {repository: list(entry.files) for repository, entry in locked.items()}
    asked: dict[str, list[str]] = {}
    for one in map(checkpoint, names):
        if named_place(one.name)[1]:
            continue
        entry = locked.get(one.repository)
        for spec in one.files:
            found = spec.choose(entry.files if entry else ())
            if found or not spec.optional:
                asked.setdefault(one.repository, []).extend(found or [spec.path])
    return asked


def _problem(repository: str, path: str, entry: LockedRepository) -> str | None:
    file = _lies_at(repository, path, entry)
    wanted: LockedFile = entry.files[path]
    if file is None:
        return "missing"
    if (size := file.stat().st_size) != wanted.bytes:
        return f"{size} bytes instead of {wanted.bytes}"
    return None if sha256_of(file) == wanted.sha256 else "damaged: another SHA-256"


def _lies_at(repository: str, path: str, entry: LockedRepository) -> Path | None:
    folders = (weights_dir() / repository, hub_snapshot(repository, entry.revision))
    return next((one / path for one in folders if one and (one / path).is_file()), None)
