"""Hears that budgets were changed, so that runs under way ask before their next request; a checkpoint's answer, which
may come behind that request, tells of it too.
"""

from __future__ import annotations

import asyncio

from services.contracts import subjects
from services.runtime.jetstream import Bus, Message


class BudgetNews:
    def __init__(self) -> None:
        self.count = 0
        """How often budgets were changed since this process began, as far as that was heard."""

    async def hear(self, bus: Bus) -> None:
        """Listen, for ever."""

        async def on_change(_: Message) -> None:
            self.count += 1

        await bus.listen(subjects.BUDGETS, on_change)
        await asyncio.Event().wait()
