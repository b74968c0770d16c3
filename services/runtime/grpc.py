"""gRPC between services: servers with a bearer token, channels with deadlines, limits that fit patches."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

# A patch travels whole in one message; the default of 4 MiB would refuse what a run may well deliver.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_LIMITS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]
_OPEN_TO_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class BearerInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without `authorization: Bearer <token>`, health and reflection apart."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        if details.method.startswith(_OPEN_TO_ALL):
            return await continuation(details)
        given = dict(details.invocation_metadata).get("authorization", "")
        if isinstance(given, str) and hmac.compare_digest(given.encode(), self._expected):
            return await continuation(details)
        handler = await continuation(details)
        return _refuse_like(handler)


async def _refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "authorization: Bearer <token> is missing or wrong")


async def _refuse_stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    await _refuse(request, context)
    yield  # an async generator is what a streaming method must be


def _refuse_like(handler: Handler | None) -> Handler:
    """A handler of the same arity that only refuses."""
    if handler is not None and handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(_refuse_stream)
    return grpc.unary_unary_rpc_method_handler(_refuse)


def make_server(token: str) -> grpc.aio.Server:
    """A server that asks for ``token`` and refuses a port that another server already has."""
    return grpc.aio.server(interceptors=[BearerInterceptor(token)], options=[*_LIMITS, ("grpc.so_reuseport", 0)])


def make_channel(address: str) -> grpc.aio.Channel:
    """A channel that reconnects by itself, within a second of the server's return."""
    return grpc.aio.insecure_channel(
        address,
        options=[*_LIMITS, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)],
    )


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that ``make_server`` asks for."""
    return (("authorization", f"Bearer {token}"),)
