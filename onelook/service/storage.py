"""One folder per job, gone with it: after its time, when the disk quota needs room, at the end."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from onelook.errors import OutputError
from onelook.scratch import Scratch
from onelook.service.jobs import Job


class Storage:
    """A folder of this process alone; what a killed service left is removed at start.

    Raises OutputError where it cannot be made.
    """

    def __init__(self, root: str, ttl: float, quota_bytes: int):
        try:
            self._scratch = Scratch(Path(root) if root else None)
        except OSError as error:
            raise OutputError("the folder for the jobs' files cannot be written") from error
        self._ttl = ttl
        self._quota_bytes = quota_bytes

    def folder_of(self, job_id: str) -> Path:
        """Where the job's files belong; made by whoever writes the first."""
        return self._scratch.folder / job_id

    async def remove(self, folder: Path) -> None:
        """Remove a job's folder, if it is there."""
        assert folder.parent == self._scratch.folder
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything; nothing is made here any more."""
        shutil.rmtree(self._scratch.folder, ignore_errors=True)

    def expires_in(self, job: Job) -> float | None:
        """Seconds until the job is forgotten; None while it is not over."""
        if job.finished is None:
            return None
        return max(0.0, job.finished + self._ttl - time.monotonic())

    def outdated(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Jobs to remove now: those past their time, then the oldest ones beyond the quota.

        The newest is kept even where it alone is larger: somebody is about to fetch it.
        """
        over = sorted((job for job in jobs if job.is_over), key=lambda job: job.finished)
        kept = []
        for job in over:
            if self.expires_in(job):
                kept.append(job)
            else:
                yield job
        used = sum(job.size for job in kept)
        for job in kept[:-1]:
            if used <= self._quota_bytes:
                return
            used -= job.size
            yield job
