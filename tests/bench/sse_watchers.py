"""Many clients of one event stream on raw sockets, light since they share the cores. A process.

Says that it is ready once all are answered, and leaves each event's way to each client, in seconds, once all have come.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

SENT_DIGITS = 6
_MARK = re.compile(rb"<(\d+\.\d{%d})>" % SENT_DIGITS)
_CONNECT_SECONDS = 30
_OPENED_AT_ONCE = 100


def marked(padding: int) -> str:
    """A text that says when it was made."""
    return f"<{time.time():.{SENT_DIGITS}f}>" + "x" * padding


class Arrivals:
    """When what came, of all clients."""

    def __init__(self, expected: int) -> None:
        self.seconds = array("d")
        self.are_all_here = asyncio.Event()
        self._expected = expected

    def add(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == self._expected:
            self.are_all_here.set()


class _Watcher(asyncio.Protocol):
    def __init__(self, request: bytes, arrivals: Arrivals) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._arrivals = arrivals
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        now = time.time()
        if not self.answered.done():
            self._answer(data)
        data = self._rest + data
        end = 0
        for found in _MARK.finditer(data):
            self._arrivals.add(now - float(found[1]))
            end = found.end()
        self._rest = data[max(end, len(data) - 2 * SENT_DIGITS - 20) :]

    def _answer(self, data: bytes) -> None:
        if b" 200 " in data.partition(b"\r\n")[0]:
            self.answered.set_result(None)
        else:
            self.answered.set_exception(ConnectionError(data.decode(errors="replace")))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or ConnectionError("closed before it was answered"))


async def _watch(asked: argparse.Namespace) -> None:
    address = urlsplit(asked.url)
    head = f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {asked.api_key}\r\n\r\n"
    assert address.hostname is not None
    assert address.port is not None
    arrivals = Arrivals(asked.clients * asked.events)
    connect = partial(_connect, address.hostname, address.port, partial(_Watcher, head.encode(), arrivals))
    async with asyncio.timeout(_CONNECT_SECONDS):
        for begin in range(0, asked.clients, _OPENED_AT_ONCE):
            await asyncio.gather(*(connect() for _ in range(min(_OPENED_AT_ONCE, asked.clients - begin))))
    asked.ready.touch()
    try:
        async with asyncio.timeout(asked.seconds):
            await arrivals.are_all_here.wait()
    finally:
        asked.report.write_bytes(arrivals.seconds.tobytes())


async def _connect(host: str, port: int, watcher_of: Callable[[], _Watcher]) -> None:
    _, watcher = await asyncio.get_running_loop().create_connection(watcher_of, host, port)
    await watcher.answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--api-key", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--events", type=int, required=True, help="how many each is to get")
    parser.add_argument("--seconds", type=float, required=True, help="how long to wait for them at most")
    parser.add_argument("--ready", type=Path, required=True, help="a file, made once all are answered")
    parser.add_argument("--report", type=Path, required=True, help="a file, made at the end: seconds as doubles")
    uvloop.run(_watch(parser.parse_args()))


if __name__ == "__main__":
    main()
