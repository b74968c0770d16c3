"""Around every call: the token, a deadline where the caller set none, and words instead of internals."""

import asyncio
from datetime import timedelta

import pytest
import structlog

from tests.integration.runtime.echo import refusal, say, serving, stream

SHORT = {"Say": timedelta(seconds=0.3), "Stream": timedelta(seconds=0.3)}
LOOPBACK = "127.0.0.1:0"


async def test_a_call_and_a_stream_are_answered():
    async with serving(LOOPBACK) as address:
        assert await say(address) == b"hello"
        assert await stream(address, b"there") == [b"begun", b"there"]


@pytest.mark.parametrize(("token", "words"), [(None, "a token is needed"), ("another", "not the one that this")])
async def test_without_the_token_nothing_is_answered(token: str | None, words: str):
    async with serving(LOOPBACK) as address:
        code, told = await refusal(say(address, token=token))
        assert (code, words in told) == ("UNAUTHENTICATED", True)
        assert "a token" not in told.replace("a token is needed", "")


async def test_a_stream_needs_the_token_too():
    async with serving(LOOPBACK) as address:
        code, _ = await refusal(stream(address, b"x", token="another"))
        assert code == "UNAUTHENTICATED"


@pytest.mark.parametrize("call", [say, stream])
async def test_a_call_without_a_deadline_gets_the_one_of_its_method(call):
    async with serving(LOOPBACK, deadlines=SHORT) as address:
        code, told = await refusal(call(address, b"stay", timeout=None))
        assert code == "DEADLINE_EXCEEDED"
        assert "longer than the 0.3 s" in told


async def test_a_deadline_of_the_caller_is_the_one_that_counts():
    async with serving(LOOPBACK, deadlines=SHORT) as address:
        staying = asyncio.create_task(say(address, b"stay"))
        # That of its method passes meanwhile, as that of this one does.
        await refusal(say(address, b"stay", timeout=None))
        assert not staying.done()
        staying.cancel()
        await asyncio.wait([staying])


@pytest.mark.parametrize("text", [b"fail", b"time out"])
@pytest.mark.parametrize("call", [say, stream])
async def test_an_error_that_nobody_foresaw_is_logged_and_not_told(call, text: bytes):
    async with serving(LOOPBACK) as address:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
            code, told = await refusal(call(address, text))
    assert code == "INTERNAL"
    assert "hunter2" not in told
    (failure,) = [entry for entry in logs if entry["event"] == "call failed"]
    assert told.endswith(failure["request_id"])
