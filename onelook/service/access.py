"""Around every request: an id, headers, one log line, and no error that says too much."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Sequence

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onelook.service.logs import log_event
from onelook.service.measures import Measures
from onelook.service.refusals import Refusal

_BROKE = "Something went wrong in the service; tell the operator this id."


class Envelope:
    """The outermost layer: nothing that is raised below gets past it."""

    def __init__(self, app: ASGIApp, measures: Measures):
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = identifier
        begin, code = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Request-Id"] = identifier
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            code = code or 499
        except Exception as error:
            trace = (type(error), error, error.__traceback__)
            logging.getLogger("onelook.service").error(
                "request broke", exc_info=trace, extra={"fields": {"request_id": identifier}}
            )
            if code == 0:
                answer = JSONResponse({"detail": _BROKE, "id": identifier}, 500)
                await answer(scope, receive, send_on)
        finally:
            self._tell(scope, code, time.perf_counter() - begin)

    def _tell(self, scope: Scope, code: int, seconds: float) -> None:
        """Count and log the request by its route: an address may hold what is none's business."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._measures.requests.labels(route, method, str(code)).inc()
        self._measures.request_seconds.labels(route).observe(seconds)
        if route in _QUIET_ROUTES and code < 400:
            return
        log_event(
            "request", request_id=scope["state"]["request_id"],
            job_id=scope["state"].get("job_id"), method=method, route=route, code=code,
            seconds=round(seconds, 4),
        )  # fmt: skip


_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_QUIET_ROUTES = ("/health", "/ready", "/metrics", "/api/v1/jobs/{job_id}")  # asked all the time


def problem_answer(request: Request, refusal: Refusal) -> JSONResponse:
    identifier = refusal.identifier or request.state.request_id
    body = {"detail": refusal.sentence, "id": identifier}
    return JSONResponse(body, refusal.code, refusal.headers)


def owner_check(keys: Sequence[str]) -> Callable[[Request], str]:
    """A function that says whose request this is: "" without keys, else the key's own name.

    The key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`. It is compared with every key
    there is, in a time that depends on none of them.
    """
    digests = [_digest(key) for key in keys]

    def owner_of(request: Request) -> str:
        if not digests:
            return ""
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        sent = bearer.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "")
        found, digest = "", _digest(sent)
        for known in digests:
            if hmac.compare_digest(known, digest):
                found = known[:16]
        if not found:
            raise Refusal(
                401, "An API key is needed: send it as Authorization: Bearer KEY.",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return found

    return owner_of


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
