"""Submits jobs to the gateway as raw HTTP/1.1 on kept connections: light, since it shares the cores. A process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

from tests.bench.roles import Submit, play

CONNECTIONS = 32
_ANSWER_SECONDS = 30
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class RefusedError(Exception):
    """The gateway did not answer 201."""


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def send(self, request: bytes) -> asyncio.Future[None]:
        """Done once the whole answer is here; fails with ``RefusedError``."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_HEAD_END)
        if not end or len(body) < _length(head):
            return
        self._received = b""
        if self._answered is None or self._answered.done():
            return
        if head.startswith(b"HTTP/1.1 201 "):
            self._answered.set_result(None)
        else:
            self._answered.set_exception(RefusedError((head.partition(b"\r\n")[0] + b" " + body).decode()))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or RefusedError("the gateway closed the connection"))


def _length(head: bytes) -> int:
    """Bytes of the body; every answer of ours has a Content-Length."""
    _, _, rest = head.lower().partition(_LENGTH)
    return int(rest.partition(b"\r\n")[0])


@asynccontextmanager
async def submitting() -> AsyncIterator[Submit]:
    """A task without repository; its prompt is the word."""
    address = urlsplit(os.environ["BENCH_ADDRESS"])
    loop = asyncio.get_running_loop()
    assert address.hostname is not None
    assert address.port is not None
    opened = [await loop.create_connection(_Connection, address.hostname, address.port) for _ in range(CONNECTIONS)]
    free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
    for _, connection in opened:
        free.put_nowait(connection)
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {os.environ['BENCH_API_KEY']}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )

    async def submit(word: str) -> None:
        body = f'{{"kind":"task","prompt":"{word}"}}'
        connection = await free.get()
        async with asyncio.timeout(_ANSWER_SECONDS):
            await connection.send(f"{head}{len(body)}\r\n\r\n{body}".encode())
        free.put_nowait(connection)

    yield submit
    for transport, _ in opened:
        transport.close()


if __name__ == "__main__":
    play(submitting=submitting)
