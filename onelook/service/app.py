"""The FastAPI application: settings in, an app out that starts its workers when it is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Iterator, Sequence

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from onelook import __version__
from onelook.errors import OnelookError
from onelook.service import docs_page
from onelook.service.access import Envelope, owner_check, problem_answer
from onelook.service.lanes import WORKER_COMMAND
from onelook.service.logs import log_event, set_up_logs
from onelook.service.refusals import Refusal, unknown
from onelook.service.routes import add_main_route, open_router, router
from onelook.service.service import Service
from onelook.service.settings import Settings

_ABOUT = (
    "One picture in, a textured 3D asset out: GLB, turntable video and cut-out. Send the picture to"
    " `POST /api/v1/image-to-3d`; the answer says where the files are."
)
_SHOWN_HEADERS = ("ETag", "Location", "Retry-After", "Content-Range", "X-Request-Id")


def create_app(settings: Settings, worker_command: Sequence[str] = WORKER_COMMAND) -> FastAPI:
    """The service as an application; nothing is started before it is served.

    worker_command: how a worker process is started, without its arguments.
    Raises OptionError where the file of API keys cannot be used.
    """
    service = Service(settings, worker_command)
    keys = settings.all_api_keys()
    app = FastAPI(
        title="onelook",
        description=_ABOUT,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda app: _lifespan(service),
    )
    shown = [Depends(HTTPBearer(auto_error=False, description="API key"))] if keys else []
    app.state.service, app.state.owner_of = service, owner_check(keys)
    app.include_router(open_router)
    add_main_route(app, settings.url_inputs, shown)
    app.include_router(router, dependencies=shown)
    app.include_router(docs_page.router)
    _add_error_answers(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_headers=["*"],
            allow_methods=["GET", "HEAD", "POST", "DELETE"], expose_headers=_SHOWN_HEADERS,
        )  # fmt: skip
    app.add_middleware(Envelope, measures=service.measures)
    return app


@contextlib.asynccontextmanager
async def _lifespan(service: Service) -> AsyncIterator[None]:
    set_up_logs()
    try:
        service.start()
    except OnelookError as error:
        log_event("cannot start", logging.ERROR, reason=str(error))
        raise
    log_event("started", host=service.settings.host)
    try:
        with _ending_in_good_order(service):
            yield
    finally:
        await service.stop()


@contextlib.contextmanager
def _ending_in_good_order(service: Service) -> Iterator[None]:
    """Before the server ends as it would have: at SIGTERM finish what was accepted, at Ctrl-C or a
    second SIGTERM give it up. Only the main thread can listen to signals.
    """
    loop = asyncio.get_running_loop()
    servers_own = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in servers_own.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def pass_on(number: int) -> None:
        restore()
        signal.raise_signal(number)

    def end_now(number: int) -> None:
        service.give_up()
        pass_on(number)

    def end_soon() -> None:
        if service.is_draining:
            end_now(signal.SIGTERM)
        else:
            drained = asyncio.ensure_future(service.drain())
            drained.add_done_callback(lambda _: pass_on(signal.SIGTERM))

    try:
        loop.add_signal_handler(signal.SIGTERM, end_soon)
        loop.add_signal_handler(signal.SIGINT, end_now, signal.SIGINT)
    except (ValueError, RuntimeError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        restore()


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return problem_answer(request, refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return problem_answer(request, Refusal(422, f"{name}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            return problem_answer(request, unknown())
        sentence = f"{error.detail}."
        return problem_answer(
            request, Refusal(error.status_code, sentence, dict(error.headers or {}))
        )
