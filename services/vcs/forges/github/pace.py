"""How fast GitHub may be asked. The fleet shares one pace; the one kept here is for a fleet of one process."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from services.vcs.errors import ForgePausedError

CREATES_PER_MINUTE: Final = 20
_MINUTE_SECONDS: Final = 60.0


class Pace(Protocol):
    async def before(self, *, creates: bool) -> None:
        """Called before each request. ``creates``: it opens a pull request, of which only so many a minute may be.

        Raises ``ForgePausedError`` where the fleet is paused, or the minute's creations are spent.
        """

    async def pause(self, seconds: float, reason: str) -> None:
        """Let nobody ask before ``seconds`` are over. A pause only grows: a shorter one changes nothing."""


class LocalPace:
    def __init__(
        self, *, creates_per_minute: int = CREATES_PER_MINUTE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._creates_per_minute = creates_per_minute
        self._clock = clock
        self._created: deque[float] = deque()
        self._paused_until = 0.0
        self._reason = ""

    async def before(self, *, creates: bool) -> None:
        now = self._clock()
        if now < self._paused_until:
            raise ForgePausedError(f"GitHub is not asked for a while: {self._reason}", seconds=self._paused_until - now)
        if creates:
            self._count(now)

    async def pause(self, seconds: float, reason: str) -> None:
        until = self._clock() + seconds
        if until > self._paused_until:
            self._paused_until, self._reason = until, reason

    def _count(self, now: float) -> None:
        while self._created and self._created[0] <= now - _MINUTE_SECONDS:
            self._created.popleft()
        if len(self._created) >= self._creates_per_minute:
            raise ForgePausedError(
                f"{self._creates_per_minute} pull requests were opened in this minute, as many as may be",
                seconds=self._created[0] + _MINUTE_SECONDS - now,
            )
        self._created.append(now)
