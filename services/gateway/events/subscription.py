"""What one watcher has not read yet. Never without bound: who reads too slowly is cut off, and can take it up again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from services.gateway.events.live import LiveEvent
from services.runtime.telemetry import logger

log = logger("gateway.events")

MOST_EVENTS = 2_000
MOST_BYTES = 4 * 1024**2

Look: TypeAlias = Callable[[int], Awaitable[Sequence[LiveEvent]]]
"""Finds in Postgres what there is behind a number."""


class SubscriptionEndedError(Exception):
    """The watcher read too slowly, or the process stops: connect again with the last id seen."""


class Sink(Protocol):
    """Takes events at once, without waking the watcher's task."""

    def take(self, event: LiveEvent) -> bool:
        """Whether it took it; where not, the task is to."""
        ...

    def tick(self) -> bool:
        """To be called every second; false: the watcher is not there any more."""
        ...


class Subscription:
    """``reached``: the number that the watcher has come to; None: it still reads what it missed.

    ``look``: how to find what nobody told; one of all who watch the same is asked.
    """

    def __init__(self, *, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        self.reached: int | None = None
        self.look: Look | None = None
        self.sink: Sink | None = None
        self.has_ended = False
        self._events: deque[LiveEvent] = deque()
        self._bytes = 0
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._waiting: asyncio.Future[None] | None = None

    def offer(self, event: LiveEvent) -> None:
        if self.has_ended or self._is_taken_at_once(event):
            return
        if len(self._events) >= self._most_events or self._bytes + len(event.data) > self._most_bytes:
            log.info("a watcher reads too slowly and is cut off", events=len(self._events), bytes=self._bytes)
            self.end()
            return
        self._events.append(event)
        self._bytes += len(event.data)
        self._wake()

    def _is_taken_at_once(self, event: LiveEvent) -> bool:
        """Only while the task has nothing left to send: what is older goes first."""
        is_idle = self._waiting is not None and not self._events
        if not is_idle or self.sink is None:
            return False
        try:
            return self.sink.take(event)
        except Exception:
            # It is this watcher's loss alone: whoever offers events serves all the others, too.
            log.exception("a watcher failed and is cut off")
            self.end()
            return True

    def tick(self) -> None:
        try:
            is_there = self.sink is None or self.sink.tick()
        except Exception:
            log.exception("a watcher failed and is cut off")
            is_there = False
        if not is_there:
            self.end()

    def end(self) -> None:
        self._events.clear()
        self.has_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def next(self) -> LiveEvent:
        """The next event. Raises ``SubscriptionEndedError``: where the watcher leaves, and where the process stops."""
        if not self._events and not self.has_ended:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self.has_ended:
            raise SubscriptionEndedError
        event = self._events.popleft()
        self._bytes -= len(event.data)
        return event
