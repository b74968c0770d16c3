"""All who watch the same: a job, or all of a client. What nobody told them is looked for once, for all of them."""

from __future__ import annotations

import asyncio

from services.gateway.events.live import LiveEvent
from services.gateway.events.subscription import Subscription


class Audience:
    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self._looked = asyncio.get_running_loop().time()

    def offer(self, event: LiveEvent) -> None:
        if event.number:
            # That it follows without a hole shows that all before it was heard: no need to look soon.
            self._looked = asyncio.get_running_loop().time()
        for subscription in self.subscriptions:
            subscription.offer(event)

    def is_quiet(self, seconds: float) -> bool:
        return asyncio.get_running_loop().time() >= self._looked + seconds

    async def look(self) -> None:
        """Offer what Postgres has behind the one who is least far; raises ``StoreUnavailableError``.

        Those who still read what they missed find it by themselves.
        """
        live = [each for each in self.subscriptions if each.reached is not None and each.look is not None]
        if not live:
            return
        self._looked = asyncio.get_running_loop().time()
        last = min(live, key=lambda each: each.reached or 0)
        assert last.look is not None
        for event in await last.look(last.reached or 0):
            self.offer(event)
