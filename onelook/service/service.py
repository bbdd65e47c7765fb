"""The service behind the routes: it admits jobs, knows them, ends them and tidies up after them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

from onelook.service import gate as gate_process
from onelook.service.admission import (
    check_pictures,
    read_options,
    refuse_wrong_sources,
    save_pictures,
)
from onelook.service.backlog import Backlog
from onelook.service.form import Form, as_refusal
from onelook.service.gate import Gate
from onelook.service.jobs import Job, JobBook, State, Work
from onelook.service.lanes import WORKER_COMMAND, Lane
from onelook.service.logs import log_event
from onelook.service.measures import Measures
from onelook.service.refusals import Refusal
from onelook.service.settings import Settings
from onelook.service.storage import Storage

SWEEP_SECONDS = 1.0
LINGER_SECONDS = 3.0  # after the last job, so that a client can fetch what it has just been told of
_LOADING_RETRY_SECONDS = 5
_MOST_UPLOADS = 64  # at once


class Service:
    """Lives in one event loop; `start` it there, and `stop` it."""

    def __init__(
        self,
        settings: Settings,
        worker_command: Sequence[str] = WORKER_COMMAND,
        gate_command: Sequence[str] = gate_process.COMMAND,
    ):
        self.settings = settings
        self.book = JobBook()
        self.backlog = Backlog(settings.queue, len(settings.devices))
        self.measures = Measures()
        self.is_draining = False
        self.storage: Storage | None = None
        self.lanes = [
            Lane(
                (device, settings.vram, settings.model, settings.weights), self.backlog,
                settings.job_seconds, self._job_is_over, worker_command, settings.worker_output,
            )
            for device in settings.devices
        ]  # fmt: skip
        self._gate = Gate(gate_command)
        self._uploads = 0
        self._tasks: set[asyncio.Task] = set()
        self._show_gauges()

    def start(self) -> None:
        """Begin to load; the service answers at once and takes jobs when a worker is ready."""
        self.storage = Storage(self.settings.storage, self.settings.ttl, self.settings.quota_bytes)
        for lane in self.lanes:
            self._in_background(lane.run())
        self._in_background(self._gate.open())
        self._in_background(self._sweep())

    async def drain(self) -> None:
        """Take nothing more, and wait for what was accepted, as long as the settings allow."""
        if self.is_draining:
            return
        self.is_draining = True
        log_event("draining", jobs=len(self.backlog) + self.backlog.running)
        deadline = time.monotonic() + self.settings.drain_seconds
        served = not self.backlog.is_idle
        while not self.backlog.is_idle and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if served:
            await asyncio.sleep(min(LINGER_SECONDS, max(0.0, deadline - time.monotonic())))
        self.give_up()

    def give_up(self) -> None:
        """End all jobs as failed: those who wait for them must be answered before the end."""
        self.is_draining = True
        sentence = "The service is being stopped."
        for job in self.book:
            self.backlog.drop(job)
            job.change(state=State.FAILED, message=sentence, failure="Stopped")

    async def stop(self) -> None:
        """End every process and remove every file."""
        self.give_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self.lanes:
            await lane.close()
        await self._gate.close()
        if self.storage:
            self.storage.close()
        log_event("stopped")

    @property
    def is_loaded(self) -> bool:
        return any(lane.is_ready for lane in self.lanes)

    @property
    def problem(self) -> str:
        """Why no worker can be started; "" where nothing is known to be wrong."""
        return "" if self.is_loaded else next((x.problem for x in self.lanes if x.problem), "")

    def refuse_if_closed(self) -> None:
        """Raises Refusal where no job would be taken now."""
        if self.is_draining:
            raise Refusal(503, "The service is being stopped.", {"Retry-After": "30"})
        retry = {"Retry-After": str(_LOADING_RETRY_SECONDS)}
        if self.problem:
            raise Refusal(503, "The model cannot be loaded; the operator must look at it.", retry)
        if not any(lane.model for lane in self.lanes):  # a worker that is restarted has one
            raise Refusal(503, "The model is still being loaded; try again soon.", retry)
        if self.backlog.is_full:
            raise self._full()

    @contextlib.contextmanager
    def an_upload(self) -> Iterator[None]:
        """Raises Refusal where too many come in at once."""
        if self._uploads >= _MOST_UPLOADS:
            raise self._full()
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def _full(self) -> Refusal:
        retry = {"Retry-After": str(self.backlog.retry_after())}
        return Refusal(429, "Every place in the queue is taken; try again later.", retry)

    async def admit(self, form: Form, owner: str, key: str) -> Job:
        """The form's job, which now waits, or the earlier one that `key` stands for.

        Raises Refusal, and then leaves nothing behind.
        """
        options = read_options(form, self.settings)
        refuse_wrong_sources(form, self.settings)
        identifier = secrets.token_hex(16)
        folder = self.storage.folder_of(identifier)
        job = Job(Work((), options, owner, key), folder, identifier)
        try:
            folder.mkdir(mode=0o700)
            earlier = await self._prepare(job, form)
        except OSError as error:
            await self.storage.remove(job.folder)
            raise as_refusal(error) from error
        except BaseException:
            await self.storage.remove(job.folder)
            raise
        if earlier:
            await self.storage.remove(job.folder)
            return earlier
        self.book.add(job)
        self.backlog.put(job)
        log_event("job accepted", job_id=job.id, waiting=len(self.backlog))
        return job

    async def _prepare(self, job: Job, form: Form) -> Job | None:
        """Give the job its pictures, all of them good; -> the earlier job of its key, if any.

        Nothing is waited for between the last look for an earlier job, or a place, and the return.
        """
        pictures, fingerprint = await save_pictures(form, job.folder)
        job.work = replace(job.work, pictures=pictures, fingerprint=fingerprint)
        if earlier := self._earlier(job.work):
            return earlier
        await check_pictures(pictures, self._gate)
        earlier = self._earlier(job.work)  # it may have come meanwhile
        if not earlier:
            self.refuse_if_closed()
        return earlier

    async def cancel(self, job: Job) -> None:
        """End the job, whether it waits or runs; nothing happens to one that is over."""
        if job.is_over:
            return
        job.cancel_wanted = True
        if self.backlog.drop(job):
            job.change(state=State.CANCELED, message="canceled")
            await self._job_is_over(job)
            return
        for lane in self.lanes:
            self._in_background(lane.cancel(job))

    async def remove(self, job: Job) -> None:
        """Forget a job that is over, with its files."""
        self.book.remove(job)
        await self.storage.remove(job.folder)

    def _earlier(self, work: Work) -> Job | None:
        """The job this key stands for. Raises Refusal where that was another request's."""
        job = self.book.find_by_key(work.owner, work.key)
        if job is not None and job.work.fingerprint != work.fingerprint:
            raise Refusal(422, "This Idempotency-Key was used for another request; take a new one.")
        return job

    async def _job_is_over(self, job: Job) -> None:
        """Keep what clients may fetch and nothing else."""
        for picture in job.work.pictures:
            await asyncio.to_thread(picture.unlink, missing_ok=True)
        if job.state is not State.SUCCEEDED:
            await self.storage.remove(job.folder)
        self.measures.count_job(job)
        log_event(
            "job over", job_id=job.id, state=job.state.value, failure=job.failure or None,
            seconds=round(job.running_seconds, 3), stage=job.stage or None,
        )  # fmt: skip

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for job in self.storage.outdated(self.book):
                await self.remove(job)
                log_event("job removed", job_id=job.id)

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            trace = (type(error), error, error.__traceback__)
            logging.getLogger("onelook.service").error("background work broke", exc_info=trace)

    def _show_gauges(self) -> None:
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "queue_length": ("Jobs that wait.", lambda: len(self.backlog)),
            "queue_limit": ("Jobs that may wait.", lambda: self.backlog.limit),
            "jobs_running": ("Jobs in work.", lambda: self.backlog.running),
            "workers_ready": ("Workers with a model loaded.", lambda: self._count_ready()),
            "worker_restarts": (
                "Worker processes that ended.", lambda: sum(lane.restarts for lane in self.lanes),
            ),
            "outputs_bytes": (
                "Disk that outputs take.", lambda: sum(job.size for job in self.book),
            ),
        }  # fmt: skip
        for name, (meaning, value) in gauges.items():
            self.measures.show(name, meaning, value)

    def _count_ready(self) -> int:
        return sum(lane.is_ready for lane in self.lanes)
