"""What is to be said on a forge, as claimed work: queued with what it tells of, posted once by any vcs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.contracts.text import storable
from services.jobs.unit import SQL
from services.runtime.ids import uuid7
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "forge_comments.sql")
_MOST_ERROR_CHARACTERS = 4_000


@dataclass(frozen=True)
class DueComment:
    """``id`` marks it on the forge. ``in_reply_to``: a review comment's id; empty: a comment on the issue."""

    id: UUID
    repository: str
    number: int
    in_reply_to: str
    body: str
    tries: int
    """This one included; where it is the first, nothing can have been posted yet."""
    queued_at: datetime


async def queue(
    connection: Connection,
    *,
    work_item_id: UUID,
    repository: str,
    number: int,
    in_reply_to: str | None,
    body: str,
    comment_id: UUID | None = None,
) -> UUID:
    """Have ``body`` (Markdown) said once the transaction of ``connection`` has committed; the comment's id.

    ``repository``: a Git URL. ``number``: of the issue or pull request. ``in_reply_to``: the id of the review comment
    that begins a thread, to answer there. ``comment_id``: made before a transaction that may be run again although it
    has committed; None: a new one.
    """
    comment_id = comment_id or uuid7()
    await _STATEMENTS.execute(
        connection,
        "queue",
        id=comment_id,
        work_item_id=work_item_id,
        repository=repository,
        number=number,
        in_reply_to=in_reply_to or None,
        body=storable(body),
    )
    return comment_id


class ForgeComments:
    """Every method raises ``StoreUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_due(self, *, most: int, again: timedelta) -> list[DueComment]:
        """Up to ``most`` comments to be posted now; they are due again after ``again`` where nothing is recorded."""

        async def work(connection: Connection) -> list[Record]:
            return await _STATEMENTS.rows(connection, "take_due", most=most, again=again)

        return [_due(row) for row in await self._database.in_transaction(work)]

    async def posted(self, comment: DueComment, url: str) -> None:
        """It is said, at ``url``."""
        await self._change("posted", id=comment.id, url=storable(url))

    async def retry(self, comment: DueComment, *, error: str, delay: timedelta) -> None:
        """Try again, ``delay`` from now at the earliest. Nothing where another has taken it since."""
        await self._put_off(comment, error, delay, spent=1)

    async def postpone(self, comment: DueComment, *, error: str, delay: timedelta) -> None:
        """As ``retry``, but this try does not count: nothing was posted, since the forge wants us to wait."""
        await self._put_off(comment, error, delay, spent=0)

    async def give_up(self, comment: DueComment, *, error: str) -> None:
        """It is refused for good."""
        await self._change("give_up", id=comment.id, tries=comment.tries, error=_words(error))

    async def _put_off(self, comment: DueComment, error: str, delay: timedelta, *, spent: int) -> None:
        tries, words = comment.tries, _words(error)
        await self._change("retry", id=comment.id, tries=tries, error=words, delay=delay, spent=spent)

    async def _change(self, statement: str, **parameters: object) -> None:
        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(connection, statement, **parameters)

        await self._database.in_transaction(work)


def _words(error: str) -> str:
    return storable(error)[:_MOST_ERROR_CHARACTERS]


def _due(row: Record) -> DueComment:
    return DueComment(
        id=row["id"],
        repository=row["repository"],
        number=row["number"],
        in_reply_to=row["in_reply_to"] or "",
        body=row["body"],
        tries=row["attempts"],
        queued_at=row["created_at"],
    )
