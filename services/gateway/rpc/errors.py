"""Whatever goes wrong with a call, as a gRPC status with REST's problem document in its trailing metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio

from services.contracts.rest import Problem, ProblemField
from services.gateway.events.hub import SubscriptionEndedError
from services.gateway.events.position import BadPositionError
from services.gateway.problems import ProblemError
from services.jobs.errors import (
    BadCursorError,
    IdempotencyMismatchError,
    NotAllowedError,
    NotCancellableError,
    NotFoundError,
    NotRetryableError,
    NotWaitingError,
    RefusedFieldError,
    SecretsError,
    TooManyQueuedError,
)
from services.runtime.jetstream import BusUnavailableError
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.rpc")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

PROBLEM_KEY = "qd-problem-bin"
REQUEST_ID_KEY = "x-request-id"
MOST_PROBLEM_BYTES = 3_000
"""Clients take 8 KiB of metadata in all, in which it travels as base64 beside the status's message."""
MOST_MESSAGE_CHARACTERS = 500
ABORT_SECONDS = 2.0


class UnauthenticatedError(Exception):
    """Who calls is not known; its words say what to send."""


class TookTooLongError(Exception):
    """The call took longer than the server lets one take whose client has set no deadline; look whether it was done."""


class SlowReaderError(Exception):
    """The client does not read its stream: watch again with the last position seen."""


_CODES: Mapping[type[Exception], grpc.StatusCode] = {
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    BadCursorError: grpc.StatusCode.INVALID_ARGUMENT,
    BadPositionError: grpc.StatusCode.INVALID_ARGUMENT,
    # The request is right in itself: what stands in its way is what the key has made already.
    IdempotencyMismatchError: grpc.StatusCode.ALREADY_EXISTS,
    NotCancellableError: grpc.StatusCode.FAILED_PRECONDITION,
    NotRetryableError: grpc.StatusCode.FAILED_PRECONDITION,
    NotWaitingError: grpc.StatusCode.FAILED_PRECONDITION,
    SecretsError: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyQueuedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    BusUnavailableError: grpc.StatusCode.UNAVAILABLE,
    SubscriptionEndedError: grpc.StatusCode.UNAVAILABLE,
    SlowReaderError: grpc.StatusCode.UNAVAILABLE,
    TookTooLongError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# The words of the others are for the client already.
_WORDS: Mapping[type[Exception], str] = {
    StoreUnavailableError: "the server cannot reach its database at this moment; nothing is lost, try again",
    BusUnavailableError: "the server cannot read the event stream at this moment; watch again with the last position",
    SubscriptionEndedError: str(SubscriptionEndedError.__doc__),
    SlowReaderError: str(SlowReaderError.__doc__),
    TookTooLongError: str(TookTooLongError.__doc__),
}
_FIELDS: Mapping[type[Exception], str] = {
    IdempotencyMismatchError: "idempotencyKey",
    BadCursorError: "cursor",
    BadPositionError: "lastPosition",
}
_HTTP: Mapping[grpc.StatusCode, HTTPStatus] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.UNPROCESSABLE_ENTITY,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


@dataclass(frozen=True)
class Refusal:
    """How a call ends that cannot be served."""

    code: grpc.StatusCode
    problem: Problem

    @classmethod
    def of(cls, error: Exception, *, request_id: str) -> Refusal:
        """For any error; one that nobody foresaw is logged, and nothing of it is told."""
        if isinstance(error, ProblemError):
            # A request's fields are all that the shared validation refuses.
            return cls._made(grpc.StatusCode.INVALID_ARGUMENT, error.detail, error.errors)
        if isinstance(error, RefusedFieldError):
            named = ProblemField(field=error.field, message=error.message)
            return cls._made(grpc.StatusCode.INVALID_ARGUMENT, str(error), [named])
        code = _CODES.get(type(error))
        if code is None:
            log.error("call failed", exc_info=error)
            words = f"something went wrong in the server; its log has more under the request id {request_id}"
            return cls._made(grpc.StatusCode.INTERNAL, words)
        if isinstance(error, StoreUnavailableError):
            log.warning("Postgres is away", error=str(error))
        words = _WORDS.get(type(error)) or str(error)
        field = _FIELDS.get(type(error))
        return cls._made(code, words, [ProblemField(field=field, message=words)] if field else [])

    @classmethod
    def _made(cls, code: grpc.StatusCode, detail: str, errors: list[ProblemField] | None = None) -> Refusal:
        status = _HTTP[code]
        return cls(code, Problem(title=status.phrase, status=status, detail=detail, errors=errors or []))

    def encoded(self) -> bytes:
        """The problem as JSON, without the last of its fields where they would not fit."""
        problem = self.problem.model_copy(update={"errors": list(self.problem.errors)})
        while len(data := problem.model_dump_json(by_alias=True).encode()) > MOST_PROBLEM_BYTES and problem.errors:
            problem.errors.pop()
        return data

    async def abort(self, context: Context, *, request_id: str) -> NoReturn:
        """End the call; does not wait for long for a client that does not read."""
        trailing = ((REQUEST_ID_KEY, request_id), (PROBLEM_KEY, self.encoded()))
        try:
            async with asyncio.timeout(ABORT_SECONDS):
                await context.abort(self.code, self.problem.detail[:MOST_MESSAGE_CHARACTERS], trailing)
        except TimeoutError:
            # The status goes out once the client reads again; until then the connection keeps it.
            log.info("the client does not read its status", code=self.code.name)
        raise grpc.aio.AbortError
