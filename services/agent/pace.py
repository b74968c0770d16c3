"""Keeps this process to the fleet's pace: free while nothing is short, else in turn with all other agents.

What is short is in Postgres; that it is short is told to all agents at once over NATS, so that one refusal slows
everyone, not each in turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Protocol

from services.agent.model import Endpoint, PostponedError
from services.contracts import subjects
from services.jobs.pacing import Line
from services.runtime.jetstream import Bus, Message
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.pace")

LONGEST_WAIT = timedelta(minutes=5)
"""For a turn; a longer one gives the slot back, as a longer `retry-after` does."""
LEAST_LEFT = timedelta(seconds=1)
"""Of a run's time, when it gets its turn; a run that has no more does not give its slot back either."""
_SHORTEST_DELAY = timedelta(seconds=5)
"""Of a run that gives its slot back: less is not worth a new attempt."""
_MOST_OFTEN_SECONDS, _LEAST_OFTEN_SECONDS = 0.25, 1.0
"""Between two looks at the line."""
_REMEMBERED_SECONDS = 120.0
_SCOPE_CHARACTERS = 32
_MOST_SCOPES = 256

Pause = Callable[[float], Awaitable[None]]


class PaceStore(Protocol):
    async def throttle(self, scope: str, asked: timedelta) -> None: ...
    async def look(self, scope: str, places: int) -> Line | None: ...


