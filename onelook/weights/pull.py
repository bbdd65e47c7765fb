"""Fetch checkpoints into the weights folder, or use them in place from the hub's cache.

Plan first, fetch several files at once, and when all of a checkpoint is there, write it into the
lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from onelook.errors import WeightsError
from onelook.weights import hub, lock
from onelook.weights.download import Stopped, fetch
from onelook.weights.locate import (
    checkpoint_folder,
    named_place,
    weights_dir,
)
from onelook.weights.manifest import checkpoint, expand_names
from onelook.weights.plan import Plan, check_space, look_at_what_is_here, make_plan

WORKERS = 6


@dataclass(frozen=True)
class Pulled:
    """A checkpoint that is now complete, where it lies, and how many bytes it took to fetch."""

    name: str
    folder: Path
    revision: str
    fetched_bytes: int
    notes: tuple[str, ...]


def pull(
    names: Iterable[str], place: str | None = None, update: bool = False, quiet: bool = False
) -> list[Pulled]:
    """Make the named checkpoints (a model's name: all it needs) complete on this machine.

    place: owner/repository[@revision] in the same layout instead of the first one's own.
    update: ask the repository for its newest commit even where the lock names one.
    Raises WeightsError: unknown name, no network, gated, damaged, disk full, folder not writable.
    """
    try:
        from huggingface_hub.utils import WeakFileLock
    except ImportError as error:
        raise WeightsError("pulling needs: pip install huggingface_hub") from error
    names = expand_names(names)
    root = weights_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(root / ".pull.lock"):
            return _pull_all(names, place, update, quiet, root)
    except OSError as error:
        raise WeightsError(hub.disk_problem(error)) from error


def _pull_all(
    names: list[str], place: str | None, update: bool, quiet: bool, root: Path
) -> list[Pulled]:
    known = lock.read_lock(root)
    plans, pulled = [], []
    for name in names:
        variable, named = named_place(name, place if name == names[0] else None)
        if named and variable != "--weights" and Path(named).expanduser().is_dir():
            notes = (f"{variable} names this folder: nothing to pull",)
            pulled.append(Pulled(name, checkpoint_folder(name), "local", 0, notes))
            continue
        plan = make_plan(checkpoint(name), variable, named, {} if update else known, known, root)
        look_at_what_is_here(plan)
        plans.append(plan)
    check_space(plans, root)
    for plan in plans:
        if any(other.repository == plan.repository for other in plans if other is not plan):
            look_at_what_is_here(plan)  # the other one may have fetched some of the same files
        fetched = _fetch_all(plan, quiet)
        plan.sha256s |= fetched
        _write_into_lock(plan, root)
        size = sum((plan.folder / path).stat().st_size for path in fetched)
        pulled.append(Pulled(plan.name, plan.folder, plan.revision, size, tuple(plan.notes)))
    return sorted(pulled, key=lambda one: names.index(one.name))


def _fetch_all(plan: Plan, quiet: bool) -> dict[str, str]:
    """Fetch what is missing, several files at once; the first error stops the others."""
    from tqdm import tqdm

    total = sum(remote.bytes or 0 for remote in plan.to_fetch) or None
    stop = Event()
    with (
        tqdm(
            total=total,
            desc=plan.name,
            unit="B",
            unit_scale=True,
            mininterval=0.5,
            disable=quiet or not plan.to_fetch,
        ) as bar,
        ThreadPoolExecutor(WORKERS, thread_name_prefix="pull") as pool,
    ):
        on_bytes = _locked_update(bar)
        jobs = {
            pool.submit(
                fetch, remote, plan.folder / remote.path, plan.repository, on_bytes, stop
            ): remote.path
            for remote in sorted(plan.to_fetch, key=lambda remote: -(remote.bytes or 0))
        }
        try:
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # no effect on those that are done
            for job in jobs:
                job.cancel()
        errors = [job.exception() for job in done if job.exception() is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        return {path: job.result() for job, path in jobs.items()}


def _locked_update(bar) -> Callable[[int], None]:
    guard = Lock()

    def update(count: int) -> None:
        with guard:
            bar.update(count)

    return update


def _write_into_lock(plan: Plan, root: Path) -> None:
    locked = lock.read_lock(root)
    entry = locked.get(plan.repository)
    if entry is None or entry.revision != plan.revision:
        entry = locked[plan.repository] = lock.LockedRepository(plan.revision)
    for remote in plan.wanted:
        size = (plan.folder / remote.path).stat().st_size
        entry.files[remote.path] = lock.LockedFile(size, plan.sha256s[remote.path])
    lock.write_lock(root, locked)
