"""Retries of our own: visible, cancellable, in one place. The SDK's are off, since they sleep through anything."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any, TypeVar

import httpx2

from services.agent.model.reply import StreamBrokenError, StreamFailedError
from services.agent.model.sdk import anthropic
from services.agent.side_by_side import side_by_side

Result = TypeVar("Result")

_RETRYABLE_STATUSES = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
# What an `error` event within a stream calls itself where an answer's status would have been one of 400 to 404, or 413.
# All else passes: no list of what the service may have trouble with is complete.
_LASTING_TYPES = {
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
}
# The service has too many requests: a matter of the whole fleet.
_TOO_MANY_STATUSES = {HTTPStatus.TOO_MANY_REQUESTS, 529}
_TOO_MANY_TYPES = {"overloaded_error", "rate_limit_error"}
# `error.details.error_code` of a 429 that no waiting cures, and of one that waiting does. Words may change, so they
# count only where neither is told: a limit that its owner has set comes without a code.
_SPENT_CODES = {
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "linked_organization_spend_limit_reached",
}
_PASSING_CODES = {"ramp_limit_exceeded"}
_SPENT_WORDS = ("spend limit", "credit balance", "usage limit")
_TOO_LONG = "prompt is too long"
_LONGEST_DELAY_SECONDS = 24 * 3600.0
# Of the ceiling that doubles: over a half, so that each wait is longer than the one before.
_LEAST_SHARE = 0.6

# What a request can fail with for reasons outside of this process; all else is a bug of ours.
_FAILURES = (
    anthropic.AnthropicError,
    httpx2.HTTPError,
    StreamBrokenError,
    StreamFailedError,
    JSONDecodeError,
    UnicodeDecodeError,
    OSError,
)


class ModelRejectedError(Exception):
    """The request can never succeed as it is: key, permission, model name, size, or a spent limit."""


class ContextExhaustedError(ModelRejectedError):
    """The conversation no longer fits the model's window."""


class ModelUnavailableError(Exception):
    """The model service failed at every try."""


class PostponedError(Exception):
    """The model service asks to stay away for longer than is worth holding a slot."""

    def __init__(self, delay: timedelta, words: str) -> None:
        super().__init__(words)
        self.delay = delay


@dataclass(frozen=True)
class Patience:
    tries: int = 7
    """The first and six retries."""
    shortest_seconds: float = 1
    longest_seconds: float = 60
    longest_wait: timedelta = timedelta(minutes=5)
    """A longer `retry-after` gives the slot back."""


async def retrying(
    request: Callable[[], Awaitable[Result]],
    *,
    patience: Patience,
    on_retry: Callable[[str], Awaitable[None]],
    on_throttle: Callable[[timedelta], Awaitable[None]],
    permit: Callable[[], Awaitable[None]],
) -> Result:
    """Make ``request`` until it succeeds; ``on_retry`` is told why before each wait, ``on_throttle`` how long the
    service asks to stay away where it has too many requests. ``permit`` comes back when a request may be sent.

    Raises ``ModelRejectedError``, ``ModelUnavailableError``, ``PostponedError``.
    """
    await permit()
    for number in range(1, patience.tries + 1):
        try:
            return await request()
        except _FAILURES as error:
            if _is_throttling(error):
                await on_throttle(min(_retry_after(error), patience.longest_wait))
            wait = _wait(error, number, patience)
            await on_retry(_words(error))
            # At once, not one after the other: whichever is longer.
            await side_by_side(asyncio.sleep(wait.total_seconds()), _done(permit))
    raise AssertionError("the last try returns or raises")


async def _done(permit: Callable[[], Awaitable[None]]) -> None:
    await permit()


def _wait(error: Exception, number: int, patience: Patience) -> timedelta:
    """How long to wait after try ``number``; raises what ``error`` comes to where there is no next one."""
    words = _words(error)
    if not _is_retryable(error):
        raise (ContextExhaustedError if _TOO_LONG in words else ModelRejectedError)(words) from error
    asked = _retry_after(error)
    if asked > patience.longest_wait:
        raise PostponedError(asked, words) from error
    if number == patience.tries:
        raise ModelUnavailableError(f"{words} (tried {number} times)") from error
    ceiling = min(patience.longest_seconds, patience.shortest_seconds * 2 ** (number - 1))
    own = timedelta(seconds=random.uniform(_LEAST_SHARE * ceiling, ceiling))  # noqa: S311  jitter, not a secret
    return max(asked, own)


def _is_throttling(error: BaseException) -> bool:
    if isinstance(error, StreamFailedError):
        return error.kind in _TOO_MANY_TYPES and not _is_spent(error)
    if isinstance(error, anthropic.APIStatusError):
        return error.status_code in _TOO_MANY_STATUSES and not _is_spent(error)
    return False


def _is_retryable(error: BaseException) -> bool:
    if isinstance(error, StreamFailedError):
        return error.kind not in _LASTING_TYPES and not _is_spent(error)
    if isinstance(error, anthropic.APIStatusError):
        passes = error.status_code in _RETRYABLE_STATUSES or error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        return passes and not _is_spent(error)
    # Transport errors, bad chunks, broken streams. Of the SDK's own errors only those of the connection.
    return not isinstance(error, anthropic.AnthropicError) or isinstance(error, anthropic.APIConnectionError)


def _is_spent(error: StreamFailedError | anthropic.APIStatusError) -> bool:
    code = error.code if isinstance(error, StreamFailedError) else error.error_code
    if code in _SPENT_CODES or code in _PASSING_CODES:
        return code in _SPENT_CODES
    words = _words(error).lower()
    return any(phrase in words for phrase in _SPENT_WORDS)


def _error_body(error: anthropic.APIStatusError) -> dict[str, Any]:
    body: Any = error.body
    inner = body.get("error") if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _words(error: BaseException) -> str:
    if isinstance(error, StreamFailedError):
        return f"the model service broke its reply off: {error}"
    if isinstance(error, anthropic.APIStatusError):
        said = _error_body(error).get("message") or error.message
        return f"the model service answered {error.status_code}: {said}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after(error: BaseException) -> timedelta:
    """What the service asks for, a day at most; else 0.

    In seconds or until a date (RFC 9110 10.2.3), or more exactly in a header of its own.
    """
    if not isinstance(error, anthropic.APIStatusError):
        return timedelta()
    exact, plain = (error.response.headers.get(name, "") for name in ("retry-after-ms", "retry-after"))
    try:
        seconds = float(exact) / 1000 if exact else float(plain)
    except ValueError:
        seconds = _seconds_until(plain)
    return timedelta(seconds=min(max(0.0, seconds), _LONGEST_DELAY_SECONDS) if math.isfinite(seconds) else 0)


def _seconds_until(date: str) -> float:
    """0 where ``date`` is none. Each of the three forms that HTTP knows is in UTC."""
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return 0
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
