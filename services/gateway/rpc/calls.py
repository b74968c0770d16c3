"""What happens around every call of Jobs: its id, who calls, its deadline, its errors in our words, one log line."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, cast
from uuid import uuid4

import grpc
import grpc.aio
import structlog

from services.gateway.auth import Authenticator
from services.gateway.credentials import bearer_key
from services.gateway.rpc.errors import (
    REQUEST_ID_KEY,
    Context,
    Refusal,
    SlowReaderError,
    TookTooLongError,
    UnauthenticatedError,
)
from services.jobs.models import Client
from services.runtime.grpc import Handler
from services.runtime.telemetry import logger

log = logger("gateway.rpc")

CALL_SECONDS = 10.0
"""For a call with one answer whose client has set no deadline."""
WRITE_SECONDS = 10.0
OPEN_TO_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.")
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NO_KEY = "an API key is needed: send the metadata `authorization: Bearer YOUR_KEY`"
_UNKNOWN_KEY = "this API key is not known here; check it for a typing error, or ask who runs this server for one"

Single: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
Streaming: TypeAlias = Callable[[Any, Context], AsyncGenerator[Any, None]]

_caller: ContextVar[Client] = ContextVar("caller")


def caller() -> Client:
    """Whose call is being served."""
    return _caller.get()


class Calls(grpc.aio.ServerInterceptor):
    """Guards every service but health and reflection."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN_TO_ALL):
            return handler
        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            stream = self._streaming(details.method, cast("Streaming", handler.unary_stream))
            return grpc.unary_stream_rpc_method_handler(stream, **coding)
        answer = self._single(details.method, cast("Single", handler.unary_unary))
        return grpc.unary_unary_rpc_method_handler(answer, **coding)

    def _single(self, method: str, handler: Single) -> Single:
        async def answer(request: Any, context: Context) -> Any:
            async with self._call(method, context), _own_deadline(context):
                await self._authenticate(context)
                return await handler(request, context)

        return answer

    def _streaming(self, method: str, handler: Streaming) -> Callable[[Any, Context], Awaitable[None]]:
        async def stream(request: Any, context: Context) -> None:
            async with self._call(method, context):
                await self._authenticate(context)
                async with aclosing(handler(request, context)) as messages:
                    async for message in messages:
                        await _write(context, message)

        return stream

    async def _authenticate(self, context: Context) -> None:
        """Raises ``UnauthenticatedError``, ``StoreUnavailableError``."""
        given = _metadata(context, "authorization")
        key = bearer_key(given or "")
        client = await self._authenticator.client_of(key) if key else None
        if client is None:
            raise UnauthenticatedError(_NO_KEY if given is None else _UNKNOWN_KEY)
        _caller.set(client)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        given = _metadata(context, REQUEST_ID_KEY) or ""
        request_id = given if _ACCEPTED_ID.fullmatch(given) else uuid4().hex
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        begun, status = time.monotonic(), "CANCELLED"
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                yield
                status = grpc.StatusCode.OK.name
            except Exception as error:  # noqa: BLE001  every error is logged or told there
                refusal = Refusal.of(error, request_id=request_id)
                status = refusal.code.name
                await refusal.abort(context, request_id=request_id)
            finally:
                milliseconds = round((time.monotonic() - begun) * 1_000, 1)
                log.info("call", method=method, status=status, milliseconds=milliseconds)


@asynccontextmanager
async def _own_deadline(context: Context) -> AsyncIterator[None]:
    """Of a call whose client has set none: where there is one, gRPC itself cancels the call."""
    limit = CALL_SECONDS if context.time_remaining() is None else None
    try:
        async with asyncio.timeout(limit) as deadline:
            yield
    except TimeoutError as error:
        if deadline.expired():
            raise TookTooLongError from error
        raise


async def _write(context: Context, message: Any) -> None:
    """Waits for the client to read, but not for ever: meanwhile its events pile up."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await context.write(message)
    except TimeoutError as error:
        raise SlowReaderError from error


def _metadata(context: Context, key: str) -> str | None:
    """The first value; None where there is none."""
    values = (value for name, value in context.invocation_metadata() or () if name == key)
    value = next(values, None)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
