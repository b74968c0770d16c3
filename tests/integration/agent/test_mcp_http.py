"""MCP servers over streamable HTTP: real ones, and such as try what they should not."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp.web
import pytest
from yarl import URL

from services.agent.mcp import web
from services.agent.tools.calls import ToolError
from tests.integration.agent.mcp_running import DEADLINE_SECONDS, connecting, http, http_server, stdio, use, web_server

TOKEN = "Bearer tok-123456789"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with http_server() as url:
        yield url


async def test_a_server_is_listed_called_and_its_errors_told(tmp_path: Path, url: str) -> None:
    async with connecting(tmp_path, s=http(url), local=stdio()) as tools:
        assert tools.problems == ()
        assert {"mcp__s__echo", "mcp__local__echo"} <= {each.spec.name for each in tools.tools}
        assert (await use(tools, "echo", text="hällo")).content == "hällo"
        with pytest.raises(ToolError, match="it did not work"):
            await use(tools, "fail")
        many = await asyncio.gather(*(use(tools, "echo", text=str(number)) for number in range(20)))
        assert [each.content for each in many] == [str(number) for number in range(20)]


async def test_a_server_that_dies_in_a_call_is_told_of_and_tried_again(tmp_path: Path, url: str) -> None:
    async with connecting(tmp_path, s=http(url)) as tools:
        for _ in range(3):
            with pytest.raises(ToolError, match=r"cannot be reached|broke off"):
                await use(tools, "crash")
        with pytest.raises(ToolError, match="failed too often"):
            await use(tools, "crash")


async def test_a_server_that_hangs_is_given_up_at_the_deadline(tmp_path: Path, url: str) -> None:
    async with connecting(tmp_path, call_seconds=2, s=http(url)) as tools:
        with pytest.raises(ToolError, match=r"gave no answer within 2 s|cannot be reached, or broke off"):
            await use(tools, "hang")


async def test_a_call_that_is_broken_off_ends_and_the_server_goes_on(tmp_path: Path, url: str) -> None:
    async with connecting(tmp_path, s=http(url)) as tools:
        call = asyncio.create_task(use(tools, "slow"))
        assert (await use(tools, "echo", text="meanwhile")).content == "meanwhile"
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await use(tools, "echo", text="after")).content == "after"


PRIVATE = [
    "127.0.0.1",
    "127.1",
    "0x7f000001",
    "2130706433",
    "0",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("allowed", [False, True])
async def test_a_private_address_is_connected_to_only_where_allowed(tmp_path: Path, host: str, allowed: bool) -> None:
    """With the defence off (``allowed``) each of these spellings reaches this very machine."""
    asked: list[str] = []

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        asked.append(request.path)
        return aiohttp.web.Response(status=418)

    async with web_server(answer) as url:
        hostile = url.replace("127.0.0.1", host)
        async with connecting(tmp_path, allow_private_addresses=allowed, s=http(hostile)) as tools:
            (problem,) = tools.problems
    # The test's server has no IPv6 address: there, trying to connect is all that can be seen.
    reached = "cannot be reached" if host == "[::1]" else "HTTP status 418"
    assert bool(asked) is (allowed and host != "[::1]")
    assert (reached if allowed else "an address of a private network") in problem


async def test_a_name_is_resolved_once_and_the_checked_address_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that answers another address each time has only its first answer looked at, and used."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []
    port = 0

    async def rebinding(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host == "rebinding.example":
            asked.append(host)
            return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "203.0.113.9", port))]
        return await real(host, *args, **kwargs)

    real = loop.getaddrinfo
    monkeypatch.setattr(loop, "getaddrinfo", rebinding)

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        asked.append(request.headers["host"])
        return aiohttp.web.Response(status=418)

    async with web_server(answer) as local:
        port = URL(local).port or 0
        async with connecting(tmp_path, s=http(f"http://rebinding.example:{port}/mcp")) as tools:
            assert "HTTP status 418" in tools.problems[0]
    assert asked == ["rebinding.example", f"rebinding.example:{port}"]


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        asked.append(request.path)
        return aiohttp.web.Response(status=307, headers={"location": "/elsewhere"})

    async with web_server(answer) as url, connecting(tmp_path, s=http(url)) as tools:
        assert "redirects to another address, which is not followed" in tools.problems[0]
    assert asked == ["/mcp"]


async def _initialized(request: aiohttp.web.BaseRequest) -> dict[str, Any] | None:
    """The answer to the handshake's messages; None for what comes after it."""
    message = json.loads(await request.text() or "{}")
    if message.get("method") != "initialize":
        return None
    result = {
        "protocolVersion": message["params"]["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "s", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_endless_answer_is_cut(tmp_path: Path, kind: str) -> None:
    sent = 0

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        nonlocal sent
        if greeting := await _initialized(request):
            return aiohttp.web.json_response(greeting)
        if b"notifications" in await request.read():
            return aiohttp.web.Response(status=202)
        response = aiohttp.web.StreamResponse(headers={"content-type": kind})
        await response.prepare(request)
        while True:
            await response.write(b": nothing at all\n\n" * 4_000)
            sent += 72_000

    async with web_server(answer) as url, connecting(tmp_path, s=http(url)) as tools:
        assert "sent an answer of more than 4 MB" in tools.problems[0]
    assert sent < 10 * web.MAX_RESPONSE_BYTES


async def test_a_compressed_answer_is_refused(tmp_path: Path) -> None:
    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        assert request.headers["accept-encoding"] == "identity"
        bomb = gzip.compress(b" " * 10_000_000)
        return aiohttp.web.Response(body=bomb, headers={"content-type": "application/json", "content-encoding": "gzip"})

    async with web_server(answer) as url, connecting(tmp_path, s=http(url)) as tools:
        assert "compresses its answers" in tools.problems[0]


async def test_a_session_that_the_server_ended_is_begun_again(tmp_path: Path) -> None:
    begun = 0

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        nonlocal begun
        if greeting := await _initialized(request):
            begun += 1
            return aiohttp.web.json_response(greeting, headers={"mcp-session-id": str(begun)})
        message = json.loads(await request.text() or "{}")
        if "id" not in message:
            return aiohttp.web.Response(status=202)
        if message["method"] == "tools/call" and request.headers["mcp-session-id"] == "1":
            return aiohttp.web.Response(status=404)
        tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
        result = {"tools": tools} if message["method"] == "tools/list" else {"content": [{"type": "text", "text": "x"}]}
        return aiohttp.web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async with web_server(answer) as url, connecting(tmp_path, s=http(url)) as tools:
        with pytest.raises(ToolError, match="has ended the session"):
            await use(tools, "echo")
        assert (await use(tools, "echo")).content == "x"


async def test_headers_are_sent_and_their_values_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        error = {"code": -32000, "message": f"not with {request.headers['authorization']}"}
        message = json.loads(await request.text() or "{}")
        return aiohttp.web.json_response({"jsonrpc": "2.0", "id": message.get("id"), "error": error}, status=401)

    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": TOKEN}
    async with web_server(answer) as url, connecting(tmp_path, s=http(url, **headers)) as tools:
        (problem,) = tools.problems
    assert problem == "MCP server s answered with an error: not with [hidden]. The run goes on without its tools."
    own = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not any("tok-123456789" in line for line in own)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (http("http://1.2.3.999/tok-123456789"), "has a URL that cannot be read"),
        (http("http://example.invalid/tok-123456789"), "the name example.invalid cannot be resolved"),
        (http("http://127.0.0.1:9/", Host="tok-123456789"), "has the header `Host` in the client's settings"),
        (http("http://127.0.0.1:9/tok-123456789"), "cannot be reached"),
    ],
)
async def test_settings_that_cannot_work_are_told_of_without_repeating_them(
    tmp_path: Path, server: Any, words: str
) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), connecting(tmp_path, s=server) as tools:
        (problem,) = tools.problems
    assert words in problem
    assert "tok-123456789" not in problem
