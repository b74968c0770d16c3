"""Budgets read and replaced while everything runs, and what clients have used day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from uuid import UUID

from services.contracts import spending
from services.contracts.agents import Budget
from services.jobs.budgeting import STATEMENTS, standings_of, tightest
from services.jobs.errors import NotAllowedError, UnknownClientError
from services.jobs.models import Client
from services.runtime.postgres import Connection, Database, Record

DEFAULT = ""
"""The name of what holds for everyone in a scope who is not named."""
USUAL_DAYS = 30

_Row = tuple[str, str, Budget]


class BudgetSetting:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, client: Client) -> spending.Budgets:
        """All of them for an operator; for anybody else the common ones and the client's own."""
        async with self._database.connection() as connection:
            rows = await STATEMENTS.rows(connection, "budgets")
        return _shown(rows, only=None if client.is_operator else client.name)

    async def replace(self, client: Client, wanted: spending.Budgets) -> spending.Budgets:
        """Set all budgets to ``wanted``; what it leaves out is not limited. Requests under way are let go on.

        Raises ``NotAllowedError``, ``UnknownClientError``, ``StoreUnavailableError``.
        """
        if not client.is_operator:
            raise NotAllowedError("only an operator's key may change the budgets")
        rows = _rows(wanted)

        async def work(connection: Connection) -> None:
            await _clients_named(connection, {name for _, name, _ in rows if name != DEFAULT})
            await STATEMENTS.execute(connection, "lock")
            await STATEMENTS.execute(connection, "clear")
            await STATEMENTS.execute(
                connection,
                "insert",
                scopes=[scope for scope, _, _ in rows],
                names=[name for _, name, _ in rows],
                tokens=[budget.tokens for _, _, budget in rows],
                microusd=[None if budget.usd is None else spending.microusd(budget.usd) for _, _, budget in rows],
            )

        await self._database.in_transaction(work)
        return await self.read(client)


class UsageReading:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(
        self, client: Client, *, of: str | None, first_day: date | None, last_day: date | None
    ) -> spending.UsageReport:
        """What the client ``of`` this name (None: ``client`` itself) used from one UTC day to another, both included.

        None for the days: the 30 up to the last, and today. Raises ``NotAllowedError``, ``UnknownClientError``,
        ``StoreUnavailableError``.
        """
        if of not in (None, client.name) and not client.is_operator:
            raise NotAllowedError("only an operator's key may read what other clients used")
        async with self._database.connection() as connection:
            asked_of = await _asked_of(connection, client, of)
            last = last_day or await STATEMENTS.value(connection, "today")
            first = first_day or last - timedelta(days=USUAL_DAYS - 1)
            rows = await STATEMENTS.rows(connection, "days", client_id=asked_of, first_day=first, last_day=last)
            standings = await standings_of(connection, asked_of)
        left = tightest([standing.left for standing in standings])
        return spending.UsageReport(
            client=of or client.name,
            first_day=first,
            last_day=last,
            days=[_day(row) for row in rows],
            total=_total(rows),
            left_today=_left(left.tokens, left.microusd),
        )


async def _asked_of(connection: Connection, client: Client, name: str | None) -> UUID:
    if name in (None, client.name):
        return client.id
    return (await _clients_named(connection, {name}))[name]


async def _clients_named(connection: Connection, names: set[str]) -> Mapping[str, UUID]:
    rows = await STATEMENTS.rows(connection, "known_clients", names=sorted(names))
    found: dict[str, UUID] = {row["name"]: row["id"] for row in rows}
    if missing := names - found.keys():
        raise UnknownClientError(sorted(missing))
    return found


def _rows(wanted: spending.Budgets) -> list[_Row]:
    """As they are stored. A name may be without any limit, in place of the default; a default without one is none."""
    defaults = [
        ("day", wanted.day),
        ("client", wanted.client.default),
        ("client_day", wanted.client_day.default),
    ]
    rows: list[_Row] = [
        (scope, DEFAULT, budget) for scope, budget in defaults if budget is not None and budget != Budget()
    ]
    for scope, named in (("client", wanted.client), ("client_day", wanted.client_day)):
        rows += [(scope, name, budget) for name, budget in named.by_name.items()]
    return rows


def _shown(rows: Sequence[Record], *, only: str | None) -> spending.Budgets:
    def scope(wanted: str) -> dict[str, Budget]:
        return {row["name"]: _budget(row["tokens"], row["microusd"]) for row in rows if row["scope"] == wanted}

    def named(budgets: dict[str, Budget]) -> spending.NamedBudgets:
        default = budgets.pop(DEFAULT, None)
        by_name = {name: budget for name, budget in budgets.items() if only in (None, name)}
        return spending.NamedBudgets(default=default, by_name=by_name)

    return spending.Budgets(
        day=scope("day").get(DEFAULT), client=named(scope("client")), client_day=named(scope("client_day"))
    )


def _budget(tokens: int | None, microusd: int | None) -> Budget:
    return Budget(tokens=tokens, usd=None if microusd is None else spending.usd(microusd))


def _left(tokens: int | None, microusd: int | None) -> Budget:
    """Nothing is left of what is overdrawn."""
    return _budget(None if tokens is None else max(0, tokens), None if microusd is None else max(0, microusd))


def _day(row: Record) -> spending.DayUsage:
    return spending.DayUsage(day=row["day"], tokens=row["tokens"], usd=spending.usd(row["microusd"]))


def _total(rows: Sequence[Record]) -> spending.Amount:
    microusd = sum(row["microusd"] for row in rows)
    return spending.Amount(tokens=sum(row["tokens"] for row in rows), usd=spending.usd(microusd))
