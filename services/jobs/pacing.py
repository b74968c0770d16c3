"""How fast the whole fleet may ask one model service: a token bucket in Postgres, there only while it is short.

It halves when the service refuses (429, 529) and doubles while it does not, as TCP finds its rate; after a while
without a refusal it is forgotten, and nobody asks it any more. Who has to wait has a place in one line for the fleet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
_NEARLY = 1e-6
"""Of a place: what sums of fractions may be short of a whole."""


@dataclass(frozen=True)
class Line:
    """The fleet's line before one service, as it was at a look. Places are numbered in the order they were taken."""

    taken: int
    """The last place."""
    reached: float
    """Places up to this one may ask."""
    per_second: float
    paused: timedelta
    """Until anybody may ask."""

    def may_ask(self, place: int) -> bool:
        return place <= self.reached + _NEARLY and not self.paused

    def wait(self, place: int) -> timedelta:
        """Until it is the turn of ``place`` if nobody is refused meanwhile: the rate doubles every 10 s until then."""
        return self.paused + timedelta(seconds=_seconds_until(place - self.reached, self.per_second))


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

    async def look(self, scope: str, places: int) -> Line | None:
        """Take ``places`` more in the line of ``scope``, which are the last ones then; None where nothing is short.

        A place is never taken away: whoever has one need not ask for it again. Raises ``StoreUnavailableError``.
        """

        async def work(connection: Connection) -> Record | None:
            return await _STATEMENTS.row(
                connection,
                "look",
                scope=scope,
                places=places,
                most_rate=_MOST_RATE,
                doubling=_DOUBLING_SECONDS,
                burst=_BURST,
                forgotten=FORGOTTEN,
            )

        row = await self._database.in_statement(work)
        if row is None:
            return None
        paused = timedelta(seconds=row["paused_seconds"])
        return Line(row["taken"], row["reached"], row["per_second"], paused)


def _seconds_until(tokens: float, per_second: float) -> float:
    """How long so many tokens take to come, at a rate that doubles until it is the highest one."""
    if tokens <= 0:
        return 0
    slope = math.log(2) / _DOUBLING_SECONDS
    until_fastest = math.log(_MOST_RATE / per_second) / slope
    seconds = math.log1p(tokens * slope / per_second) / slope
    if seconds <= until_fastest:
        return seconds
    return until_fastest + (tokens - (_MOST_RATE - per_second) / slope) / _MOST_RATE
