"""A TCP link to one server that a test can break: stalled (half-open), cut, slow, or one that swallows an answer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65_536


class Link:
    """Carries every connection to the server that ``url`` names; use as an async context manager.

    Services are given ``link.url``. What is held back while stalled flows on after ``flow``.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.latency_seconds = 0.0
        """How long each piece of up to 64 KiB is held in either direction."""
        self._marker: bytes | None = None
        self._answers_to_drop = 0
        self.dropped = 0
        """How many answers were swallowed."""

    @property
    def url(self) -> str:
        assert self._server is not None, "open the link first"
        port = self._server.sockets[0].getsockname()[1]
        credentials = self._parts.netloc.rpartition("@")[0]
        return urlunsplit(self._parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        self.flow()
        # A connection that was accepted in this very moment is only told of in the next.
        while self._connections:
            self.cut()
            await asyncio.sleep(0)

    def stall(self) -> None:
        """Go half-open: connections stand, new ones are accepted, and nothing comes through."""
        self.flowing.clear()

    def flow(self) -> None:
        self.flowing.set()

    def cut(self) -> None:
        """Break every connection now; new ones are carried."""
        for connection in list(self._connections):
            connection.abort()

    def drop_answer_to(self, marker: bytes, *, times: int = 1) -> None:
        """Of the next ``times`` pieces sent that hold ``marker``, swallow the server's answer and break the line."""
        self._marker, self._answers_to_drop = marker, times

    async def carry(self) -> None:
        """What each piece goes through before it is handed on."""
        await self.flowing.wait()
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)  # the fault itself, not a wait for anything

    def is_to_be_dropped(self, data: bytes) -> bool:
        if self._marker is None or self._answers_to_drop == 0 or self._marker not in data:
            return False
        self._answers_to_drop -= 1
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            await connection.serve(reader, self._parts.port or 0)
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(self, link: Link, client: asyncio.StreamWriter) -> None:
        self._link = link
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self._task = asyncio.current_task()
        self._drops = False

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def serve(self, reader: asyncio.StreamReader, port: int) -> None:
        try:
            await self._link.flowing.wait()
            answers, self._server = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, self._server))
                group.create_task(self._back(answers))
        except* OSError:
            pass  # one of the two ends is gone, and so is the connection
        except* asyncio.CancelledError:
            pass  # cut; `abort` asks for nothing else
        finally:
            for writer in (self._client, self._server):
                if writer is not None:
                    writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._link.carry()
            self._drops = self._drops or self._link.is_to_be_dropped(data)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _back(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._drops:
                self._link.dropped += 1
                break
            await self._link.carry()
            self._client.write(data)
            await self._client.drain()
        raise ConnectionResetError
