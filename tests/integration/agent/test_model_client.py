"""The model client over real HTTP: every way in which a stream was seen to go wrong, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from services.agent.model import (
    Claude,
    Fragment,
    ModelRejectedError,
    ModelUnavailableError,
    Patience,
    PostponedError,
    Reply,
)
from tests.integration.agent.messages_server import Answer, MessagesServer, call, chunks, event, refused, said, whole

HASTE = Patience(shortest_seconds=0.001, longest_seconds=0.002)
DEADLINE_SECONDS = 60
READ = call(1, "read_file", path="a/rather/long/path.txt")
GOOD = whole(said("Reading."), READ)
TOOLS = [{"name": "read_file", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}}]
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


class Asked:
    """One request to the client, and what it told on the way."""

    def __init__(self, claude: Claude) -> None:
        self._claude = claude
        self.fragments: list[Fragment] = []
        self.resets: list[str] = []
        self.streaming = asyncio.Event()

    async def reply(self, **changes: Any) -> Reply:
        messages = [{"role": "user", "content": [said("Go.")]}]
        request: dict[str, Any] = {"model": "claude-sonnet-5-5", "system": "Be good.", "tools": TOOLS}
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._claude.reply(
                **{**request, "messages": messages, **changes}, on_fragment=self._on_fragment, on_reset=self._on_reset
            )

    def _on_fragment(self, fragment: Fragment) -> None:
        self.fragments.append(fragment)
        self.streaming.set()

    async def _on_reset(self, reason: str) -> None:
        self.fragments.clear()
        self.resets.append(reason)

    @property
    def text(self) -> str:
        return "".join(fragment.text for fragment in self.fragments if fragment.type == "text")


@pytest.fixture
async def server() -> AsyncIterator[MessagesServer]:
    async with MessagesServer() as server:
        yield server


@pytest.fixture
async def claude(server: MessagesServer) -> AsyncIterator[Claude]:
    claude = Claude(api_key="a key", base_url=server.url, model="claude-x", max_tokens=64_000, patience=HASTE)
    yield claude
    await claude.close()


@pytest.fixture
def asked(claude: Claude) -> Asked:
    return Asked(claude)


async def test_a_reply_and_its_fragments(server: MessagesServer, asked: Asked):
    server.answer(GOOD)
    reply = await asked.reply()
    assert reply.content == [said("Reading."), READ]
    assert (reply.stop_reason, reply.usage.input_tokens, reply.usage.output_tokens) == ("tool_use", 10, 5)
    assert asked.text == "Reading."
    assert asked.resets == []


async def test_what_is_asked(server: MessagesServer, asked: Asked):
    server.answer(GOOD, GOOD)
    await asked.reply()
    await asked.reply(model="claude-of-old")
    request, of_old = server.requests
    assert request["max_tokens"] == 64_000
    assert request["stream"] is True
    assert request["system"] == [{"type": "text", "text": "Be good.", "cache_control": {"type": "ephemeral"}}]
    assert request["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert "thinking" not in of_old, "what a model is not known to take is left out"
    assert "temperature" not in request


BEGINNING = chunks(said("Void."), READ)
BROKEN = {
    "clean end within a tool's input": Answer(BEGINNING[:-5]),
    "clean end without message_stop": Answer(BEGINNING[:-1]),
    "clean end with nothing in it": Answer([]),
    "cut within a tool's input": Answer(BEGINNING[:-5], then="cut"),
    "cut behind the last event": Answer(BEGINNING[:-1], then="cut"),
    "cut before anything": Answer([], then="cut"),
    "error event": Answer([*BEGINNING[:4], OVERLOADED]),
    "error event at once": Answer([OVERLOADED]),
    "chunk that is no JSON": Answer([*BEGINNING[:4], b"event: content_block_delta\ndata: {nonsense\n\n"]),
    "chunk that is no UTF-8": Answer([*BEGINNING[:4], b'event: content_block_delta\ndata: "\xff"\n\n']),
    "chunk that is no object": Answer([*BEGINNING[:4], b"event: content_block_delta\ndata: null\n\n"]),
    "chunk without its fields": Answer([*BEGINNING[:4], event("content_block_delta")]),
    "page of a proxy": Answer([b"<html>busy</html>"], headers={"content-type": "text/html"}),
    "429": refused(429, "Slow down", kind="rate_limit_error", retry_after="0"),
    "529": refused(529, "Overloaded", kind="overloaded_error"),
    "500": refused(500, "Oops", kind="api_error"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_what_passes_is_thrown_away_and_asked_again(server: MessagesServer, asked: Asked, broken: Answer):
    server.answer(broken, broken, GOOD)
    reply = await asked.reply()
    assert reply.content == [said("Reading."), READ]
    assert len(asked.resets) == 2
    assert all(asked.resets)
    assert asked.text == "Reading.", "what was void was reset"
    assert server.requests[1:] == server.requests[:-1], "the same request each time"


async def test_seven_failures_are_enough(server: MessagesServer, asked: Asked):
    server.ever_after = Answer(BEGINNING[:-1])
    with pytest.raises(ModelUnavailableError, match=r"before the reply was whole \(tried 7 times\)"):
        await asked.reply()
    assert len(server.requests) == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
async def test_a_request_that_can_never_succeed_fails_with_the_service_s_words(
    server: MessagesServer, asked: Asked, status: int
):
    server.answer(refused(status, "messages.0: no such thing"))
    with pytest.raises(ModelRejectedError, match=f"answered {status}: messages.0: no such thing"):
        await asked.reply()
    assert len(server.requests) == 1
    assert asked.resets == []


async def test_an_error_event_that_no_waiting_cures(server: MessagesServer, asked: Asked):
    words = "prompt is too long"
    server.answer(Answer([*BEGINNING[:4], event("error", error={"type": "invalid_request_error", "message": words})]))
    with pytest.raises(ModelRejectedError, match=words):
        await asked.reply()


async def test_an_hour_s_wait_is_put_off(server: MessagesServer, asked: Asked):
    server.answer(refused(429, "Slow down", kind="rate_limit_error", retry_after="3600"))
    with pytest.raises(PostponedError) as postponed:
        await asked.reply()
    assert postponed.value.delay == timedelta(hours=1)


async def test_unknown_events_and_pings_are_passed_over(server: MessagesServer, asked: Asked):
    odd = [event("ping"), event("comet", tail=["…"]), b": a comment\n\n", b"event: nothing\n\n"]
    server.answer(Answer([piece for chunk in GOOD.chunks for piece in (*odd, chunk)]))
    assert (await asked.reply()).content == [said("Reading."), READ]
    assert asked.resets == []


async def test_bytes_may_be_cut_anywhere(server: MessagesServer, asked: Asked):
    whole_stream = b"".join(chunks(said("Größe 😀"), READ))
    server.answer(Answer([whole_stream[place : place + 7] for place in range(0, len(whole_stream), 7)]))
    assert (await asked.reply()).content == [said("Größe 😀"), READ]


async def test_a_cancel_closes_the_connection(server: MessagesServer, asked: Asked):
    server.answer(Answer(GOOD.chunks, then="wait"))
    task = asyncio.create_task(asked.reply())
    await server.until(asked.streaming)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(server.gone)
    assert len(server.requests) == 1


async def test_a_cancel_before_the_first_byte_closes_the_connection(server: MessagesServer, asked: Asked):
    server.answer(Answer(chunks()[-2:], then="wait"))
    task = asyncio.create_task(asked.reply())
    await server.until(server.waits)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(server.gone)


async def test_nobody_listening_is_unavailable(claude: Claude, server: MessagesServer):
    nowhere = Claude(api_key="k", base_url="http://127.0.0.1:9", model="m", max_tokens=1_000, patience=HASTE)
    with pytest.raises(ModelUnavailableError, match="tried 7 times"):
        await Asked(nowhere).reply()
    await nowhere.close()
