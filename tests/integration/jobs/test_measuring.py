"""What is measured of the fleet and of a client's work, and that measuring reads no more than the day's."""

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.agents import Budget
from services.contracts.words import ExitReason
from services.jobs.clients import Clients, OwnBudget, OwnLimit, OwnLimits
from services.jobs.measuring import Agent, Measuring, Work
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Statements
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.domain import REPOSITORY, Domain
from tests.integration.jobs.test_plans import Explaining, rows_read

CLIENT = UUID(int=1)
OPEN_JOBS = 50
# A client with 20,000 jobs of former days that have ended, and a few of today and former days that are under way.
FILL = f"""
INSERT INTO clients (id, name) VALUES ('{CLIENT}', 'one');
INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total, state, finished_at, metadata)
SELECT uuidv7(n * interval '-1 minute' - interval '1 day'), '{CLIENT}', 'code', 'x', '{{}}', 1, 'failed', now(),
       '{{"session": "x"}}'
FROM generate_series(1, 20000) n;
INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total, state, metadata)
SELECT uuidv7(CASE WHEN n % 2 = 0 THEN interval '-2 days' ELSE interval '0' END), '{CLIENT}', 'code', 'x', '{{}}', 1,
       'queued', '{{"session": "x"}}'
FROM generate_series(1, {OPEN_JOBS}) n;
ANALYZE;
"""


async def test_the_work_of_the_day_and_of_what_is_under_way(domain: Domain) -> None:
    measuring = Measuring(domain.database)
    assert await measuring.work(domain.client) == Work(0, 0, 0)
    runs = [await domain.start(f"{REPOSITORY}/{number}", metadata={"session": str(number)}) for number in range(3)]
    await domain.submit(REPOSITORY, metadata={"other": "1"})
    await domain.running.fail(runs[0].hold, ExitReason.STUCK, error="stuck")
    assert await measuring.work(domain.client) == Work(active=2, started=3, failed=1)
    assert await measuring.under_way(domain.client, marked="session") == 2
    await domain.cancelling.request(domain.client, runs[1].hold.job_id)
    assert await measuring.under_way(domain.client, marked="session") == 1
    assert await measuring.work(await domain.new_client("another")) == Work(0, 0, 0)


async def test_agents_that_live_the_longest_first(domain: Domain) -> None:
    await domain.execute("DELETE FROM nodes")
    await domain.execute(
        "INSERT INTO nodes (name, kind, capacity, started_at, seen_at) VALUES ('b', 'agent', 3, now(), now()), "
        "('a', 'agent', 2, now() - interval '1 hour', now()), ('vcs', 'vcs', 0, now(), now()), "
        "('gone', 'agent', 9, now(), now() - interval '1 minute')"
    )
    assert await Measuring(domain.database).agents() == [Agent("a", 2), Agent("b", 3)]


async def test_a_daily_budget_gives_way_to_one_that_is_told(domain: Domain) -> None:
    async def stored() -> list[tuple[Any, ...]]:
        rows = await domain.rows("SELECT scope, name, tokens, microusd FROM budgets")
        return [tuple(row) for row in rows]

    name = domain.client.name
    for budget, is_told, expected in (
        (Budget(tokens=5, usd=1.5), False, (5, 1_500_000)),
        (Budget(tokens=6, usd=2), False, (5, 1_500_000)),
        (Budget(tokens=6, usd=2), True, (6, 2_000_000)),
    ):
        limits = OwnLimits(OwnLimit(1), OwnLimit(1), OwnBudget(budget, is_told=is_told))
        await Clients(domain.database).ensure(name, limits)
        assert await stored() == [("client_day", name, *expected)]


@pytest.fixture(scope="module")
async def full_database(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_measuring_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    connection = await asyncpg.connect(servers.postgres.database_url(name))
    await connection.execute(FILL, timeout=60)
    await connection.close()
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.mark.parametrize(
    ("statement", "kind", "parameters", "table", "most"),
    [
        ("work", "row", {"client_id": CLIENT}, "jobs", OPEN_JOBS),
        ("under_way", "value", {"client_id": CLIENT, "key": "session"}, "jobs", OPEN_JOBS),
        ("key_stored_at", "value", {"client_id": CLIENT}, "client_settings", 1),
        ("living_agents", "rows", {"alive": timedelta(seconds=8)}, "nodes", 1),
    ],
)
async def test_no_more_is_read_than_what_is_under_way(
    full_database: str, statement: str, kind: str, parameters: dict[str, Any], table: str, most: int
) -> None:
    connection = await asyncpg.connect(full_database, server_settings={"plan_cache_mode": "force_generic_plan"})
    try:
        explaining = Explaining(connection, options="ANALYZE, FORMAT JSON")
        ask = getattr(Statements(SQL / "measuring.sql"), kind)
        await ask(cast("Connection", explaining), statement, **parameters)
        assert rows_read(explaining.plan, table) <= most
    finally:
        await connection.close()
