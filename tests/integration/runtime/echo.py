"""A small service behind the real server: says a request back, fails, or never ends."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio

from services.runtime.grpc import NO_TLS, GrpcSecurity, bearer, explained, listen, make_channel, make_server

TOKEN = "a token"
DEADLINE_SECONDS = 30


async def _say(request: bytes, context: Any) -> bytes:
    match request:
        case b"fail":
            raise RuntimeError("password=hunter2")
        case b"stay":
            await asyncio.Event().wait()
        case b"time out":
            raise TimeoutError("of a part")
    return request


async def _stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"begun"
    yield await _say(request, context)


@asynccontextmanager
async def serving(
    address: str, security: GrpcSecurity = NO_TLS, *, deadlines: Mapping[str, timedelta] | None = None
) -> AsyncIterator[str]:
    """A server at ``address``; the address that it got."""
    server = make_server(TOKEN, deadlines)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Say": grpc.unary_unary_rpc_method_handler(_say),
        "Stream": grpc.unary_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Echo", handlers),))
    listening = listen(server, address, security)
    await server.start()
    try:
        yield listening
    finally:
        await server.stop(None)


async def say(
    address: str,
    text: bytes = b"hello",
    security: GrpcSecurity = NO_TLS,
    *,
    token: str | None = TOKEN,
    timeout: float | None = DEADLINE_SECONDS,
    **options: Any,
) -> bytes:
    """What the server answers."""
    async with make_channel(address, security, **options) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/Echo/Say")
        return await method(text, metadata=bearer(token) if token else (), timeout=timeout)


def opened(
    channel: grpc.aio.Channel, text: bytes, *, timeout: float | None = None, token: str = TOKEN
) -> grpc.aio.UnaryStreamCall[bytes, bytes]:
    """A stream under way: `begun`, then what the server says."""
    method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/Echo/Stream")
    return method(text, metadata=bearer(token), timeout=timeout)


async def stream(address: str, text: bytes, **options: Any) -> list[bytes]:
    async with make_channel(address) as channel:
        return [message async for message in opened(channel, text, **options)]


async def refusal(call: Any) -> tuple[str, str]:
    """The status that ``call`` fails with, and what it means, in words."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, explained(error)
    raise AssertionError(f"answered {answer!r}")
