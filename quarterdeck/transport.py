"""HTTP requests to the gateway: key, deadlines, retries, and problem documents made into errors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Literal

import httpx
from pydantic import ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from tenacity.stop import stop_base

from quarterdeck.errors import (
    ApiError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    QuarterdeckError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
)
from services.contracts.rest import Problem

Parameters = Mapping[str, str | int]

TIMEOUT = httpx.Timeout(10.0, read=30.0)
"""Seconds for one request: to connect and to send; between two pieces of an answer."""

STREAM_TIMEOUT = httpx.Timeout(10.0, read=45.0)
"""The gateway sends a comment at least every 15 s: after three of them without one the connection is dead."""

MAX_PROBLEM_CHARACTERS = 300
_BACKOFF = wait_random_exponential(multiplier=0.1, max=5.0)
_UNAVAILABLE = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
_ERRORS: Mapping[int, type[ApiError]] = {
    HTTPStatus.BAD_REQUEST: InvalidRequestError,
    HTTPStatus.UNAUTHORIZED: UnauthorizedError,
    HTTPStatus.FORBIDDEN: UnauthorizedError,
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: InvalidRequestError,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidRequestError,
    HTTPStatus.TOO_MANY_REQUESTS: RateLimitedError,
}


class Transport:
    """One connection pool to one gateway.

    ``patience``: how long a request that may be repeated is tried again while nothing or only "not now" answers.
    """

    def __init__(self, address: str, api_key: str | None, patience: timedelta) -> None:
        self.address = address.rstrip("/")
        self.patience = patience
        self._http = httpx.AsyncClient(
            base_url=self.address,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=TIMEOUT,
            trust_env=not is_loopback(self.address),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, parameters: Parameters | None = None) -> httpx.Response:
        return await self._repeated("GET", path, params=parameters)

    async def post_once(self, path: str) -> httpx.Response:
        return await self._once("POST", path)

    async def send_once(
        self, method: Literal["POST", "PUT", "PATCH", "DELETE"], path: str, body: bytes
    ) -> httpx.Response:
        """A body that is not sent again: whether one without an answer has arrived is not known."""
        return await self._once(method, path, content=body, headers={"Content-Type": "application/json"})

    async def post(self, path: str, body: bytes, idempotency_key: str) -> httpx.Response:
        """A POST that may be repeated: the key makes the gateway take it once."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
        return await self._repeated("POST", path, content=body, headers=headers)

    def stream(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        """An open answer, not yet looked at; pass it to ``raise_for_answer`` and bring errors to ``no_answer``."""
        return self._http.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT)

    def no_answer(self, error: httpx.TransportError) -> UnavailableError:
        words = str(error) or type(error).__name__
        return UnavailableError(f"No answer from the gateway at {self.address}: {words}")

    async def _repeated(
        self,
        method: str,
        path: str,
        *,
        params: Parameters | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((UnavailableError, RateLimitedError)),
            wait=_wait_seconds,
            stop=_StopBefore(self.patience),
            reraise=True,
        )
        return await retrying(self._once, method, path, params=params, content=content, headers=headers)

    async def _once(
        self,
        method: str,
        path: str,
        *,
        params: Parameters | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            response = await self._http.request(method, path, params=params, content=content, headers=headers)
        except httpx.TransportError as error:
            raise self.no_answer(error) from error
        raise_for_answer(response)
        return response


class _StopBefore(stop_base):
    """Gives up where the next wait would pass the patience: a `Retry-After` is never cut short, nor outwaited."""

    def __init__(self, patience: timedelta) -> None:
        self._seconds = patience.total_seconds()

    def __call__(self, retry_state: RetryCallState) -> bool:
        return (retry_state.seconds_since_start or 0.0) + retry_state.upcoming_sleep > self._seconds


def _wait_seconds(retry_state: RetryCallState) -> float:
    error = retry_state.outcome.exception() if retry_state.outcome else None
    return max(_BACKOFF(retry_state), asked_wait_seconds(error))


def asked_wait_seconds(error: BaseException | None) -> float:
    """How long the gateway asked to wait; 0 where it did not."""
    if isinstance(error, UnavailableError | ApiError):
        return error.retry_after_seconds or 0.0
    return 0.0


def raise_for_answer(response: httpx.Response) -> None:
    """Raise what the status says; the answer's body must have been read where it is no success."""
    if response.is_success:
        return
    raise error_of(response)


def error_of(response: httpx.Response) -> QuarterdeckError:
    """The typed error for an answer that is no success."""
    problem, retry_after = _problem(response), _retry_after_seconds(response)
    if response.status_code in _UNAVAILABLE:
        return UnavailableError(f"The gateway cannot serve now: {problem.detail}", retry_after_seconds=retry_after)
    error_type = _ERRORS.get(response.status_code, ApiError)
    return error_type(response.status_code, problem, retry_after_seconds=retry_after)


def _problem(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy's page, say
        detail = response.text[:MAX_PROBLEM_CHARACTERS].strip() or "no detail was given"
        title = response.reason_phrase or "Error"
        return Problem(title=title, status=response.status_code, detail=detail)


def _retry_after_seconds(response: httpx.Response) -> float | None:
    """`Retry-After` as seconds or as a date (RFC 9110, 10.2.3); None where there is none to be read."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine: no proxy of the environment can reach it."""
    host = httpx.URL(address).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
