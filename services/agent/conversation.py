"""The agent's side of a conversation: what the run's user has said and the transcript does not have yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.jobs.messaging import InboxMessage


@dataclass(frozen=True)
class Heard:
    texts: Sequence[str]
    through: int
    """The number of the last of them: read, once its words are stored."""
    completes: bool
    """The user is done, and has said nothing since: no answer is wanted."""


class Conversation:
    def __init__(self, unread: Callable[[], Awaitable[Sequence[InboxMessage]]]) -> None:
        """``unread``: what is stored and not marked as read, in order."""
        self._unread = unread
        self._through = 0
        self._interrupts_through = 0
        self._has_unread = False
        self.interrupt = asyncio.Event()
        """Set while something is known of that is to be heard at once."""

    def told(self, *, has_unread: bool) -> None:
        """Somebody looked. What another has noticed meanwhile stands: he may have looked before it was said."""
        self._has_unread = self._has_unread or has_unread

    async def notice(self) -> None:
        """The user may have said something: look, and interrupt where that is wanted."""
        new = await self._new()
        self.told(has_unread=bool(new))
        if interrupting := [message.number for message in new if message.interrupt]:
            self._interrupts_through = max(interrupting)
            self.interrupt.set()

    async def hear(self) -> Heard | None:
        """What is new; None where nothing is."""
        self._has_unread = False
        new = await self._new()
        if new:
            self._through = new[-1].number
        if self._interrupts_through <= self._through:  # else it was said after this has looked
            self.interrupt.clear()
        if not new:
            return None
        texts = [message.text for message in new if not message.completes]
        return Heard(texts, self._through, completes=new[-1].completes)

    async def hear_if_told(self) -> Heard | None:
        """The same, without looking where nobody has noticed anything."""
        return await self.hear() if self._has_unread or self.interrupt.is_set() else None

    async def _new(self) -> list[InboxMessage]:
        # What was heard is unread until the checkpoint with its words is stored.
        return [message for message in await self._unread() if message.number > self._through]
