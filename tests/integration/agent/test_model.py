"""The model client against a real server that scripts its bytes: every way a stream can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from services.agent.model import (
    Claude,
    Fragment,
    ModelRejectedError,
    ModelUnavailableError,
    Patience,
    PostponedError,
    Reply,
)

START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
}
TOOL: dict[str, Any] = {
    "type": "content_block_start",
    "index": 0,
    "content_block": {"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {}},
}
PIECES: list[dict[str, Any]] = [
    {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
    for piece in ('{"path": "a\\', "n", '.txt"}')
]
BLOCK_STOP: dict[str, Any] = {"type": "content_block_stop", "index": 0}
END: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": "tool_use", "stop_sequence": None},
    "usage": {"output_tokens": 9},
}
STOP: dict[str, Any] = {"type": "message_stop"}
WHOLE = [START, TOOL, *PIECES, BLOCK_STOP, END, STOP]
OVERLOADED: dict[str, Any] = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
INVALID: dict[str, Any] = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: no"}}

Answer = tuple[int, dict[str, str], bytes, bool]
"""Status, headers, body, whether the connection is cut behind the body."""


def stream(*events: dict[str, Any], tail: bytes = b"", cut: bool = False) -> Answer:
    body = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), orjson.dumps(e)) for e in events)
    return 200, {"Content-Type": "text/event-stream"}, body + tail, cut


def refusal(status: int, kind: str, words: str, **headers: str) -> Answer:
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": words}})
    return status, {"Content-Type": "application/json", **headers}, body, False


class Server:
    """Gives its answers in order; the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.hung_up = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.read())
        status, headers, body, cut = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        await response.write(body)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """Begin a reply, and never go on."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(stream(START, TOOL, PIECES[0])[2])
        try:
            await asyncio.Event().wait()
        finally:
            self.hung_up.set()
        return response


@asynccontextmanager
async def claude_at(server: Server, *, hanging: bool = False, **patience: Any) -> AsyncIterator[Claude]:
    app = web.Application()
    app.router.add_post("/v1/messages", server.hang if hanging else server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    quick = Patience(shortest_seconds=0.001, longest_seconds=0.002, **patience)
    claude = Claude(api_key="k", base_url=f"http://{host}:{port}", model="m", max_tokens=1_000, patience=quick)
    try:
        yield claude
    finally:
        await claude.close()
        await runner.cleanup()


async def ask(claude: Claude, *, fragments: list[Fragment] | None = None, resets: list[str] | None = None) -> Reply:
    heard = fragments if fragments is not None else []

    async def on_reset(reason: str) -> None:
        if resets is not None:
            resets.append(reason)

    return await claude.reply(
        model="m",
        system="Be brief.",
        tools=[],
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        on_fragment=heard.append,
        on_reset=on_reset,
    )


async def test_a_reply_is_put_together_from_its_pieces():
    fragments: list[Fragment] = []
    async with claude_at(Server(stream(*WHOLE))) as claude:
        got = await ask(claude, fragments=fragments)
    assert got.content == [{"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {"path": "a\n.txt"}}]
    assert (got.stop_reason, got.model) == ("tool_use", "scripted")
    assert (got.usage.input_tokens, got.usage.output_tokens) == (7, 9), "usage is cumulative"
    assert [fragment.text for fragment in fragments] == ['{"path": "a\\', "n", '.txt"}']


@pytest.mark.parametrize(
    "broken",
    [
        stream(START, TOOL, PIECES[0]),
        stream(START, TOOL, *PIECES, BLOCK_STOP, END),
        stream(START, TOOL, PIECES[0], cut=True),
        stream(START, OVERLOADED),
        stream(START, tail=b"event: content_block_delta\ndata: {not json\n\n"),
        stream(START, PIECES[0]),
        refusal(429, "rate_limit_error", "Slow down", **{"retry-after": "0"}),
        refusal(529, "overloaded_error", "Overloaded"),
        refusal(500, "api_error", "Oops"),
        refusal(408, "timeout_error", "Too slow"),
    ],
    ids=["ends early", "no message_stop", "cut", "error event", "no JSON", "no block", "429", "529", "500", "408"],
)
async def test_what_may_pass_is_thrown_away_and_asked_for_again(broken: Answer):
    resets: list[str] = []
    server = Server(broken, stream(*WHOLE))
    async with claude_at(server) as claude:
        got = await ask(claude, resets=resets)
    assert got.content[0]["input"] == {"path": "a\n.txt"}
    assert len(resets) == 1
    assert server.requests[0] == server.requests[1], "the same request again"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(400, "invalid_request_error", "prompt is too long"), "400: prompt is too long"),
        (refusal(401, "authentication_error", "invalid x-api-key"), "401: invalid x-api-key"),
        (refusal(403, "permission_error", "not yours"), "403: not yours"),
        (refusal(404, "not_found_error", "model: m"), "404: model: m"),
        (refusal(413, "request_too_large", "too large"), "413: too large"),
        (refusal(429, "rate_limit_error", "You have reached your spend limit"), "spend limit"),
        (stream(START, INVALID), "max_tokens: no"),
    ],
)
async def test_what_can_never_succeed_is_told_at_once(answer: Answer, words: str):
    server = Server(answer)
    async with claude_at(server) as claude:
        with pytest.raises(ModelRejectedError, match=words):
            await ask(claude)
    assert len(server.requests) == 1


async def test_after_all_tries_it_is_unavailable():
    server = Server(refusal(529, "overloaded_error", "Overloaded"))
    async with claude_at(server, tries=3) as claude:
        with pytest.raises(ModelUnavailableError, match="tried 3 times"):
            await ask(claude)
    assert len(server.requests) == 3


async def test_a_long_wait_gives_the_slot_back():
    server = Server(refusal(429, "rate_limit_error", "Slow down", **{"retry-after": "900"}))
    async with claude_at(server) as claude:
        with pytest.raises(PostponedError, match="Slow down") as postponed:
            await ask(claude)
    assert postponed.value.delay.total_seconds() == 900
    assert len(server.requests) == 1


async def test_nobody_there_is_unavailable():
    claude = Claude(
        api_key="k",
        base_url="http://127.0.0.1:9",
        model="m",
        max_tokens=1_000,
        patience=Patience(tries=2, shortest_seconds=0.001, longest_seconds=0.002),
    )
    with pytest.raises(ModelUnavailableError):
        await ask(claude)
    await claude.close()


async def test_a_cancelled_request_is_hung_up_on():
    server = Server(stream(*WHOLE))
    fragments: list[Fragment] = []
    async with claude_at(server, hanging=True) as claude:
        asking = asyncio.create_task(ask(claude, fragments=fragments))
        async with asyncio.timeout(20):
            while not fragments:  # noqa: ASYNC110  the reply is on its way
                await asyncio.sleep(0.01)
            asking.cancel()
            await server.hung_up.wait()
    assert asking.cancelled()


async def test_unknown_events_are_ignored():
    odd = {"type": "novelty", "index": 0}
    async with claude_at(Server(stream(START, odd, TOOL, *PIECES, BLOCK_STOP, END, STOP))) as claude:
        assert (await ask(claude)).stop_reason == "tool_use"
