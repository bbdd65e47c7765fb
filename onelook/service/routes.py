"""The routes: they read a request, ask the service, and answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from sse_starlette import EventSourceResponse, ServerSentEvent

from onelook import __version__
from onelook.service.downloads import MEDIA_TYPES, send_file
from onelook.service.form import drain, read_form
from onelook.service.jobs import Job, State
from onelook.service.refusals import Refusal, failed, unknown
from onelook.service.schemas import (
    PREFIX,
    Completed,
    Health,
    JobAnswer,
    Problem,
    completed,
    form_schema,
    job_answer,
)
from onelook.service.service import Service

_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_CANCEL_ANSWER_SECONDS = 2.0  # a canceled job is usually over by then
_PROBLEMS = {
    400: "The request is malformed.",
    401: "The API key is missing or wrong.",
    404: "There is no such job or file, or its time is over.",
    408: "The request did not arrive in time.",
    409: "The job was canceled, or is not over yet.",
    413: "The request is too large.",
    415: "The body is no multipart form.",
    416: "The file ends before the range.",
    422: "The picture or an option cannot be used.",
    429: "Every place in the queue is taken; Retry-After says when to come again.",
    500: "Something went wrong.",
    503: "The model is being loaded, the service is being stopped, or memory ran out.",
    504: "The job took too long.",
    507: "The disk is full.",
}


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": _PROBLEMS[code]} for code in codes}


def service_of(request: Request) -> Service:
    return request.app.state.service


def owner_of(request: Request) -> str:
    """Whose request this is. Raises Refusal where a key is needed and is not there."""
    return request.app.state.owner_of(request)


def job_of(
    request: Request,
    job_id: Annotated[str, Path(description="Id of the job.")],
    service: Annotated[Service, Depends(service_of)],
    owner: Annotated[str, Depends(owner_of)],
) -> Job:
    """The job that the address names. Raises Refusal where there is none, or another's."""
    job = service.book.find(job_id, owner)
    if job is None:
        raise unknown()
    request.state.job_id = job.id
    return job


Here = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(owner_of)]
OneJob = Annotated[Job, Depends(job_of)]

open_router = APIRouter(tags=["service"])
router = APIRouter()  # of what may need a key


@open_router.get("/health", summary="How the service is")
async def health(service: Here) -> Health:
    """Always 200 while the service runs; `status` says whether it takes jobs."""
    return _health(service)


@open_router.get("/ready", summary="Whether it takes jobs", responses={503: {"model": Health}})
async def ready(service: Here, response: Response) -> Health:
    """200 when the service takes jobs, else 503: for balancers and Kubernetes."""
    found = _health(service)
    response.status_code = 200 if found.status == "healthy" else 503
    return found


@router.get(
    "/metrics",
    tags=["service"],
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "Prometheus text format.",
        },
        **problems(401),
    },
)
async def metrics(service: Here, owner: Owner) -> Response:
    return Response(service.measures.page(), media_type=CONTENT_TYPE_LATEST)


def add_main_route(app: FastAPI, url_inputs: bool, dependencies: Sequence[Any]) -> None:
    """POST /api/v1/image-to-3d, whose form depends on what the operator allows."""
    form = {"multipart/form-data": {"schema": form_schema(url_inputs)}}
    app.post(
        f"{PREFIX}/image-to-3d",
        tags=["assets"],
        summary="Turn a picture into a 3D model",
        response_model=Completed,
        responses={
            202: {"model": JobAnswer, "description": "Accepted (Prefer: respond-async)."},
            **problems(401, 408, 409, 413, 415, 422, 429, 500, 503, 504, 507),
        },
        openapi_extra={"requestBody": {"required": True, "content": form}},
        dependencies=dependencies,
    )(image_to_3d)


async def image_to_3d(
    request: Request,
    service: Here,
    owner: Owner,
    prefer: Annotated[
        str, Header(description="respond-async: answer 202 at once, with the job.")
    ] = "",
    idempotency_key: Annotated[
        str,
        Header(
            description="Up to 200 printable characters that name this request: sent once more"
            " with the same key, it is answered with the same job."
        ),
    ] = "",
) -> Response:
    """Runs the job and answers when it is done; a client that goes away cancels it.

    With `Prefer: respond-async` it answers at once, with the job to ask after.
    """
    if idempotency_key and not _KEY.fullmatch(idempotency_key):
        await drain(request)
        raise Refusal(422, "Idempotency-Key must be 1 to 200 printable characters.")
    job = await _admit(service, request, owner, idempotency_key)
    request.state.job_id = job.id
    if "respond-async" in re.split(r"[,;\s]+", prefer.lower()):
        body = _answer(request, job)
        headers = {"Location": body.status_url, "Preference-Applied": "respond-async"}
        return JSONResponse(body.model_dump(mode="json"), 202, headers)
    await _wait(service, job, request, keep=bool(idempotency_key))
    if job.state is not State.SUCCEEDED:
        raise failed(job)
    body = completed(job, service.storage.expires_in(job), _root(request))
    return JSONResponse(body.model_dump(mode="json"))


