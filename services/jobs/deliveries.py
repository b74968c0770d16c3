"""Deliveries of webhooks: kept before they are answered, and taken until what they ask for is done, by any gateway.

One that was seen before is kept once. After a crash it may be done twice: whoever does it makes that one piece of work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.contracts.text import storable
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "deliveries.sql")
_MAX_ERROR_CHARACTERS = 2_000


@dataclass(frozen=True)
class Delivery:
    """``source``: the address that it came to, by name. ``attempt``: 1 for whoever takes it first."""

    source: str
    id: str
    event: str
    payload: bytes = field(repr=False)
    attempt: int


@dataclass(frozen=True)
class Totals:
    """Of the last seven days: for so long deliveries are remembered."""

    count: int
    last_received_at: datetime | None


class Deliveries:
    """Every method raises ``StoreUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, source: str, delivery: str, event: str, payload: bytes | None) -> bool:
        """Whether it is new; one that was given up counts as new, and one that asked for nothing and now does.

        ``payload``: None where nothing is to be done.
        """

        async def work(connection: Connection) -> list[Record]:
            values = {"source": source, "delivery": delivery, "event": event, "payload": payload}
            return await _STATEMENTS.rows(connection, "keep", **values)

        return bool(await self._database.in_statement(work))

    async def take(self, *, most: int, again: timedelta) -> list[Delivery]:
        """Up to ``most`` that are due, which nobody else takes before ``again`` is over."""

        async def work(connection: Connection) -> list[Record]:
            return await _STATEMENTS.rows(connection, "take", most=most, again=again)

        rows = await self._database.in_transaction(work)
        return [
            Delivery(row["source"], row["delivery"], row["event"], row["payload"] or b"", row["attempts"])
            for row in rows
        ]

    async def done(self, delivery: Delivery) -> None:
        """Nothing is left of it but that it came."""
        await self._write("done", delivery)

    async def defer(self, delivery: Delivery, delay: timedelta, *, error: str) -> None:
        """Take it again after ``delay``. ``error``: why it could not be done."""
        await self._write("defer", delivery, delay=delay, error=_words(error))

    async def give_up(self, delivery: Delivery, *, error: str) -> None:
        """It is taken again only where it is delivered again."""
        await self._write("give_up", delivery, error=_words(error))

    async def totals(self, source: str | None = None) -> Totals:
        """``source``: None: of all."""
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "totals", source=source)
        assert row is not None
        return Totals(row["count"], row["last_received_at"])

    async def _write(self, statement: str, delivery: Delivery, **values: object) -> None:
        """Only where nobody has taken it since."""

        async def work(connection: Connection) -> None:
            about = {"source": delivery.source, "delivery": delivery.id, "attempt": delivery.attempt}
            await _STATEMENTS.execute(connection, statement, **about, **values)

        await self._database.in_transaction(work)


def _words(error: str) -> str:
    return storable(error)[:_MAX_ERROR_CHARACTERS]
