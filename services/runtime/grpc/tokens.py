"""The bearer token that one service shows another with every call."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeAlias

import grpc
import grpc.aio

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

OPEN_TO_ALL: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")
_MISSING: Final = "a token is needed: send the metadata `authorization: Bearer TOKEN`"
_WRONG: Final = "the token is not the one that this service was started with: give both the same"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that ``BearerInterceptor`` asks for."""
    return (("authorization", f"Bearer {token}"),)


class BearerInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without `authorization: Bearer <token>`, health and reflection apart, before it is read."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN_TO_ALL):
            return handler
        given = dict(details.invocation_metadata).get("authorization", "")
        if isinstance(given, str) and hmac.compare_digest(given.encode(), self._expected):
            return handler
        return _refusing(handler, _WRONG if given else _MISSING)


def _refusing(handler: Handler, words: str) -> Handler:
    """A handler of the same arity that only refuses."""

    async def refuse(_: Any, context: Context) -> NoReturn:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, words)

    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
