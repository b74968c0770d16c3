"""The agent's side of a conversation: what the run's user has said and the transcript does not have yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.jobs.messaging import InboxMessage


@dataclass(frozen=True)
class Heard:
    texts: Sequence[str]
    through: int
    """The number of the last of them: read, once its words are stored."""
    completes: bool
    """The user is done: no answer is wanted."""


class Conversation:
    def __init__(self, unread: Callable[[], Awaitable[Sequence[InboxMessage]]]) -> None:
        """``unread``: what is stored and not marked as read, in order."""
        self._unread = unread
        self._through = 0
        self._has_unread = False

    def told(self, *, has_unread: bool) -> None:
        """Somebody noticed whether something is unread."""
        self._has_unread = has_unread

    async def hear(self) -> Heard | None:
        """What is new; None where nothing is."""
        self._has_unread = False
        # What was heard is unread until the checkpoint with its words is stored.
        new = [message for message in await self._unread() if message.number > self._through]
        if not new:
            return None
        self._through = new[-1].number
        texts = [message.text for message in new if not message.completes]
        return Heard(texts, self._through, completes=any(message.completes for message in new))

    async def hear_if_told(self) -> Heard | None:
        """The same, without looking where nobody has noticed anything."""
        return await self.hear() if self._has_unread else None

    async def wants_to_interrupt(self) -> bool:
        """Whether something new is to be heard at once."""
        return any(message.interrupt for message in await self._unread() if message.number > self._through)
