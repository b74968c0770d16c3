"""Serves the offline model over HTTP: routes, errors in the API's envelope, streaming, counters. Decides nothing."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson
from aiohttp import web

from quarterdeck.offline_model.conversation import read_conversation
from quarterdeck.offline_model.message import compose, count_input_tokens
from quarterdeck.offline_model.script import next_step
from quarterdeck.offline_model.stream import events
from quarterdeck.offline_model.toolbox import Toolbox
from quarterdeck.offline_model.wire import (
    MODEL_NAME,
    CountRequest,
    ErrorKind,
    MessagesRequest,
    RequestError,
    decode,
    validate,
)

log = logging.getLogger("quarterdeck.offline_model")

LARGEST_BODY_BYTES = 32 * 1024 * 1024
"""The real service's limit."""
REMEMBERED_BODIES = 1_000
MODEL = {
    "type": "model",
    "id": MODEL_NAME,
    "display_name": "Quarterdeck's offline stand-in (not Claude)",
    "created_at": "1970-01-01T00:00:00Z",
    "lifecycle": "active",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Stats:
    """What was answered with a message, so that a test can see which requests were paid twice."""

    served: int = 0
    refused: int = 0
    bodies_sha256: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BODIES))

    def as_json(self) -> dict[str, Any]:
        return {"served": self.served, "refused": self.refused, "bodies_sha256": list(self.bodies_sha256)}


class OfflineModel:
    """The handlers. Keeps counters alone: every reply is made from its request."""

    def __init__(self, *, turn_delay: timedelta = timedelta(), delta_delay: timedelta = timedelta()) -> None:
        self._turn_delay = turn_delay
        self._delta_delay = delta_delay
        self._stats = Stats()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY_BYTES, middlewares=[self._answer_errors])
        app.on_response_prepare.append(_add_request_id)
        app.add_routes(
            [
                web.post("/v1/messages", self._create_message),
                web.post("/v1/messages/count_tokens", self._count_tokens),
                web.get("/v1/models", self._list_models),
                web.get(f"/v1/models/{MODEL_NAME}", self._get_model),
                web.get("/health", self._health),
                web.get("/_offline/stats", self._report_stats),
            ]
        )
        return app

    async def _create_message(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        decoded = decode(body)
        wanted = validate(MessagesRequest, decoded)
        step = next_step(read_conversation(wanted), Toolbox(wanted.tools, wanted.tool_choice))
        message = compose(step, decoded, body)
        self._stats.served += 1
        self._stats.bodies_sha256.append(hashlib.sha256(body).hexdigest())
        if self._turn_delay:
            await asyncio.sleep(self._turn_delay.total_seconds())
        return await self._stream(request, message) if wanted.stream else _json(message)

    async def _stream(self, request: web.Request, message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        # A client may go at any time, as an agent does whose run is cancelled.
        with suppress(ConnectionResetError):
            await self._write_events(response, message)
        return response

    async def _write_events(self, response: web.StreamResponse, message: dict[str, Any]) -> None:
        if not self._delta_delay:
            await response.write(b"".join(data for _, data in events(message)))
            return
        for name, data in events(message):
            await response.write(data)
            if name == "content_block_delta":
                await asyncio.sleep(self._delta_delay.total_seconds())

    async def _count_tokens(self, request: web.Request) -> web.Response:
        decoded = decode(await request.read())
        read_conversation(validate(CountRequest, decoded))
        return _json({"input_tokens": count_input_tokens(decoded)})

    async def _list_models(self, _: web.Request) -> web.Response:
        return _json({"data": [MODEL], "has_more": False, "first_id": MODEL_NAME, "last_id": MODEL_NAME})

    async def _get_model(self, _: web.Request) -> web.Response:
        return _json(MODEL)

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "model": MODEL_NAME})

    async def _report_stats(self, _: web.Request) -> web.Response:
        return _json(self._stats.as_json())

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Name each request by its content, refuse unnamed callers, and put every error in the API's envelope."""
        request["id"] = _request_id(request.path, b"")
        try:
            request["id"] = _request_id(request.path, await request.read())
            _require_key(request)
            response = await handler(request)
        except RequestError as error:
            response = self._refuse(request, error)
        except web.HTTPException as error:
            response = self._refuse(request, _as_request_error(request, error))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = RequestError("Internal error of the offline model", kind="api_error", status=500)
            response = self._refuse(request, failure)
        log.debug("%s %s %d %s", request.method, request.path, response.status, request["id"])
        return response

    def _refuse(self, request: web.Request, error: RequestError) -> web.Response:
        self._stats.refused += 1
        return _json(error.envelope(request["id"]), status=error.status)


async def _add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["request-id"] = request["id"]


def _request_id(path: str, body: bytes) -> str:
    return f"req_{hashlib.sha256(path.encode(errors='surrogateescape') + body).hexdigest()[:24]}"


def _require_key(request: web.Request) -> None:
    # Any key will do: what matters is that a client which forgot to send one notices here, not in production.
    key = request.headers.get("x-api-key") or request.headers.get("authorization")
    if request.path.startswith("/v1/") and not key:
        raise RequestError("x-api-key header is required", kind="authentication_error", status=401)


def _as_request_error(request: web.Request, error: web.HTTPException) -> RequestError:
    kinds: dict[int, ErrorKind] = {404: "not_found_error", 413: "request_too_large"}
    reasons = {
        404: "the offline model has no such path",
        405: "this path takes another method",
        413: f"the body is larger than {LARGEST_BODY_BYTES} bytes",
    }
    return RequestError(
        f"{request.method} {request.path}: {reasons.get(error.status, error.reason)}",
        kind=kinds.get(error.status, "invalid_request_error"),
        status=error.status,
    )


def _json(content: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")
