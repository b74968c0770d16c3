"""What every answer of the Worker API has in common: its errors and its times. Bodies are beside their endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field, PlainSerializer

from services.contracts.rest import Problem

FIRST_SERVER_ERROR = HTTPStatus.INTERNAL_SERVER_ERROR
_OF_REQUESTS = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
STATUSES: Mapping[int, int] = dict.fromkeys(_OF_REQUESTS, HTTPStatus.BAD_REQUEST)
"""The document knows one status for whatever is wrong with a request."""


class ErrorCode(StrEnum):
    VALIDATION_ERROR = "VALIDATION_ERROR"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    UNAUTHORIZED = "UNAUTHORIZED"
    NOT_FOUND = "NOT_FOUND"
    INTERNAL_ERROR = "INTERNAL_ERROR"


_CODES: Mapping[int, ErrorCode] = {
    HTTPStatus.UNAUTHORIZED: ErrorCode.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: ErrorCode.UNAUTHORIZED,
    HTTPStatus.NOT_FOUND: ErrorCode.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: ErrorCode.QUOTA_EXCEEDED,
}


def now() -> datetime:
    return datetime.now(UTC)


def iso_milliseconds(time: datetime) -> str:
    """As JavaScript writes it: `2025-01-06T00:00:00.000Z`."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[datetime, PlainSerializer(iso_milliseconds, return_type=str)]


class Error(BaseModel):
    error: ErrorCode
    message: str = Field(description="what was wrong, and with which field")
    timestamp: Timestamp = Field(default_factory=now)


def render(problem: Problem) -> Error:
    """A 429 that comes this far is a quota's: the limiter of rates stands before it, and answers by itself."""
    return Error(error=code_of(problem.status), message=problem.detail)


def code_of(status: int) -> ErrorCode:
    fallback = ErrorCode.INTERNAL_ERROR if status >= FIRST_SERVER_ERROR else ErrorCode.VALIDATION_ERROR
    return _CODES.get(status, fallback)


def error_response(
    status: int, code: ErrorCode, message: str, *, headers: Mapping[str, str] | None = None
) -> web.Response:
    """For a middleware, which stands around what renders the errors of handlers."""
    body = Error(error=code, message=message).model_dump_json().encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
