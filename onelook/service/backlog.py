"""The bounded queue, and how long a place in it is likely to take to become free."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from onelook.service.jobs import Job, State

_FIRST_GUESS_SECONDS = 10.0  # of a job, until one has been measured
_WEIGHT_OF_THE_NEWEST = 0.3
_LONGEST_RETRY_SECONDS = 600


class Backlog:
    """Jobs in order of arrival: at most `limit` wait while `lanes` run."""

    def __init__(self, limit: int, lanes: int):
        self.limit = limit
        self._lanes = lanes
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._arrival = asyncio.Event()
        self._mean_seconds: float | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) + len(self._running) >= self.limit + self._lanes

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._running

    def position(self, job: Job) -> int | None:
        """1 for the next in turn; None where it does not wait."""
        return self._waiting.index(job) + 1 if job in self._waiting else None

    def retry_after(self) -> int:
        """Whole seconds until a place is likely to be free, from how long jobs took so far."""
        mean = self._mean_seconds or _FIRST_GUESS_SECONDS
        left = [mean - job.running_seconds for job in self._running]
        return min(max(1, math.ceil(min(left, default=mean))), _LONGEST_RETRY_SECONDS)

    def put(self, job: Job) -> None:
        """Add a job; the caller has seen that there is a place."""
        self._waiting.append(job)
        self._arrival.set()

    async def take(self) -> Job:
        """The oldest job that waits, which counts as running from now on."""
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        job = self._waiting.popleft()
        self._running.add(job)
        return job

    def give_back(self, job: Job) -> None:
        """It could not be started after all: first in turn again."""
        self._running.discard(job)
        self._waiting.appendleft(job)
        self._arrival.set()

    def drop(self, job: Job) -> bool:
        """Take a job out that waits; False where it does not."""
        if job not in self._waiting:
            return False
        self._waiting.remove(job)
        return True

    def done(self, job: Job) -> None:
        """It runs no more; the time of one that succeeded is remembered."""
        self._running.discard(job)
        if job.state is State.SUCCEEDED:
            newest, old = job.running_seconds, self._mean_seconds
            weight = _WEIGHT_OF_THE_NEWEST if old is not None else 1.0
            self._mean_seconds = weight * newest + (1 - weight) * (old or 0.0)
