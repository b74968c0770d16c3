"""Has what came of jobs told where on a forge they came from. It only queues the words: a vcs posts them."""

from __future__ import annotations

from typing import Final

from services.jobs.work_items import WorkItems
from services.runtime.telemetry import logger

log = logger("scheduler.answering")

_AT_ONCE: Final = 20
_ROUNDS: Final = 10
"""Before the loop's wait has its turn."""


class Answering:
    def __init__(self, items: WorkItems) -> None:
        self._items = items

    async def run_once(self) -> None:
        """Raises ``StoreUnavailableError``."""
        for _ in range(_ROUNDS):
            answered = await self._items.answer_ended(most=_AT_ONCE)
            if answered:
                log.info("answered on a forge", work_items=answered)
            if answered < _AT_ONCE:
                return
