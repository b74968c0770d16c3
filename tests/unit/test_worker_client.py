"""The Python client of a Worker API: whatever breaks, no event is lost and none comes twice; what is sent; errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from quarterdeck.worker import ClaudeCodeWorker, ClaudeDelta, Code, Complete, Failed, FileChange, WorkerError
from tests.contract.worker_sdk.standin import CONTENTS, EVENTS, TIME, rendered

ADDRESS = "http://worker.test/api"
KEY = "key-of-a-client"
NAMES = [name for name, _ in EVENTS]
IDS = [str(number) for number in range(1, len(EVENTS) + 1)]
LINE_ENDS = (b"\n", b"\r\n", b"\r")
Answering = Callable[[httpx.Request], httpx.Response]


class Cut(httpx.AsyncByteStream):
    """A body that breaks behind ``size`` bytes, or ends there in good order."""

    def __init__(self, body: bytes, size: int | None = None, *, breaks: bool = True) -> None:
        self._body = body[:size]
        self._breaks = breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body
        if self._breaks:
            raise httpx.RemoteProtocolError("the peer closed the connection")


def streamed(body: bytes, size: int | None = None, *, breaks: bool = True) -> httpx.Response:
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, headers=headers, stream=Cut(body, size, breaks=breaks))


def client_of(answer: Answering, **options: Any) -> ClaudeCodeWorker:
    return ClaudeCodeWorker(ADDRESS, KEY, transport=httpx.MockTransport(answer), **options)


def refusal(status: int, code: str = "QUOTA_EXCEEDED", **headers: str) -> httpx.Response:
    body = {"error": code, "message": "not now", "timestamp": TIME}
    return httpx.Response(status, json=body, headers=headers)


def recorded(request: httpx.Request, line_end: bytes = b"\n") -> bytes:
    return rendered(int(request.headers.get("Last-Event-ID", 0)), line_end)


@pytest.mark.parametrize("breaks", [True, False])
async def test_a_connection_that_ends_at_any_byte(breaks: bool) -> None:
    """It breaks at the odd ones, and is closed in good order at the even ones."""
    sizes = range(int(breaks), len(rendered(0, b"\r\n")) + 1, 2)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return streamed(recorded(request, LINE_ENDS[int(request.url.params["sessionId"]) % 3]))
        size = int(json.loads(request.content)["sessionId"])
        return streamed(rendered(0, LINE_ENDS[size % 3]), size, breaks=breaks)

    async def read(size: int) -> None:
        session = await client.interactive.start("p", "owner/repo", session_id=str(size))
        events = [event async for event in session.events()]
        assert ([event.event for event in events], [event.id for event in events]) == (NAMES, IDS), size
        assert [event.content for event in events if isinstance(event, ClaudeDelta)] == list(CONTENTS), size

    async with client_of(answer) as client:
        await asyncio.gather(*(read(size) for size in sizes))


async def test_events_have_their_fields() -> None:
    async with client_of(lambda request: streamed(recorded(request))) as client:
        session = await client.interactive.start("p")
        events = [event async for event in session.events()]
        assert [event async for event in session.events()] == []
    (changed,) = [event for event in events if isinstance(event, FileChange)]
    assert (changed.message, changed.workspace_dir, changed.timestamp) == ("1 file", "/w", TIME)
    assert events[-1] == Complete(id="8", timestamp=TIME, session_id="s", turns=1)


async def test_the_stream_is_what_the_model_writes() -> None:
    async with client_of(lambda request: streamed(recorded(request))) as client:
        session = await client.interactive.start("p")
        assert [chunk.content async for chunk in session.stream()] == list(CONTENTS)


async def test_a_stream_that_ends_with_an_error_event_raises_it() -> None:
    failed = (*EVENTS[:3], ("error", {"message": "the model is gone", "timestamp": TIME}))
    async with client_of(lambda _: streamed(rendered(0, events=failed))) as client:
        with pytest.raises(WorkerError, match="the model is gone") as raised:
            [chunk async for chunk in (await client.interactive.start("p")).stream()]
        events = [event async for event in (await client.interactive.start("p")).events()]
    assert raised.value.code == Code.SESSION_ERROR
    assert isinstance(events[-1], Failed)


async def test_a_loop_that_was_left_goes_on_behind_its_last_event() -> None:
    async with client_of(lambda request: streamed(recorded(request))) as client:
        session = await client.interactive.start("p")
        first = []
        async for event in session.events():
            first.append(event.id)
            if len(first) == 3:
                break
        assert session.last_event_id == "3"
        assert first + [event.id async for event in session.events()] == IDS


async def test_a_later_loop_takes_the_session_over() -> None:
    async with client_of(lambda request: streamed(recorded(request))) as client:
        session = await client.interactive.start("p")
        first = session.events()
        await anext(first)
        second = session.events()
        assert (await anext(second)).id == IDS[1]
        with pytest.raises(WorkerError) as raised:
            await anext(first)
        assert [event.id async for event in second] == IDS[2:]
    assert raised.value.code == Code.ALREADY_READING


async def test_another_client_goes_on_where_one_has_stopped() -> None:
    async with client_of(lambda request: streamed(recorded(request))) as client:
        session = client.interactive.attach("s", last_event_id="5")
        assert [event.id async for event in session.events()] == IDS[5:]


async def test_an_id_alone_moves_the_place_once_its_blank_line_is_there() -> None:
    bodies, asked = [b"retry: 1\nid: 5\n\nid: 6\n", b"id: 7\n\n: ping\n", b""], list[str | None]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return streamed(bodies[len(asked) - 1]) if len(asked) <= len(bodies) else httpx.Response(204)

    async with client_of(answer) as client:
        assert [event async for event in client.interactive.attach("s").events()] == []
    assert asked == [None, "5", "7", "7"]


async def test_a_connection_that_breaks_again_and_again_is_given_up() -> None:
    connections = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal connections
        connections += 1
        return streamed(b"retry: 1\n\n")

    async with client_of(answer, tries=3) as client:
        with pytest.raises(WorkerError, match="the peer closed the connection") as raised:
            [event async for event in client.interactive.attach("s").events()]
    assert (raised.value.code, connections) == (Code.UNAVAILABLE, 3)


async def test_a_server_that_says_not_now_is_asked_again() -> None:
    answers = [refusal(503, **{"Retry-After": "0"}), streamed(rendered(0))]
    async with client_of(lambda _: answers.pop(0)) as client:
        assert [event.id async for event in client.interactive.attach("s").events()] == IDS


@pytest.mark.parametrize(("status", "pause"), [(404, None), (429, "61"), (500, None)])
async def test_a_refusal_that_will_not_pass_is_told_at_once(status: int, pause: str | None) -> None:
    headers = {"Retry-After": pause} if pause else {}
    async with client_of(lambda _: refusal(status, **headers)) as client:
        with pytest.raises(WorkerError) as raised:
            [event async for event in client.interactive.attach("s").events()]
    assert (raised.value.status, raised.value.retry_after_seconds) == (status, float(pause) if pause else None)


async def test_a_start_whose_answer_was_lost_is_found_again() -> None:
    posts = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal posts
        posts += request.method == "POST"
        if request.method == "POST":
            raise httpx.ReadError("broken", request=request)
        return streamed(recorded(request))

    async with client_of(answer) as client:
        session = await client.interactive.start("p")
        assert [event.id async for event in session.events()] == IDS
    assert posts == 1


async def test_a_start_that_did_not_arrive_is_sent_again() -> None:
    methods: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        methods.append(request.method)
        if len(methods) == 1:
            raise httpx.ConnectError("refused", request=request)
        return refusal(404, "NOT_FOUND") if request.method == "GET" else streamed(recorded(request))

    async with client_of(answer) as client:
        await client.interactive.start("p")
    assert methods == ["POST", "GET", "POST"]


async def test_every_field_of_a_start_is_sent_and_the_key_as_a_bearer_token() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return streamed(b"")

    repository = {"url": "https://github.com/owner/repo", "name": "owner/repo", "branch": "main"}
    async with client_of(answer) as client:
        session = await client.interactive.start(
            "p",
            repository,
            session_id="my session",
            anthropic_api_key="sk-ant-1",
            anthropic_base_url="https://api.anthropic.com",
            github_token="ghp_1",
            options={"maxTurns": 3, "createPR": True},
        )
    assert session.session_id == "my session"
    assert str(asked[0].url) == f"{ADDRESS}/interactive/start"
    assert asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert json.loads(asked[0].content) == {
        "prompt": "p",
        "repository": repository,
        "sessionId": "my session",
        "anthropicApiKey": "sk-ant-1",
        "anthropicBaseUrl": "https://api.anthropic.com",
        "githubToken": "ghp_1",
        "options": {"maxTurns": 3, "createPR": True},
    }


@pytest.mark.parametrize(
    ("repository", "sent"),
    [
        ("o/r", {"name": "o/r"}),
        *((url, {"url": url}) for url in ("https://h/o/r", "git@h:o/r", "/srv/o/r")),
        (None, None),
    ],
)
async def test_a_repository_is_a_name_a_url_or_nothing(repository: str | None, sent: dict[str, str] | None) -> None:
    bodies: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return streamed(b"")

    async with client_of(answer) as client:
        ids = {(await client.interactive.start("p", repository)).session_id for _ in range(2)}
    assert bodies[0].get("repository") == sent
    assert len(ids) == 2


async def test_a_refused_start_has_the_words_of_the_server() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    async with client_of(lambda _: refusal(429, **{"Retry-After": later})) as client:
        with pytest.raises(WorkerError, match="not now") as raised:
            await client.interactive.start("p")
    assert (raised.value.code, raised.value.status) == ("QUOTA_EXCEEDED", 429)
    assert 3000 < (raised.value.retry_after_seconds or 0) <= 3600


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (httpx.Response(200, html="<html>"), Code.PROTOCOL_ERROR),
        (httpx.Response(404, text="no such page"), Code.PROTOCOL_ERROR),
        (httpx.Response(307, headers={"Location": "http://elsewhere.test"}), Code.PROTOCOL_ERROR),
        (httpx.Response(502, text="Bad Gateway"), Code.UNAVAILABLE),
    ],
)
async def test_what_is_no_worker_api_is_said_so(answer: httpx.Response, code: Code) -> None:
    async with client_of(lambda _: answer) as client:
        for asking in (client.interactive.start("p"), client.health()):
            with pytest.raises(WorkerError) as raised:
                await asking
            assert raised.value.code == code


@pytest.mark.parametrize("data", ['{"turn": 1}', '{"turn": [], "content": "a"}', "nonsense", "1", "null", "[]"])
async def test_an_event_that_cannot_be_read_is_said_so(data: str) -> None:
    body = f"event: claude_delta\ndata: {data}\n\n".encode()
    async with client_of(lambda _: streamed(body)) as client:
        with pytest.raises(WorkerError, match="claude_delta cannot be read") as raised:
            [event async for event in client.interactive.attach("s").events()]
    assert raised.value.code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://h", "http://u:p@h", "http://h/?q=1", "http://h/#f"])
def test_an_address_that_cannot_be_used_is_refused(address: str) -> None:
    with pytest.raises(WorkerError, match="base_url"):
        ClaudeCodeWorker(address)


@pytest.mark.parametrize("options", [{"tries": 0}, {"timeout": timedelta()}])
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(WorkerError, match=next(iter(options))):
        ClaudeCodeWorker(ADDRESS, **options)
