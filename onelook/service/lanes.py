"""A lane: one device, the worker process on it, and the jobs it runs one after the other.

The lane is the process's supervisor: when the process dies, its job is reported failed and a new
one is started; when it keeps dying before it is ready, the pauses grow.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from onelook.service.backlog import Backlog
from onelook.service.child import Child
from onelook.service.jobs import Job, OutputFile, State
from onelook.service.logs import log_event, places

WORKER_COMMAND = (sys.executable, "-m", "onelook.service.worker")
CANCEL_SECONDS = 3.0  # for a job to leave the step it is in; then its process is killed
_PAUSES = (0.0, 1.0, 5.0, 15.0, 30.0)  # seconds before the next start, after failed ones in a row
_DIED = "The worker process ended while it made the model; send the picture again."
_TOO_LONG = "The job took longer than the {:g} s this service allows; ask for less detail."
_OUT_OF_MEMORY = (
    "There was too little memory for this job; ask for a smaller texture_size, decimation_target"
    " or pipeline_type."
)
_UNEXPECTED = "Something went wrong while making the model; tell the operator the id of this job."


class Lane:
    """`run` never ends by itself; cancel it, then `close`."""

    def __init__(
        self,
        arguments: Sequence[str],
        backlog: Backlog,
        job_seconds: float,
        on_over: Callable[[Job], Awaitable[None]],
        command: Sequence[str] = WORKER_COMMAND,
        show_output: bool = False,
    ):
        """arguments: device, vram, model and weights, as the worker takes them.
        on_over: called once for each job that has run, when its state is final.
        """
        self.device = arguments[0]
        self.model: str | None = None
        self.problem = ""  # why it cannot start; "" where nothing is known to be wrong
        self.is_ready = False
        self.restarts = 0
        self._backlog = backlog
        self._job_seconds = job_seconds
        self._on_over = on_over
        self._command = [*command, *arguments]
        self._show_output = show_output
        self._child: Child | None = None
        self._job: Job | None = None

    async def run(self) -> None:
        failed_starts = 0
        while True:
            await asyncio.sleep(_PAUSES[min(failed_starts, len(_PAUSES) - 1)])
            began = time.monotonic()
            try:
                self._child = await Child.start(self._command, self._show_output)
                if await self._becomes_ready(began):
                    failed_starts = 0
                    await self._work()
                else:
                    failed_starts += 1
            except Exception as error:  # whatever it is, this device must go on serving
                failed_starts += 1
                log_event(
                    "worker not usable", logging.ERROR, device=self.device,
                    error=type(error).__name__, places=places(error.__traceback__),
                )  # fmt: skip
            finally:
                self.is_ready = False
            await self.close()
            self.restarts += 1

    async def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            code = await child.end()
            log_event("worker ended", logging.WARNING, device=self.device, exit_code=code)

    async def cancel(self, job: Job) -> None:
        """Stop the job if it runs here; its process is killed where that is the only way."""
        if self._job is not job or self._child is None:
            return
        child = self._child
        child.send({"cancel": job.id})
        try:
            await asyncio.wait_for(job.wait(), CANCEL_SECONDS)
        except TimeoutError:
            if self._job is job:
                child.kill()

    async def _becomes_ready(self, began: float) -> bool:
        answer = await self._child.receive()
        if answer is None or answer["event"] != "ready":
            answer = answer or {}
            self.problem = answer.get("sentence") or "the worker process cannot be started"
            log_event(
                "worker cannot start", logging.ERROR, device=self.device, reason=self.problem,
                error=answer.get("error"), places=answer.get("places"),
            )  # fmt: skip
            return False
        self.device, self.model, self.problem = answer["device"], answer["model"], ""
        self.is_ready = True
        log_event(
            "worker ready", device=self.device, model=self.model, pid=self._child.pid,
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip
        return True

    async def _work(self) -> None:
        """Run jobs until the process ends."""
        next_event = asyncio.ensure_future(self._child.receive())
        try:
            while True:
                next_job = asyncio.ensure_future(self._backlog.take())
                try:
                    await asyncio.wait([next_job, next_event], return_when="FIRST_COMPLETED")
                finally:
                    next_job.cancel()
                    job = await _result_of(next_job)
                if next_event.done():  # idle, it has nothing to say: it has ended
                    if job is not None:
                        self._backlog.give_back(job)
                    return
                next_event = await self._run_one(job, next_event)
                if next_event is None:
                    return
        finally:
            if next_event is not None:
                next_event.cancel()

    async def _run_one(self, job: Job, next_event: asyncio.Future) -> asyncio.Future | None:
        """Have the job done; -> the next event to come, None where the process has ended."""
        self._job = job
        job.handed_out += 1
        job.change(state=State.PROCESSING, message="working", started=time.monotonic())
        pictures = [str(picture) for picture in job.work.pictures]
        self._child.send(
            {
                "job": job.id,
                "pictures": pictures,
                "folder": str(job.folder / "outputs"),
                "options": asdict(job.work.options),
            }
        )
        if job.cancel_wanted:  # since it was taken from the backlog
            asyncio.ensure_future(self.cancel(job))
        heard = False
        try:
            async with asyncio.timeout(self._job_seconds):
                while not job.is_over:
                    event = await next_event
                    if event is None:
                        await self.close()
                        if not heard and self._may_try_again(job):
                            return None
                        _end_without_answer(job, _DIED, "WorkerDied")
                        return None
                    heard, next_event = True, asyncio.ensure_future(self._child.receive())
                    _apply(event, job)
            return next_event
        except TimeoutError:
            await self.close()  # first of all: nothing may be written any more
            _end_without_answer(job, _TOO_LONG.format(self._job_seconds), "TooLong")
            return None
        except asyncio.CancelledError:
            _end_without_answer(job, "The service is being stopped.", "Stopped")
            raise
        except Exception:
            await self.close()
            _end_without_answer(job, _UNEXPECTED, "Unexpected")
            raise
        finally:
            self._job = None
            if job.is_over:
                self._backlog.done(job)
                await self._on_over(job)

    def _may_try_again(self, job: Job) -> bool:
        """Once: the process had ended before it took the job up, and nobody had noticed yet."""
        if job.handed_out > 1 or job.cancel_wanted:
            return False
        job.change(state=State.QUEUED, message="waiting for its turn", started=None)
        self._backlog.give_back(job)
        return True


async def _result_of(task: asyncio.Future) -> Job | None:
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _end_without_answer(job: Job, sentence: str, kind: str) -> None:
    if job.cancel_wanted:
        job.change(state=State.CANCELED, message="canceled")
    else:
        job.change(state=State.FAILED, message=sentence, failure=kind)


def _apply(event: dict[str, Any], job: Job) -> None:
    """Carry what the worker says over to its job."""
    match event["event"]:
        case "progress":
            percent = max(job.progress, min(event["percent"], 99.0))
            job.change(stage=event["stage"], progress=percent)
        case "note":
            job.change(notes=[*job.notes, event["sentence"]])
        case "done":
            _take_results(event, job)
        case "failed" if event["kind"] == "Canceled":
            job.change(state=State.CANCELED, message="canceled")
        case "failed":
            _tell_failure(event, job)


def _take_results(event: dict[str, Any], job: Job) -> None:
    outputs, files = {}, {}
    for output, made in event["files"].items():
        name = made["name"].removeprefix("output_")  # preview.png, but output.glb
        outputs[output] = name
        path = job.folder / "outputs" / made["name"]
        files[name] = OutputFile(path, made["size"], made["sha256"][:32])
    seconds = event["metrics"].get("seconds.total", 0.0)
    job.change(
        state=State.SUCCEEDED, message=f"completed in {seconds:.1f} s", progress=100.0, stage="",
        outputs=outputs, files=files, metrics=event["metrics"],
    )  # fmt: skip


def _tell_failure(event: dict[str, Any], job: Job) -> None:
    sentence = event["sentence"]
    if not sentence:
        sentence = _OUT_OF_MEMORY if event["kind"] == "OutOfMemory" else _UNEXPECTED
    job.change(state=State.FAILED, message=sentence, failure=event["kind"])
    if "error" in event:
        log_event(
            "job broke", logging.ERROR, job_id=job.id, stage=job.stage or None,
            error=event["error"], places=event["places"],
        )  # fmt: skip
