"""Keeps this process to the fleet's pace: free while nothing is short, else in turn with all other agents.

What is short is in Postgres; that it is short is told to all agents at once over NATS, so that one refusal slows
everyone, not each in turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import timedelta
from functools import lru_cache
from typing import Protocol

from services.agent.model import Endpoint
from services.contracts import subjects
from services.runtime.jetstream import Bus, Message
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.pace")

_REMEMBERED_SECONDS = 120.0
_SCOPE_CHARACTERS = 32
_MOST_SCOPES = 256


class PaceStore(Protocol):
    async def throttle(self, scope: str, asked: timedelta) -> None: ...
    async def take(self, scope: str) -> timedelta | None: ...


class FleetPace:
    def __init__(self, store: PaceStore, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._short_until: dict[str, float] = {}

    async def permit(self, endpoint: Endpoint) -> None:
        """Return when a request may be sent: at once, unless the service refused one lately."""
        scope = _scope(endpoint)
        if self._short_until.get(scope, 0) < time.monotonic():
            self._short_until.pop(scope, None)
            return
        try:
            wait = await self._store.take(scope)
        except StoreUnavailableError as error:
            log.warning("the fleet's pace is not known; going on at this process's own", error=str(error))
            return
        if wait is None:
            self._short_until.pop(scope, None)
        else:
            await asyncio.sleep(wait.total_seconds())

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
        self._short_until[scope] = time.monotonic() + _REMEMBERED_SECONDS


@lru_cache(_MOST_SCOPES)
def _scope(endpoint: Endpoint) -> str:
    """A limit is a key's at an address; neither may be told."""
    words = f"{endpoint.base_url or ''} {endpoint.api_key.get_secret_value()}"
    return hashlib.sha256(words.encode()).hexdigest()[:_SCOPE_CHARACTERS]
