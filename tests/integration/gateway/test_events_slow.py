"""A client that does not read is noticed, cut off and can resume; it is buffered for within bounds."""

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from services.gateway.events import sse
from tests.integration.gateway.conftest import Scheduler
from tests.integration.gateway.watching import ALL, watching, watching_all
from tests.integration.waiting import POLL_SECONDS

CUT_SECONDS = 40.0
LARGE = 250_000


@asynccontextmanager
async def unread(gateway: httpx.AsyncClient, path: str) -> AsyncIterator[tuple[socket.socket, bytes]]:
    """A connection with small buffers whose answer has begun, and what came of it so far."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.connect(("127.0.0.1", gateway.base_url.port or 0))
    connection.setblocking(False)
    request = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{key_of(gateway)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, request.encode())
    received = await loop.sock_recv(connection, 1_000)
    assert b"200 OK" in received
    with connection:
        yield connection, received


def key_of(gateway: httpx.AsyncClient) -> str:
    return f"Authorization: {gateway.headers['Authorization']}"


async def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side ends it, in whatever way."""
    received = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CUT_SECONDS):
        while True:
            try:
                piece = await loop.sock_recv(connection, 65_536)
            except ConnectionResetError:
                return received
            if not piece:
                return received
            received += piece


async def read_until(connection: socket.socket, is_enough: Callable[[bytes], bool]) -> bytes:
    received = b""
    async with asyncio.timeout(CUT_SECONDS):
        while not is_enough(received):
            received += await asyncio.get_running_loop().sock_recv(connection, 65_536)
    return received


def last_id_of(received: bytes) -> str:
    """Of the last message that came whole."""
    whole = received[: received.rindex(b"\n\n")]
    return whole[whole.rindex(b"\nid: ") + 5 :].partition(b"\n")[0].decode()


@pytest.mark.parametrize("of_all", [False, True])
async def test_one_who_does_not_read_is_cut_off_and_can_resume(
    of_all: bool, gateway: httpx.AsyncClient, scheduler: Scheduler, job: str
):
    texts = [f"{number:03d}" + "x" * LARGE for number in range(100)]
    async with unread(gateway, ALL if of_all else f"/v1/jobs/{job}/events") as (connection, begin):
        for text in texts:
            await scheduler.delta(job, text)
        received = begin + await rest_of(connection)
    last_id = last_id_of(received)
    count = received[: received.rindex(b"\n\n")].count(b"event: delta")
    assert count < 20, "more was buffered than the bounds allow"
    async with watching_all(gateway, last_id) if of_all else watching(gateway, job, after=last_id) as watcher:
        assert await watcher.take(100 - count) == [f"delta:{text}" for text in texts[count:]]


async def test_one_who_stops_reading_is_cut_off_though_nothing_more_happens(
    gateway: httpx.AsyncClient, scheduler: Scheduler, job: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sse, "WRITE_SECONDS", 1)
    async with unread(gateway, ALL) as (connection, _), watching_all(gateway) as reader:
        await scheduler.delta(job, "x" * 900_000)
        assert len(await reader.take(1)) == 1
        await until_reset(connection)
        await scheduler.delta(job, "y")
        assert await reader.take(1) == ["delta:y"]


async def until_reset(connection: socket.socket) -> None:
    """Wait until the other side has cut the connection, without reading from it."""
    poller = select.poll()
    poller.register(connection, select.POLLHUP)
    async with asyncio.timeout(CUT_SECONDS):
        while not poller.poll(0):  # noqa: ASYNC110  a poll of the kernel's state, which sets no event
            await asyncio.sleep(POLL_SECONDS)


async def test_one_who_reads_late_but_reads_gets_all_of_it(gateway: httpx.AsyncClient, scheduler: Scheduler, job: str):
    """What the socket did not take waits, and nothing is overtaken."""
    texts = [f"{number:03d}" + "x" * LARGE for number in range(12)]
    async with unread(gateway, ALL) as (connection, begin):
        for text in texts:
            await scheduler.delta(job, text)
        await scheduler.tell(job, "the end")
        received = begin + await read_until(connection, lambda received: b"the end" in received[-1_000:])
    places = [received.index(b'"text":"' + text[:10].encode()) for text in texts]
    assert places == sorted(places)
    assert received.count(b"event: delta") == len(texts)


async def test_a_quiet_stream_is_kept_alive(gateway: httpx.AsyncClient, job: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 1)
    for path in (ALL, f"/v1/jobs/{job}/events"):
        async with unread(gateway, path) as (connection, _):
            await read_until(connection, lambda received: received.count(b": keep-alive\n\n\r\n") == 2)


async def test_a_client_of_http_1_0_gets_the_same_unframed(gateway: httpx.AsyncClient, scheduler: Scheduler, job: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.base_url.port or 0)
    request = f"GET /v1/jobs/{job}/events HTTP/1.0\r\n{key_of(gateway)}\r\n\r\n"
    writer.write(request.encode())
    async with asyncio.timeout(CUT_SECONDS):
        await reader.readuntil(b"job.submitted\n")
        await reader.readuntil(b"\n\n")
        await scheduler.tell(job, "one")
        message = await reader.readuntil(b"\n\n")
        assert message.startswith(b"id: 2:")
        await scheduler.finish(job)
        assert (await reader.read()).endswith(b"\n\n")
    writer.close()
