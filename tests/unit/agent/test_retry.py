"""Which failures of the model service are asked again after, put off, or given up on; and how long is waited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import anthropic
import httpx2
import pytest
from anthropic.types import shared

from services.agent.model import (
    ModelRejectedError,
    ModelUnavailableError,
    Patience,
    PostponedError,
    StreamBrokenError,
)
from services.agent.model.reply import StreamFailedError
from services.agent.model.retry import retrying

REQUEST = httpx2.Request("POST", "http://model.invalid/v1/messages")
HASTE = Patience(shortest_seconds=0.0001, longest_seconds=0.0001)


def answered(status: int, words: str = "the words", *, code: str | None = None, **headers: str) -> Exception:
    """What the SDK raises for an answer with ``status``; ``code``: of its details."""
    details = {"details": {"error_code": code}} if code else {}
    body = {"type": "error", "error": {"type": "some_error", "message": words, **details}}
    response = httpx2.Response(
        status, request=REQUEST, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    return anthropic.APIStatusError(words, response=response, body=body)


def broken_off(kind: str, words: str = "the words", code: str | None = None) -> Exception:
    """What an `error` event within a stream comes to."""
    return StreamFailedError(kind, words, code)


class Failing:
    """A request that fails so often with ``error``, then succeeds."""

    def __init__(self, error: BaseException, times: int = 1) -> None:
        self._error = error
        self._times = times
        self.asked = 0
        self.told: list[str] = []
        self.throttled: list[timedelta] = []
        self.permits = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self._times:
            raise self._error
        return "a reply"

    async def on_retry(self, words: str) -> None:
        self.told.append(words)

    async def result(self, patience: Patience = HASTE) -> str:
        return await retrying(
            self, patience=patience, on_retry=self.on_retry, on_throttle=self.on_throttle, permit=self.permit
        )

    async def on_throttle(self, asked: timedelta) -> None:
        self.throttled.append(asked)

    async def permit(self) -> None:
        self.permits += 1


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr("services.agent.model.retry.asyncio.sleep", sleep)
    return asked


PASSING = [
    *(answered(status) for status in (408, 409, 429, 500, 502, 503, 504, 529)),
    answered(429, "This would exceed your usage limit's growth.", code="ramp_limit_exceeded"),
    answered(429, "Slow down.", code="never_heard_of"),
    *(broken_off(f"{kind}_error") for kind in ("overloaded", "api", "rate_limit", "timeout", "conflict")),
    *(broken_off(kind) for kind in ("internal_server_error", "overloaded", "never_heard_of")),
    anthropic.APIConnectionError(request=REQUEST),
    anthropic.APITimeoutError(REQUEST),
    httpx2.ReadError("cut"),
    httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
    httpx2.ReadTimeout("silence"),
    StreamBrokenError("ended before it was whole"),
    json.JSONDecodeError("a bad chunk", "{", 1),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a bad chunk"),
    ConnectionResetError("reset"),
]
# All that the SDK has types for, so that a new one is not missed.
SPENT_CODES = [
    name.removesuffix("_error_details") for name in dir(shared) if name.endswith("_spend_limit_reached_error_details")
]
SPENT = [
    answered(429, "Your account has reached its spend limit."),
    answered(429, "You have reached your specified API usage limits."),
    broken_off("rate_limit_error", "You have reached your specified API usage limits."),
    *(answered(429, "Requests are paused.", code=code) for code in SPENT_CODES),
    *(broken_off("rate_limit_error", "Requests are paused.", code) for code in SPENT_CODES),
]
LASTING = [
    *(answered(status) for status in (400, 401, 402, 403, 404, 413, 422)),
    *(broken_off(f"{kind}_error") for kind in ("invalid_request", "authentication", "permission")),
    *(broken_off(kind) for kind in ("billing_error", "not_found_error", "request_too_large")),
    *SPENT,
    answered(400, "Your credit balance is too low to access the API."),
    anthropic.AnthropicError("the client cannot be used so"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
async def test_what_passes_is_asked_again(error: Exception):
    request = Failing(error, times=2)
    assert await request.result() == "a reply"
    assert (request.asked, request.permits) == (3, 3), "each has to be let go"
    assert len(request.told) == 2
    assert all(request.told)


@pytest.mark.parametrize("error", LASTING, ids=repr)
async def test_what_no_waiting_cures_fails_at_once(error: Exception):
    request = Failing(error)
    with pytest.raises(ModelRejectedError) as rejected:
        await request.result()
    assert request.asked == 1
    assert request.told == []
    assert rejected.value.__cause__ is error


async def test_the_service_s_own_words_are_passed_on():
    with pytest.raises(ModelRejectedError, match=r"^the model service answered 400: max_tokens: too large$"):
        await Failing(answered(400, "max_tokens: too large")).result()
    broken = Failing(broken_off("overloaded_error", "Overloaded"))
    await broken.result()
    assert broken.told == ["the model service broke its reply off: Overloaded"]


async def test_an_answer_that_is_no_json_still_says_something():
    response = httpx2.Response(403, request=REQUEST, text="<html>proxy</html>")
    with pytest.raises(ModelRejectedError, match="answered 403: <html>proxy"):
        await Failing(anthropic.APIStatusError("<html>proxy</html>", response=response, body="<html>")).result()


async def test_a_bug_is_not_tried_again():
    request = Failing(KeyError("a bug"))
    with pytest.raises(KeyError):
        await request.result()
    assert request.asked == 1


async def test_seven_tries_then_unavailable():
    request = Failing(answered(529, "Overloaded"), times=100)
    with pytest.raises(ModelUnavailableError, match=r"529: Overloaded \(tried 7 times\)"):
        await request.result()
    assert request.asked == 7
    assert len(request.told) == 6


async def test_waits_double_up_to_a_ceiling_with_jitter(waits: list[float]):
    with pytest.raises(ModelUnavailableError):
        await Failing(answered(500), times=100).result(Patience(tries=10))
    ceilings = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(waits) == len(ceilings)
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, ceilings, strict=True))


@pytest.mark.parametrize(
    ("header", "least", "most"), [("30", 30, 30), ("0", 0.5, 1), ("300", 300, 300), ("-5", 0.5, 1)]
)
async def test_waits_at_least_as_long_as_the_service_asks(waits: list[float], header: str, least: float, most: float):
    """But never less than it would by itself: an answer of 0 is no leave to hammer on."""
    await Failing(answered(429, retry_after=header)).result(Patience())
    (wait,) = waits
    assert least <= wait <= most


@pytest.mark.parametrize(
    "header",
    ["nan", "inf", "soon", "", "Fri, 21 Oct 2022 07:28:00 GMT", "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"],
)
async def test_a_retry_after_that_tells_of_no_wait_is_passed_over(waits: list[float], header: str):
    assert await Failing(answered(503, retry_after=header)).result(Patience()) == "a reply"
    assert waits[0] <= 1


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
async def test_a_retry_after_may_be_a_date(waits: list[float], form: str):
    soon = datetime.now(UTC) + timedelta(seconds=200)
    await Failing(answered(503, retry_after=soon.strftime(form))).result(Patience())
    assert 190 < waits[0] <= 200
    later = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(PostponedError) as postponed:
        await Failing(answered(503, retry_after=later.strftime(form))).result(Patience())
    assert timedelta(minutes=59) < postponed.value.delay <= timedelta(hours=1)


@pytest.mark.parametrize(
    ("header", "delay"), [("301", timedelta(seconds=301)), ("3600", timedelta(hours=1)), ("1e300", timedelta(days=1))]
)
async def test_longer_than_a_slot_is_worth_is_put_off(header: str, delay: timedelta):
    request = Failing(answered(429, "Slow down", retry_after=header))
    with pytest.raises(PostponedError, match="429: Slow down") as postponed:
        await request.result(Patience())
    assert postponed.value.delay == delay
    assert request.asked == 1


async def test_the_last_try_is_put_off_too():
    request = Failing(answered(429, retry_after="3600"))
    with pytest.raises(PostponedError):
        await request.result(Patience(tries=1))


async def test_a_cancel_ends_the_wait():
    waiting = asyncio.Event()

    async def on_retry(_: str) -> None:
        waiting.set()

    async def at_once() -> None: ...

    async def never(_: timedelta) -> None:
        raise AssertionError("nothing was said of too many requests")

    request: Callable[[], Awaitable[str]] = Failing(answered(500), times=100)
    task = asyncio.create_task(
        retrying(
            request, patience=Patience(shortest_seconds=3600), on_retry=on_retry, on_throttle=never, permit=at_once
        )
    )
    async with asyncio.timeout(30):
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("error", "throttled"),
    [
        (answered(429, retry_after="7"), [timedelta(seconds=7)]),
        (answered(529), [timedelta()]),
        (broken_off("overloaded_error"), [timedelta()]),
        (broken_off("rate_limit_error"), [timedelta()]),
        (answered(500), []),
        (broken_off("api_error"), []),
        (StreamBrokenError("cut"), []),
    ],
    ids=repr,
)
async def test_too_many_requests_are_a_matter_of_the_whole_fleet(
    error: Exception, throttled: list[timedelta], waits: list[float]
):
    request = Failing(error)
    await request.result()
    assert request.throttled == throttled


def test_the_codes_of_spent_limits_are_found():
    assert {"enforced_spend_limit_reached", "contract_spend_limit_reached"} <= set(SPENT_CODES)


@pytest.mark.parametrize("error", SPENT, ids=repr)
async def test_a_spent_limit_slows_nobody_else(error: Exception):
    request = Failing(error)
    with pytest.raises(ModelRejectedError):
        await request.result()
    assert request.throttled == []
