"""The server's own hands, whoever's work it is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from services.vcs.acting import Hands


class Always:
    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    @asynccontextmanager
    async def of_changeset(self, _: UUID) -> AsyncIterator[Hands]:
        yield self._hands
