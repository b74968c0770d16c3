"""One pull consumer of JetStream: one request at a time, and what arrives together is given together.

A server that was replaced, a consumer that is gone or went quiet end it with an error: whoever uses it makes another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

import nats
import orjson
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

REQUEST_SECONDS = 5.0
"""How long a request lingers on the server; it answers at its end, so silence means that nobody has it."""
_SILENCE_SECONDS = 2.0
"""How much longer than a request lingers nothing may be heard."""
_NANOSECONDS = 1_000_000_000
_EXPIRED = "408"
_MOST_PENDING = 65_536


class ConsumerBrokenError(nats.errors.Error):
    """The consumer is gone, went quiet, or the connection was replaced: make it again."""


class PullConsumer:
    """``name``: of a consumer that ``stream`` has already. ``linger_seconds``: how long a request waits."""

    def __init__(self, client: NatsClient, stream: str, name: str, *, linger_seconds: float = REQUEST_SECONDS) -> None:
        self._client = client
        self._linger_seconds = linger_seconds
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._inbox = client.new_inbox()
        self._arrived: deque[Msg] = deque()
        self._changed = asyncio.Event()
        self._broken: str | None = None

    def interrupt(self, why: str) -> None:
        """End ``batches`` with an error: its request is not on the server any more."""
        self._broken = why
        self._changed.set()

    async def batches(
        self, wanted: Callable[[], Awaitable[int]], *, until_quiet: bool = False
    ) -> AsyncGenerator[list[Msg], None]:
        """Yield messages as they come, for ever. ``wanted``: how many at most, ≥ 1; awaited before each request.

        ``until_quiet``: end where a request has lingered and not all that it asked for has come.
        Raises ``ConsumerBrokenError`` and what nats-py raises.
        """
        subscription = await self._client.subscribe(self._inbox, cb=self._take, pending_msgs_limit=_MOST_PENDING)
        try:
            while True:
                left = await wanted()
                await self._ask(left)
                while left > 0:
                    messages, has_ended = await self._wait()
                    left = 0 if has_ended else left - len(messages)
                    if messages:
                        yield messages
                    if has_ended and until_quiet:
                        return
        finally:
            if self._client.is_connected:
                await subscription.unsubscribe()

    async def _take(self, message: Msg) -> None:
        self._arrived.append(message)
        self._changed.set()

    async def _ask(self, most: int) -> None:
        request = {"batch": most, "expires": int(self._linger_seconds * _NANOSECONDS)}
        await self._client.publish(self._next, orjson.dumps(request), reply=self._inbox)

    async def _wait(self) -> tuple[list[Msg], bool]:
        """What has arrived, at least one, and whether the request has ended with it."""
        silence_seconds = self._linger_seconds + _SILENCE_SECONDS
        try:
            async with asyncio.timeout(silence_seconds):
                await self._changed.wait()
        except TimeoutError as error:
            raise ConsumerBrokenError(f"no word for {silence_seconds:g} s") from error
        if self._broken is not None:
            raise ConsumerBrokenError(self._broken)
        self._changed.clear()
        messages: list[Msg] = []
        has_ended = False
        while self._arrived:
            message = self._arrived.popleft()
            status = (message.headers or {}).get("Status") if not message.data else None
            if status is None:
                messages.append(message)
            elif status == _EXPIRED:
                has_ended = True
            elif messages:
                self.interrupt(f"status {status}")  # told once these are taken
                break
            else:
                raise ConsumerBrokenError(f"status {status}: {(message.headers or {}).get('Description', '')}")
        return messages, has_ended
