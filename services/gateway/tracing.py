"""An id for every request, in its answer and in each of its log lines, and one line when it is over."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from uuid import uuid4

import structlog
from aiohttp import web

from services.runtime.telemetry import logger

log = logger("gateway.requests")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("request_id", str)
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take the caller's `X-Request-Id` where it is a plain word, else make one."""
    given = request.headers.get("X-Request-Id", "")
    request_id = given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex
    request[REQUEST_ID] = request_id
    begun = time.monotonic()
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = await handler(request)
        tell = log.debug if request.path == "/health" else log.info
        milliseconds = round((time.monotonic() - begun) * 1_000, 1)
        tell("request", method=request.method, path=request.path, status=response.status, milliseconds=milliseconds)
        return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For the signal `on_response_prepare`: what every answer carries, streams included."""
    if request_id := request.get(REQUEST_ID):
        response.headers["X-Request-Id"] = request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
