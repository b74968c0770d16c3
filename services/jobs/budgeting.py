"""Reserves what a request to a model may come to, so that runs side by side stay within the budgets they share.

A reservation counts as used by everyone else, until the request's usage is stored in its place or a sweep drops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from services.contracts.agents import Budget
from services.contracts.spending import microusd as microusd_of
from services.contracts.spending import usd as usd_of
from services.jobs.errors import LeaseLostError
from services.jobs.models import Hold
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements

STATEMENTS = Statements(SQL / "budgeting.sql")
_LOCK = 7_305_804_402_566_448_740
"""Of reservations of the fleet; a client's has its name mixed in."""
UNPRICED = "use another model, or set `allowUnpriced`"
_NO_RUN = UUID(int=0)
_NAMES = {
    "job": "this job's budget",
    "client": "this client's budget",
    "client_day": "this client's budget for the day {day} (UTC)",
    "day": "the budget of all clients for the day {day} (UTC)",
}


@dataclass(frozen=True)
class Room:
    """What may still be used. None: not limited."""

    tokens: int | None
    microusd: int | None

    def holds(self, tokens: int, microusd: int) -> bool:
        return (self.tokens is None or tokens <= self.tokens) and (self.microusd is None or microusd <= self.microusd)


@dataclass(frozen=True)
class Refusal:
    """A request that may come to more than a budget leaves; nothing is reserved for the run any more."""

    words: str
    """Which budget, its size, what is left of it."""
    left: Room
    """By the tightest budgets, for this run, now."""
    left_at_most: Room
    """The same if the requests of other runs that are under way come to nothing: more than ``left`` may come free."""


@dataclass(frozen=True)
class Standing:
    """One budget, and how it stands for a run."""

    scope: str
    day: date
    budget: Room
    left: Room
    left_at_most: Room

    @classmethod
    def of(cls, row: Record) -> Standing:
        budget = Room(row["tokens"], row["microusd"])
        unused = _less(budget, row["used_tokens"], row["used_microusd"])
        left = _less(unused, row["reserved_tokens"], row["reserved_microusd"])
        return cls(row["scope"], row["day"], budget, left, unused)

    def refusing(self, tokens: int, microusd: int) -> str:
        """The words for a request that may come to so much."""
        name = _NAMES[self.scope].format(day=self.day)
        if self.left.tokens is not None and tokens > self.left.tokens:
            size, left, wanted = (f"{n:,} tokens" for n in (self.budget.tokens, max(0, self.left.tokens), tokens))
        else:
            amounts = (self.budget.microusd or 0, max(0, self.left.microusd or 0), microusd)
            size, left, wanted = (f"{usd_of(n):.6g} USD" for n in amounts)
        held = "" if self.left == self.left_at_most else ", besides what other requests under way may come to"
        return (
            f"{name} is {size}: {left} are left of it{held}, and the next request may come to {wanted}; retry the run "
            "when more is left, or with a higher budget"
        )


class Budgeting:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(
        self, hold: Hold, *, client_id: UUID, tokens: int, microusd: int | None, job_budget: Budget | None
    ) -> Refusal | None:
        """Reserve so much for the run's next request, in place of what it had reserved before.

        ``tokens``, ``microusd``: the most that the request can come to. ``microusd`` None: its model has no known
        price, and no budget in USD lets it pass. Safe to repeat where the answer was lost.
        Raises ``LeaseLostError``, ``StoreUnavailableError``.
        """

        async def work(connection: Connection) -> Refusal | None:
            await STATEMENTS.rows(connection, "take_turn", client=str(client_id), lock=_LOCK)
            standings = await standings_of(
                connection, client_id, run_id=hold.run_id, job_id=hold.job_id, job_budget=job_budget
            )
            refusal = _refusal(standings, tokens, microusd)
            if refusal is None:
                is_held = await STATEMENTS.value(
                    connection, "reserve", run_id=hold.run_id, token=hold.token, tokens=tokens, microusd=microusd or 0
                )
            else:
                is_held = await STATEMENTS.value(connection, "release", run_id=hold.run_id, token=hold.token)
            if not is_held:
                words = f"run {hold.run_id} is not held by attempt {hold.attempt} any more, or is to be cancelled"
                raise LeaseLostError(words)
            return refusal

        return await self._database.in_transaction(work)


async def standings_of(
    connection: Connection,
    client_id: UUID,
    *,
    run_id: UUID = _NO_RUN,
    job_id: UUID = _NO_RUN,
    job_budget: Budget | None = None,
) -> Sequence[Standing]:
    """The budgets that hold for a client now, or for one run of its; not limited ones are left out."""
    rows = await STATEMENTS.rows(
        connection,
        "standings",
        client_id=client_id,
        run_id=run_id,
        job_id=job_id,
        job_tokens=job_budget.tokens if job_budget else None,
        job_microusd=microusd_of(job_budget.usd) if job_budget and job_budget.usd is not None else None,
    )
    return [Standing.of(row) for row in rows]


def tightest(rooms: Sequence[Room]) -> Room:
    """What all of ``rooms`` leave together."""
    tokens = [room.tokens for room in rooms if room.tokens is not None]
    amounts = [room.microusd for room in rooms if room.microusd is not None]
    return Room(min(tokens, default=None), min(amounts, default=None))


def _refusal(standings: Sequence[Standing], tokens: int, microusd: int | None) -> Refusal | None:
    left = tightest([standing.left for standing in standings])
    left_at_most = tightest([standing.left_at_most for standing in standings])
    if microusd is None and left.microusd is not None:
        scope = next(standing for standing in standings if standing.left.microusd is not None)
        name = _NAMES[scope.scope].format(day=scope.day)
        words = f"{name} is in USD, and the model is unpriced: no price is known; {UNPRICED}"
        return Refusal(words, Room(0, 0), Room(0, 0))
    if left.holds(tokens, microusd or 0):
        return None
    refusing = [standing for standing in standings if not standing.left.holds(tokens, microusd or 0)]
    # Of several, one that nothing under way can free again is the reason.
    final = [standing for standing in refusing if not standing.left_at_most.holds(tokens, microusd or 0)]
    return Refusal((final or refusing)[0].refusing(tokens, microusd or 0), left, left_at_most)


def _less(room: Room, tokens: int, microusd: int) -> Room:
    return Room(
        None if room.tokens is None else room.tokens - tokens,
        None if room.microusd is None else room.microusd - microusd,
    )