class FleetPace:
    def __init__(
        self,
        store: PaceStore,
        bus: Bus,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._pause = pause
        self._short_until: dict[str, float] = {}
        self._queues: dict[str, _Queue] = {}

    async def permit(self, endpoint: Endpoint, *, until: float | None = None) -> None:
        """Return when a request may be sent: at once, unless the service refused one lately.

        ``until``: when the asker is out of time, on ``clock``. Raises ``PostponedError`` where its turn would come
        after that, or in over 5 minutes.
        """
        scope = _scope(endpoint)
        if self._short_until.get(scope, 0) < self._clock():
            self._short_until.pop(scope, None)
            return
        if (queue := self._queues.get(scope)) is None:
            queue = self._queues[scope] = _Queue(
                lambda places: self._look(scope, places),
                on_end=lambda: self._queues.pop(scope, None),
                clock=self._clock,
                pause=self._pause,
            )
        await queue.turn(until)

    async def _look(self, scope: str, places: int) -> Line | None:
        """None: everybody may go."""
        try:
            line = await self._store.look(scope, places)
        except StoreUnavailableError as error:
            log.warning("the fleet's pace is not known; going on at this process's own", error=str(error))
            return None
        if line is None:
            self._short_until.pop(scope, None)
        return line

    async def throttled(self, endpoint: Endpoint, asked: timedelta) -> None:
        """The service has too many requests: tell everyone."""
        scope = _scope(endpoint)
        self.heard(scope)
        try:
            await self._store.throttle(scope, asked)
        except StoreUnavailableError as error:
            log.warning("could not slow the fleet down", error=str(error))
            return
        await self._bus.ring(subjects.PACE, scope.encode())

    async def hear(self) -> None:
        """Hear of refusals elsewhere, for ever."""

        async def on_refusal(message: Message) -> None:
            self.heard(message.data.decode(errors="replace"))

        await self._bus.listen(subjects.PACE, on_refusal)
        await asyncio.Event().wait()

    def heard(self, scope: str) -> None:
        """Somebody was refused: from now on this process asks for its turn."""
        self._short_until[scope] = self._clock() + _REMEMBERED_SECONDS


@dataclass(eq=False)
class _Waiting:
    turn: asyncio.Future[None]
    until: float
    """When it gives up."""


class _Queue:
    """Who waits in this process for its turn at one service, in the order they came.

    Places in the fleet's line belong to the queue and not to those in it: who leaves gives its place to who is behind.
    One look at the line is for all of them.
    """

    def __init__(
        self,
        look: Callable[[int], Awaitable[Line | None]],
        *,
        on_end: Callable[[], object],
        clock: Callable[[], float],
        pause: Pause,
    ) -> None:
        """``look``: takes so many places; None: there is no line, and everybody may go. ``on_end``: nobody waits."""
        self._look = look
        self._on_end = on_end
        self._clock = clock
        self._pause = pause
        self._waiting: deque[_Waiting] = deque()
        self._places: deque[int] = deque()
        self._looking: asyncio.Task[None] | None = None

    async def turn(self, until: float | None) -> None:
        """Return when it is the asker's turn; raises ``PostponedError``."""
        now = self._clock()
        longest = now + LONGEST_WAIT.total_seconds()
        if until is not None and until - LEAST_LEFT.total_seconds() > now:
            longest = min(longest, until - LEAST_LEFT.total_seconds())
        waiting = _Waiting(asyncio.get_running_loop().create_future(), longest)
        self._waiting.append(waiting)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_while_any_wait(), name="pace")
        await waiting.turn

    async def _look_while_any_wait(self) -> None:
        try:
            line, at = await self._look(0), self._clock()
            while line is not None:
                # Before places are taken for them: the whole fleet would wait for those, behind nobody.
                self._send_away(line, at)
                if not self._waiting:
                    return
                missing = max(0, len(self._waiting) - len(self._places))
                line, at = await self._look(missing), self._clock()
                if line is not None:
                    self._places.extend(range(line.taken - missing + 1, line.taken + 1))
                    self._forget_cancelled()
                    self._let_go(line)
                    self._send_away(line, at)
                    await self._rest(line)
            self._end_all()
        except Exception as error:
            self._end_all(error)
            raise
        finally:
            self._looking = None
            self._on_end()

    def _forget_cancelled(self) -> None:
        self._waiting = deque(waiting for waiting in self._waiting if not waiting.turn.done())

    def _let_go(self, line: Line) -> None:
        """Those whose turn it is."""
        while self._places and line.may_ask(self._places[0]):
            self._places.popleft()
            if self._waiting:
                _end(self._waiting.popleft())

    def _send_away(self, line: Line, at: float) -> None:
        """Those that would have to wait for too long, also if everything recovers; as ``line`` was ``at`` that time."""
        self._forget_cancelled()
        staying: deque[_Waiting] = deque()
        for waiting in self._waiting:
            newcomers = len(staying) - len(self._places)
            place = self._places[len(staying)] if newcomers < 0 else line.taken + 1 + newcomers
            wait = line.wait(place)
            if at + wait.total_seconds() <= waiting.until:
                staying.append(waiting)
                continue
            words = (
                f"the model service has too many requests: this one's turn would come in {wait.total_seconds():.0f} s"
            )
            _end(waiting, PostponedError(max(wait, _SHORTEST_DELAY), words))
        self._waiting = staying

    async def _rest(self, line: Line) -> None:
        """Until somebody is due or has come, for a quarter of a second at least; for a second at most: it may go faster
        than was reckoned with.
        """
        due = line.wait(self._places[0]).total_seconds() if self._places else 0
        rest = min(max(due, _MOST_OFTEN_SECONDS), _LEAST_OFTEN_SECONDS)
        while rest > 0:
            step = min(rest, _MOST_OFTEN_SECONDS)
            await self._pause(step)
            rest -= step
            if len(self._waiting) > len(self._places):
                return

    def _end_all(self, error: Exception | None = None) -> None:
        while self._waiting:
            _end(self._waiting.popleft(), error)


def _end(waiting: _Waiting, error: Exception | None = None) -> None:
    if waiting.turn.done():  # it was cancelled
        return
    if error is None:
        waiting.turn.set_result(None)
    else:
        waiting.turn.set_exception(error)


@lru_cache(_MOST_SCOPES)
def _scope(endpoint: Endpoint) -> str:
    """A limit is a key's at an address; neither may be told."""
    words = f"{endpoint.base_url or ''} {endpoint.api_key.get_secret_value()}"
    return hashlib.sha256(words.encode()).hexdigest()[:_SCOPE_CHARACTERS]