@router.get(
    f"{PREFIX}/jobs/{{job_id}}",
    tags=["jobs"],
    summary="How a job is",
    responses=problems(401, 404, 422),
)
async def show_job(request: Request, job: OneJob) -> JobAnswer:
    return _answer(request, job)


@router.post(
    f"{PREFIX}/jobs/{{job_id}}/cancel",
    tags=["jobs"],
    summary="Cancel a job",
    responses=problems(401, 404, 422),
)
async def cancel_job(request: Request, service: Here, job: OneJob) -> JobAnswer:
    """Also while it runs, in the middle of a step. A job that is over stays as it is."""
    await service.cancel(job)
    with contextlib.suppress(TimeoutError):  # it says processing, and will not for long
        await asyncio.wait_for(job.wait(), _CANCEL_ANSWER_SECONDS)
    return _answer(request, job)


@router.get(
    f"{PREFIX}/jobs/{{job_id}}/events",
    tags=["jobs"],
    summary="Progress as server-sent events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Events named after the job's status; the data of each is the job"
            " as GET /jobs/{job_id} answers it. The stream ends when the job is over.",
            "content": {"text/event-stream": {}},
        },
        **problems(401, 404, 422),
    },
)
async def job_events(request: Request, job: OneJob) -> EventSourceResponse:
    async def events() -> AsyncIterator[ServerSentEvent]:
        async for _ in job.changes():
            body = _answer(request, job)
            yield ServerSentEvent(body.model_dump_json(), event=body.status.value)

    return EventSourceResponse(events(), ping=15)


_FILE = f"{PREFIX}/outputs/{{job_id}}/{{filename}}"
_ANY_FILE = {
    kind: {"schema": {"type": "string", "format": "binary"}}
    for kind in (*MEDIA_TYPES.values(), "application/octet-stream")
}


@router.head(_FILE, include_in_schema=False)
@router.get(
    _FILE,
    tags=["outputs"],
    summary="Fetch a file",
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": _ANY_FILE},
        206: {"description": "The part of the file that was asked for.", "content": _ANY_FILE},
        304: {"description": "The client has this file already (If-None-Match)."},
        **problems(401, 404, 416, 422),
    },
)
async def get_output(
    request: Request,
    service: Here,
    job: OneJob,
    filename: Annotated[str, Path(description="Name of the file, as the job says.")],
) -> Response:
    """The whole file, or the part that a `Range` header asks for."""
    file = job.files.get(filename)
    if file is None:
        raise unknown()
    return send_file(request, filename, file, service.storage.expires_in(job) or 0)


@router.delete(
    f"{PREFIX}/outputs/{{job_id}}",
    tags=["outputs"],
    summary="Remove a job's files",
    status_code=204,
    responses=problems(401, 404, 409, 422),
)
async def delete_outputs(service: Here, job: OneJob) -> None:
    """Removes the files now instead of later, and forgets the job."""
    if not job.is_over:
        raise Refusal(409, "The job is not over yet; cancel it first.", identifier=job.id)
    await service.remove(job)


def _root(request: Request) -> str:
    """The prefix that a proxy has mounted the service at."""
    return request.scope.get("root_path", "")


def _answer(request: Request, job: Job) -> JobAnswer:
    """The job as it stands."""
    service = service_of(request)
    position, expires_in = service.backlog.position(job), service.storage.expires_in(job)
    return job_answer(job, position, expires_in, _root(request))


async def _admit(service: Service, request: Request, owner: str, key: str) -> Job:
    """The job of this request. Raises Refusal, early where the upload need not be read."""
    with contextlib.ExitStack() as stack:
        try:
            if not service.book.find_by_key(owner, key):  # a repeated request needs no place
                service.refuse_if_closed()
            stack.enter_context(service.an_upload())
        except Refusal:
            await drain(request)
            raise
        form = await read_form(request, service.settings.upload_bytes)
        try:
            return await service.admit(form, owner, key)
        finally:
            await form.close()


async def _wait(service: Service, job: Job, request: Request, keep: bool) -> None:
    """Until the job is over. When the client has gone, it is canceled, unless it is to be kept:
    the client of an idempotency key may come back for it.
    """
    over = asyncio.ensure_future(job.wait())
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([over, gone], return_when="FIRST_COMPLETED")
    finally:
        over.cancel()
        gone.cancel()
        if not job.is_over and not keep:
            await service.cancel(job)
    if not job.is_over:
        raise Refusal(499, "The client has gone.", identifier=job.id)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _health(service: Service) -> Health:
    lanes = service.lanes
    if service.is_draining:
        status, message = "draining", "The service is being stopped."
    elif service.is_loaded:
        status, message = "healthy", "The service takes jobs."
    elif service.problem:
        status, message = "unhealthy", service.problem
    else:
        status, message = "loading", "The model is being loaded."
    return Health(
        status=status, message=message, model_loaded=service.is_loaded,
        model=next((lane.model for lane in lanes if lane.model), None),
        device=", ".join(lane.device for lane in lanes), workers=sum(x.is_ready for x in lanes),
        queue_length=len(service.backlog), queue_limit=service.backlog.limit,
        jobs_running=service.backlog.running, version=__version__,
    )  # fmt: skip
