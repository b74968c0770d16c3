"""The plans of what shows customers, and many jobs at once: none reads a whole table that grows."""

import secrets
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import asyncpg
import orjson
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Statements
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.test_plans import Explaining, rows_read

CLIENT = UUID(int=1)
MANY = [UUID(int=n) for n in range(1, 51)]

# Ten clients with 200 customers each, each with 5 repositories; and 5,000 jobs with a run and 4 events.
FILL = """
INSERT INTO clients (id, name) SELECT lpad(to_hex(n), 32, '0')::uuid, 'client ' || n FROM generate_series(1, 10) n;
INSERT INTO customers (id, client_id, name)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + n % 10), 32, '0')::uuid, 'customer ' || n
FROM generate_series(1, 2000) n;
INSERT INTO repositories (id, client_id, customer_id, name, url)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + n % 10), 32, '0')::uuid,
       lpad(to_hex(1 + (n + 1999) % 2000), 32, '0')::uuid, 'owner/name-' || n, 'https://forge.example/owner/name-' || n
FROM generate_series(1, 10000) n;
INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total, state)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1), 32, '0')::uuid, 'code', 'x', '{}', 1, 'queued'
FROM generate_series(1, 5000) n;
INSERT INTO runs (id, job_id, client_id, position, queue, priority, repository, branch, state)
SELECT id, id, client_id, 0, 'code', 0, 'https://a/b', 'b-' || id, 'queued' FROM jobs;
INSERT INTO events (job_id, client_id, number, id, run_id, attempt, kind, data, created_at)
SELECT id, client_id, n, id, id, 1, 'log', '{}', now() FROM jobs, generate_series(1, 4) n;
ANALYZE;
"""
EVENTS = {"job_id": CLIENT, "client_id": CLIENT, "kinds": ["log"], "most": 100}
# File, statement and parameters; most rows that it may read, and of which table.
WANTED: dict[str, tuple[str, str, dict[str, Any], str, int]] = {
    "a customer's": ("customers", "of_customer", {"client_id": CLIENT, "customer_id": CLIENT}, "repositories", 5),
    "all": ("customers", "repositories", {"client_id": CLIENT}, "repositories", 1_000),
    "customers": ("customers", "customers", {"client_id": CLIENT}, "customers", 200),
    "first runs": ("overviews", "first_runs", {"client_id": CLIENT, "job_ids": MANY}, "runs", 50),
    "events": ("overviews", "newest_events", EVENTS, "events", 4),
    "whose events": ("overviews", "newest_events", EVENTS, "jobs", 1),
}


@pytest.fixture(scope="module")
async def full_database(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_customer_plans_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    connection = await asyncpg.connect(servers.postgres.database_url(name))
    await connection.execute(FILL, timeout=60)
    await connection.close()
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.mark.parametrize("wanted", WANTED)
async def test_no_more_is_read_than_is_answered(full_database: str, wanted: str) -> None:
    file, statement, parameters, table, most = WANTED[wanted]
    connection = await asyncpg.connect(full_database)
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        explaining = Explaining(connection, options="ANALYZE, FORMAT JSON")
        await Statements(SQL / f"{file}.sql").rows(cast("Connection", explaining), statement, **parameters)
    finally:
        await connection.close()
    shown = orjson.dumps(explaining.plan, option=orjson.OPT_INDENT_2).decode()
    assert rows_read(explaining.plan, table) <= most, shown
