"""Jobs: what each was asked for, how far it is, what came of it; and the book of all of them.

Everything is in memory and belongs to the event loop's thread. Ages are counted on the monotonic
clock, so that setting the machine's clock neither keeps a job for ever nor ends it early.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from onelook.options import Options


class State(StrEnum):
    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


OVER = (State.SUCCEEDED, State.FAILED, State.CANCELED)


@dataclass(frozen=True)
class Work:
    """What a job has to do: pictures (the first is the main one) and options, and for whom.

    owner names the API key it came with, "" without one; key is its idempotency key and
    fingerprint what that key stands for.
    """

    pictures: tuple[Path, ...]
    options: Options
    owner: str = ""
    key: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class OutputFile:
    """A file that clients may fetch; etag is the hash of its content."""

    path: Path
    size: int
    etag: str


@dataclass(eq=False)
class Job:
    """One request for an asset; `change` is the only way its state moves on."""

    work: Work
    folder: Path
    id: str
    state: State = State.QUEUED
    message: str = "waiting for its turn"
    stage: str = ""
    progress: float = 0.0
    outputs: dict[str, str] = field(default_factory=dict)  # output of the engine -> file name
    files: dict[str, OutputFile] = field(default_factory=dict)  # file name -> file
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failure: str = ""  # kind of the error that ended it
    cancel_wanted: bool = False
    handed_out: int = 0  # times a worker process was given it
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files.values())

    @property
    def running_seconds(self) -> float:
        """How long it has run, or ran."""
        if self.started is None:
            return 0.0
        return (self.finished or time.monotonic()) - self.started

    def change(self, **fields: Any) -> None:
        """Set fields and wake everybody who watches; nothing moves once the job is over."""
        if self.is_over:
            return
        for name, value in fields.items():
            setattr(self, name, value)
        if self.is_over:
            self.finished = time.monotonic()
        self._changed.set()
        self._changed = asyncio.Event()

    async def changes(self) -> AsyncIterator[None]:
        """Once now and once after each change (several in a row may come as one), to the end."""
        while True:
            changed = self._changed
            yield
            if self.is_over:
                return
            await changed.wait()

    async def wait(self) -> None:
        """Until it is over."""
        async for _ in self.changes():
            pass


class JobBook:
    """Every job that is still known."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._by_key: dict[tuple[str, str], Job] = {}

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        if job.work.key:
            self._by_key[job.work.owner, job.work.key] = job

    def remove(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        if self._by_key.get((job.work.owner, job.work.key)) is job:
            del self._by_key[job.work.owner, job.work.key]

    def find(self, identifier: str, owner: str) -> Job | None:
        """The job, if there is one and it is this owner's."""
        job = self._jobs.get(identifier)
        return job if job is not None and job.work.owner == owner else None

    def find_by_key(self, owner: str, key: str) -> Job | None:
        """The job that this key stands for; one that failed or was canceled frees its key."""
        job = self._by_key.get((owner, key)) if key else None
        return None if job is None or job.state in (State.FAILED, State.CANCELED) else job
