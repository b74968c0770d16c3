"""What happens around every call of a service: its id, its deadline, and words for errors that nobody foresaw."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeAlias, cast
from uuid import uuid4

import grpc
import grpc.aio
import structlog

from services.runtime.grpc.tokens import OPEN_TO_ALL, Context, Handler
from services.runtime.telemetry import logger

log = logger("grpc")

DEFAULT_DEADLINE: Final = timedelta(seconds=30)
REQUEST_ID_KEY: Final = "x-request-id"
_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

Single: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
Streaming: TypeAlias = Callable[[Any, Context], AsyncGenerator[Any, None]]


class CallsInterceptor(grpc.aio.ServerInterceptor):
    """``deadlines``: by a method's name, for calls that come without one; the others get ``DEFAULT_DEADLINE``."""

    def __init__(self, deadlines: Mapping[str, timedelta]) -> None:
        self._deadlines = deadlines

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN_TO_ALL):
            return handler
        name = details.method.rpartition("/")[2]
        limit = self._deadlines.get(name, DEFAULT_DEADLINE)
        coding = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            stream = _streaming(name, cast("Streaming", handler.unary_stream), limit)
            return grpc.unary_stream_rpc_method_handler(stream, **coding)
        return grpc.unary_unary_rpc_method_handler(_single(name, cast("Single", handler.unary_unary), limit), **coding)


def _single(name: str, handler: Single, limit: timedelta) -> Single:
    async def answer(request: Any, context: Context) -> Any:
        async with _call(name, context, limit):
            return await handler(request, context)

    return answer


def _streaming(name: str, handler: Streaming, limit: timedelta) -> Callable[[Any, Context], Awaitable[None]]:
    async def stream(request: Any, context: Context) -> None:
        async with _call(name, context, limit), aclosing(handler(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return stream


@asynccontextmanager
async def _call(name: str, context: Context, limit: timedelta) -> AsyncIterator[None]:
    request_id = _request_id(context)
    begun, outcome = time.monotonic(), "cancelled"
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        try:
            async with _own_deadline(name, context, limit):
                yield
            outcome = "ok"
        except grpc.aio.BaseError:  # a status is on its way, or nobody is there to read it
            outcome = "refused"
            raise
        except Exception:
            outcome = "failed"
            log.exception("call failed", method=name)
            words = f"something went wrong in this service; its log has more under the request id {request_id}"
            await context.abort(grpc.StatusCode.INTERNAL, words, ((REQUEST_ID_KEY, request_id),))
        finally:
            seconds = round(time.monotonic() - begun, 3)
            log.debug("call", method=name, outcome=outcome, seconds=seconds)


@asynccontextmanager
async def _own_deadline(name: str, context: Context, limit: timedelta) -> AsyncIterator[None]:
    """Of a call that has none from its client: where there is one, gRPC itself cancels the call."""
    seconds = limit.total_seconds() if context.time_remaining() is None else None
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield
    except TimeoutError:
        if not deadline.expired():
            raise
        words = f"{name} took longer than the {seconds:g} s that a call without a deadline of its own may take"
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, words)


def _request_id(context: Context) -> str:
    """The client's, where it is one that a log may show."""
    given = next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID_KEY), "")
    return given if isinstance(given, str) and _ACCEPTED_ID.fullmatch(given) else uuid4().hex
