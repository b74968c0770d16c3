"""Says on forges what is queued to be said there: each comment once, however often its vcs is killed over it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from services.jobs.forge_comments import DueComment, ForgeComments
from services.runtime import jetstream, lifecycle, postgres
from services.runtime.backing_off import back_off
from services.runtime.telemetry import logger
from services.vcs.errors import ForgePausedError, ForgeUnavailableError, VcsError
from services.vcs.forges import MarkedComment, PostedComment
from services.vcs.forges.choosing import Forges
from services.vcs.git.repositories import parse_repository

log = logger("vcs.commenter")

MOST_AT_ONCE: Final = 4
MAX_TRIES: Final = 16
"""With the back-off about two hours: so long a forge may be away. Below ``MOST_CLAIMS``, which counts them too."""
MOST_CLAIMS: Final = 20
"""Of one comment: so many vcs that stopped over it did so because of it."""
_LOOK_EVERY: Final = timedelta(seconds=1)
_AT_MOST: Final = timedelta(seconds=90)
"""For one try, the looking through what is there already included."""
_AGAIN: Final = timedelta(minutes=2)
"""Until what its vcs died over is taken again: longer than a try may last, so that no two say the same at once."""
_FIRST_DELAY_SECONDS: Final = 8.0
_LONGEST_DELAY_SECONDS: Final = 900.0


class Commenter:
    def __init__(self, comments: ForgeComments, forges: Forges, *, allow_local: bool) -> None:
        self._comments = comments
        self._forges = forges
        self._allow_local = allow_local

    async def run(self) -> None:
        """Look for what is due, for ever."""

        async def wait() -> None:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())

        transient = (*postgres.TRANSIENT, *jetstream.TRANSIENT)
        await lifecycle.repeat("commenter", self.run_once, wait=wait, transient=transient)

    async def run_once(self) -> None:
        """Say some of what is due now, all at once. Raises ``StoreUnavailableError`` only before anything is said."""
        due = await self._comments.take_due(most=MOST_AT_ONCE, again=_AGAIN)
        async with asyncio.TaskGroup() as saying:
            for comment in due:
                saying.create_task(self._survive(comment))

    async def _survive(self, comment: DueComment) -> None:
        try:
            await self._say(comment)
        except postgres.StoreUnavailableError as error:
            log.warning("what became of a comment was not recorded", comment=str(comment.id), error=str(error))

    async def _say(self, comment: DueComment) -> None:
        try:
            _refuse_deadly(comment)
            posted = await self._post(comment)
        except ForgePausedError as error:
            log.info("a comment waits for its forge", comment=str(comment.id), error=str(error))
            await self._comments.postpone(comment, error=str(error), delay=timedelta(seconds=error.seconds))
        except VcsError as error:
            await self._give_up_or_retry(comment, error)
        except postgres.StoreUnavailableError:
            raise
        except Exception as error:
            # A bug: left to be taken again it would end the service each time, and nobody be told.
            log.exception("commenting failed unexpectedly", comment=str(comment.id))
            await self._give_up_or_retry(comment, VcsError(f"{type(error).__name__}: {error}", retryable=True))
        else:
            await self._comments.posted(comment, posted.url)

    async def _post(self, comment: DueComment) -> PostedComment:
        repository = parse_repository(comment.repository, allow_local=self._allow_local)
        marked = MarkedComment(
            id=str(comment.id),
            repository=repository,
            number=comment.number,
            body=comment.body,
            in_reply_to=comment.in_reply_to,
            tried_since=comment.queued_at if comment.tries > 1 else None,
        )
        try:
            async with asyncio.timeout(_AT_MOST.total_seconds()):
                return await self._forges.of(repository).post(marked)
        except TimeoutError as error:
            words = f"it took over {_AT_MOST.total_seconds():g} s to comment; it will be looked for, and tried again"
            raise ForgeUnavailableError(words) from error

    async def _give_up_or_retry(self, comment: DueComment, error: VcsError) -> None:
        if error.retryable and comment.tries < MAX_TRIES:
            log.warning("a comment will be tried again", comment=str(comment.id), error=str(error))
            await self._comments.retry(comment, error=str(error), delay=_delay(comment.tries))
        else:
            log.warning("a comment was given up", comment=str(comment.id), error=str(error))
            await self._comments.give_up(comment, error=str(error))


def _refuse_deadly(comment: DueComment) -> None:
    if comment.tries > MOST_CLAIMS:
        raise VcsError(f"the vcs service stopped {MOST_CLAIMS} times while it posted this comment; see its log")


def _delay(tries: int) -> timedelta:
    return back_off(tries, first_seconds=_FIRST_DELAY_SECONDS, longest_seconds=_LONGEST_DELAY_SECONDS)
