"""Keeps what a server sends within bounds: its answers go on, what nobody asked for is dropped and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

MAX_NOISE_BYTES = 4 * 1024 * 1024
"""Between two answers; a server may log through MCP, but not without end."""
MAX_UNANSWERED = 16
"""Requests of the server (pings, mostly) that wait for our answer at once: each is a task here."""
# What any message costs to look at, however short it is.
_MESSAGE_BYTES = 100


class Traffic:
    """What one session sent and was sent.

    ``trouble``: why it is of no use any more, completing `the server …`. ``ended``: nothing more comes.
    """

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.ended = False
        self._asked: set[int | str] = set()
        self._unanswered = 0
        self._noise_bytes = 0

    def sent(self, message: SessionMessage) -> None:
        match message.message:
            case JSONRPCRequest(id=number):
                self._asked.add(number)
            case JSONRPCResponse() | JSONRPCError():
                self._unanswered -= 1
            case JSONRPCNotification():
                pass

    def lets_in(self, item: SessionMessage | Exception, size_bytes: int) -> bool:
        """Whether the session is to see ``item``; ``trouble`` is set where it was one too many."""
        message = None if isinstance(item, Exception) else item.message
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id in self._asked:
            self._asked.discard(message.id)
            self._noise_bytes = 0
            return True
        self._noise_bytes += size_bytes + _MESSAGE_BYTES
        if self._noise_bytes > MAX_NOISE_BYTES:
            self.trouble = "sent megabytes that nobody had asked for"
        if not isinstance(message, JSONRPCRequest):
            return False
        self._unanswered += 1
        if self._unanswered > MAX_UNANSWERED:
            self.trouble = "asked for more than could be answered"
        return self.trouble is None


class Outgoing(Protocol):
    async def send(self, item: SessionMessage, /) -> None: ...

    async def aclose(self) -> None: ...


class Reader:
    """The session's reading end: ends when the server is gone or in trouble.

    ``messages``: each with how many bytes it had, 0 where its transport bounds them itself.
    """

    def __init__(self, messages: AsyncIterator[tuple[SessionMessage | Exception, int]], traffic: Traffic) -> None:
        self._messages = messages
        self._traffic = traffic

    async def receive(self) -> SessionMessage | Exception:
        """The next message. Raises ``StopAsyncIteration`` at the end."""
        while self._traffic.trouble is None:
            item, size_bytes = await anext(self._messages)
            if self._traffic.lets_in(item, size_bytes):
                return item
        raise StopAsyncIteration

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except StopAsyncIteration:
            self._traffic.ended = True
            raise

    async def aclose(self) -> None:
        """Nothing to do: whoever opened the source closes it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Writer:
    """The session's writing end."""

    def __init__(self, target: Outgoing, traffic: Traffic) -> None:
        self._target = target
        self._traffic = traffic

    async def send(self, item: SessionMessage, /) -> None:
        self._traffic.sent(item)
        await self._target.send(item)

    async def aclose(self) -> None:
        await self._target.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
