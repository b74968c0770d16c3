"""The model client over real HTTP: every way in which a stream was seen to go wrong, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from services.agent.model import (
    INTERRUPTED,
    Claude,
    Endpoint,
    Fragment,
    ModelRejectedError,
    ModelUnavailableError,
    Patience,
    PostponedError,
    Profile,
    Reply,
    Request,
    Watch,
    encode_head,
    encode_request,
)
from services.contracts.words import Effort
from services.jobs.models import Usage
from tests.integration.agent.messages_server import Answer, MessagesServer, call, chunks, event, refused, said, whole

HASTE = Patience(shortest_seconds=0.001, longest_seconds=0.002)
DEADLINE_SECONDS = 60
READ = call(1, "read_file", path="a/rather/long/path.txt")
GOOD = whole(said("Reading."), READ)
TOOLS = [{"name": "read_file", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}}]
HEAD = encode_head("Be good.", TOOLS)
MESSAGE = orjson.dumps({"role": "user", "content": [said("Go.")]})
PROFILE = Profile("claude-sonnet-5-5", 64_000)
OVERLOADED = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


class Asked:
    """One request to the client, and what it told on the way."""

    def __init__(self, claude: Claude, base_url: str) -> None:
        self._claude = claude
        self._endpoint = Endpoint(SecretStr("a key"), base_url)
        self.interrupt = asyncio.Event()
        self.fragments: list[Fragment] = []
        self.resets: list[str] = []
        self.void: list[Usage] = []
        """What replies that came to nothing have used."""
        self.streaming = asyncio.Event()

    async def reply(self, profile: Profile = PROFILE) -> Reply:
        async def body() -> bytes:
            return encode_request(profile, HEAD, [MESSAGE], max_tokens=profile.most_tokens)

        request = Request(body, lambda void: self.void.append(void.usage), profile.api_version)
        watch = Watch(self._on_fragment, self._on_reset, self.interrupt)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._claude.reply(self._endpoint, request, watch)

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
    claude = Claude(patience=HASTE)
    yield claude
    await claude.close()


@pytest.fixture
def asked(claude: Claude, server: MessagesServer) -> Asked:
    return Asked(claude, server.url)


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
    await asked.reply(Profile("claude-of-old", 64_000, temperature=0.5, effort=Effort.HIGH))
    request, of_old = server.requests
    assert request["max_tokens"] == 64_000
    assert request["stream"] is True
    assert request["system"] == [{"type": "text", "text": "Be good.", "cache_control": {"type": "ephemeral"}}]
    assert request["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert request["cache_control"] == {"type": "ephemeral"}
    assert request["tools"] == TOOLS
    assert request["messages"] == [orjson.loads(MESSAGE)]
    assert not {"thinking", "temperature", "output_config"} & of_old.keys(), "what a model is not known to take"
    assert "temperature" not in request


TAKEN = {
    "effort": (Profile("claude-opus-5-5", 64_000, effort=Effort.HIGH), {"output_config": {"effort": "high"}}),
    "temperature": (Profile("claude-sonnet-4-5", 64_000, temperature=0.25), {"temperature": 0.25}),
    "max_tokens": (Profile("claude-3-5-haiku", 64_000), {"max_tokens": 8_192}),
}


@pytest.mark.parametrize(("profile", "sent"), TAKEN.values(), ids=TAKEN.keys())
async def test_each_model_is_asked_with_what_it_takes(
    server: MessagesServer, asked: Asked, profile: Profile, sent: dict[str, Any]
):
    server.answer(GOOD)
    await asked.reply(profile)
    assert sent.items() <= server.requests[0].items()


async def test_a_temperature_goes_with_the_version_that_takes_it(server: MessagesServer, asked: Asked):
    server.answer(GOOD, GOOD, GOOD)
    await asked.reply(Profile("claude-sonnet-4-5", 64_000, temperature=0.0))
    await asked.reply(Profile("claude-sonnet-4-5", 64_000))
    await asked.reply(Profile("claude-sonnet-5-5", 64_000, temperature=0.0))
    versions = [headers["anthropic-version"] for headers in server.headers]
    assert versions[0] == "2023-06-01"
    assert versions[1] == versions[2] != versions[0], "the one that the SDK speaks"
    assert [request.get("temperature") for request in server.requests] == [0.0, None, None]


async def test_nothing_of_the_operator_s_environment_is_sent(
    server: MessagesServer, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """Clients name services of their own."""
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Secret: the operator's\nanthropic-beta: the operator's")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "the operator's")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the operator's")
    server.answer(GOOD)
    await asked.reply()
    headers = {name.lower(): value for name, value in server.headers[0].items()}
    assert "the operator's" not in str(headers)
    assert headers["authorization"] == "Bearer a key"


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile("claude-sonnet-5-5", 64_000, temperature=0.5), "claude-sonnet-5-5 takes no temperature"),
        (Profile("claude-sonnet-4-5", 64_000, effort=Effort.LOW), "claude-sonnet-4-5 takes no effort:"),
        (Profile("claude-opus-4-6", 64_000, effort=Effort.XHIGH), "claude-opus-4-6 takes no effort of xhigh"),
        (Profile("claude-opus-4-7", 64_000, temperature=0.5), "claude-opus-4-7 takes no temperature"),
        (Profile("claude-3-5-haiku", 64_000), "8,192 tokens at most, not 64,000"),
    ],
)
def test_what_is_left_out_is_told(profile: Profile, words: str):
    (told,) = profile.left_out()
    assert words in told


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
    "error event of a type never heard of": Answer([event("error", error={"type": "comet_error", "message": "Oops"})]),
    "tool_use without its id": Answer([chunk.replace(b'"id":"toolu_1",', b"") for chunk in BEGINNING]),
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


async def test_a_limit_that_is_spent_is_known_by_its_code(server: MessagesServer, asked: Asked):
    error = {
        "type": "rate_limit_error",
        "message": "Requests are paused.",
        "details": {"error_code": "enforced_spend_limit_reached"},
    }
    answered = Answer([orjson.dumps({"type": "error", "error": error})], 429)
    for refusal in (answered, Answer([*BEGINNING[:4], event("error", error=error)])):
        server.answer(refusal)
        with pytest.raises(ModelRejectedError, match="Requests are paused"):
            await asked.reply()
    assert len(server.requests) == 2
    assert asked.resets == []


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


async def test_an_interrupted_reply_is_what_there_is_of_it(server: MessagesServer, asked: Asked):
    server.answer(Answer(GOOD.chunks, then="wait"))
    task = asyncio.create_task(asked.reply())
    await server.until(asked.streaming)
    await server.until(server.waits)
    asked.interrupt.set()
    reply = await task
    await server.until(server.gone)
    assert (reply.stop_reason, reply.content) == (INTERRUPTED, [said("Reading.")])
    assert reply.usage.input_tokens == 10
    assert reply.raw_usage["output_is_estimated"] is True


STREAMED = chunks(said("x" * 3_000))
"""Of which `message_start` tells 10 tokens of input, and 1 of output."""


async def test_what_thrown_away_replies_have_used_is_told(server: MessagesServer, asked: Asked):
    server.answer(Answer(STREAMED[:-2]), Answer(STREAMED[:-1]), refused(529, "Overloaded"), GOOD)
    await asked.reply()
    used = [(usage.input_tokens, usage.output_tokens) for usage in asked.void]
    assert used[0] == (10, 1_000), "estimated from what came"
    assert used[1][0] == 10
    assert used[2] == (0, 0)
    assert len(used) == len(asked.resets) == 3


async def test_what_a_cancelled_reply_has_used_is_told_and_what_an_interrupted_one_has_is_in_it(
    server: MessagesServer, asked: Asked
):
    for end in ("cancel", "interrupt"):
        server.waits.clear()
        server.answer(Answer(STREAMED, then="wait"))
        task = asyncio.create_task(asked.reply())
        await server.until(server.waits)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while len(asked.text) < 3_000:  # noqa: ASYNC110  what is sent is not yet there
                await asyncio.sleep(0.01)
        if end == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            asked.interrupt.set()
            assert (await task).usage.output_tokens == 1_000
        asked.fragments.clear()
    assert [(usage.input_tokens, usage.output_tokens) for usage in asked.void] == [(10, 1_000)]


async def test_what_a_reply_has_used_that_fails_for_good_is_told(server: MessagesServer, asked: Asked):
    error = {"type": "invalid_request_error", "message": "no such thing"}
    server.answer(Answer([*STREAMED[:-2], event("error", error=error)]))
    with pytest.raises(ModelRejectedError):
        await asked.reply()
    assert [(usage.input_tokens, usage.output_tokens) for usage in asked.void] == [(10, 1_000)]


async def test_a_redirect_is_not_followed_with_the_key(server: MessagesServer, asked: Asked):
    server.answer(refused(307, "over there", location="http://127.0.0.1:9/v1/messages"))
    with pytest.raises(ModelRejectedError, match="307"):
        await asked.reply()


async def test_nobody_listening_is_unavailable(claude: Claude):
    with pytest.raises(ModelUnavailableError, match="tried 7 times"):
        await Asked(claude, "http://127.0.0.1:9").reply()


async def test_an_interrupt_of_a_wait_brings_nothing_thrown_away_back(server: MessagesServer):
    claude = Claude(patience=Patience(shortest_seconds=3_600))
    asked = Asked(claude, server.url)
    server.answer(Answer(BEGINNING[:-1]))
    task = asyncio.create_task(asked.reply())
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not asked.resets:  # noqa: ASYNC110  told when the wait begins
            await asyncio.sleep(0.01)
    asked.interrupt.set()
    reply = await task
    await claude.close()
    assert (reply.stop_reason, reply.content) == (INTERRUPTED, [])


async def test_half_a_character_an_event_is_a_whole_one(server: MessagesServer, asked: Asked):
    """Legal JSON, which comes wherever a stream cuts a character that takes two escapes."""
    pieces: list[bytes] = []
    for chunk in chunks(said("XY"), READ):
        halves = [rb"a \ud83d", rb"\ude00 b"] if b'"text":"XY"' in chunk else [b"XY"]
        pieces += [chunk.replace(b"XY", half) for half in halves]
    server.answer(Answer(pieces))
    assert (await asked.reply()).content == [said("a \U0001f600 b"), READ]


async def test_a_cookie_is_not_given_back(server: MessagesServer, asked: Asked):
    """Requests with other keys go over the same client: what one is given is not to name it beside another."""
    server.answer(Answer(GOOD.chunks, headers={"set-cookie": "who=one; Path=/"}), GOOD)
    await asked.reply()
    await asked.reply()
    assert [headers.get("Cookie", headers.get("cookie")) for headers in server.headers] == [None, None]


async def test_a_stream_that_is_garbled_on_its_way_is_asked_for_again(server: MessagesServer, asked: Asked):
    """At once: the limit of a silent stream is above this test's."""
    server.answer(Answer(GOOD.chunks, then="garble"))
    server.ever_after = GOOD
    task = asyncio.create_task(asked.reply())
    await server.until(asked.streaming)
    server.go_on.set()
    assert (await task).content == [said("Reading."), READ]
    assert asked.resets
