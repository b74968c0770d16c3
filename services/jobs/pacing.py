"""How fast the whole fleet may ask one model service: a token bucket in Postgres, there only while it is short.

It halves when the service refuses (429, 529) and doubles while it does not, as TCP finds its rate; after a while
without a refusal it is forgotten, and nobody asks it any more.
"""

from __future__ import annotations

from datetime import timedelta

from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "pacing.sql")

FORGOTTEN = timedelta(minutes=2)
"""A shortage that nobody met for so long is over."""
_FIRST_RATE = 4.0
_LEAST_RATE = 0.1
_MOST_RATE = 1_000.0
_DOUBLING_SECONDS = 10.0
_BURST = 2.0


class Pacing:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def throttle(self, scope: str, asked: timedelta) -> None:
        """Note that the service refused a request of ``scope``, and for how long it asks to be left alone.

        Raises ``StoreUnavailableError``.
        """

        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(
                connection,
                "throttle",
                scope=scope,
                asked=asked,
                first_rate=_FIRST_RATE,
                least_rate=_LEAST_RATE,
                forgotten=FORGOTTEN,
            )

        await self._database.in_statement(work)

    async def take(self, scope: str) -> timedelta | None:
        """How long to wait before the next request of ``scope``; None where nothing is short.

        Whoever asks has its place: it is not asked for again. Raises ``StoreUnavailableError``.
        """

        async def work(connection: Connection) -> Record | None:
            return await _STATEMENTS.row(
                connection,
                "take",
                scope=scope,
                most_rate=_MOST_RATE,
                doubling_seconds=_DOUBLING_SECONDS,
                burst=_BURST,
                forgotten=FORGOTTEN,
            )

        row = await self._database.in_statement(work)
        return timedelta(seconds=row["wait_seconds"]) if row is not None else None
