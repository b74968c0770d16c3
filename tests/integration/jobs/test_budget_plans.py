"""The plans of what budgets ask before each request: none reads a whole table that grows with time."""

import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.unit import SQL
from services.runtime.postgres import Statements
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.test_plans import Explaining, rows_read

CLIENT, RUN, JOB, TOKEN = UUID(int=1), UUID(int=2_001), UUID(int=201), UUID(int=7)
GROWING = {"runs", "jobs", "spending", "model_usage", "void_usage"}
TODAY = datetime.now(UTC).date()
DAYS, CLIENTS, RUNNING = 700, 100, 300

# Two years of a hundred clients, 2,000 jobs of 10 runs, and a reservation of each run that is under way.
FILL = f"""
INSERT INTO clients (id, name)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'client ' || n FROM generate_series(1, {CLIENTS}) n;
INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(1 + n % {CLIENTS}), 32, '0')::uuid, 'code', 'x', '{{}}', 10
FROM generate_series(0, 1999) n;
INSERT INTO runs (id, job_id, client_id, position, queue, repository, branch, priority, state, lease_token, outcome,
                  finished_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(n / 10), 32, '0')::uuid,
       lpad(to_hex(1 + (n / 10) % {CLIENTS}), 32, '0')::uuid, n % 10, 'code', 'https://a/' || n, 'b', 0,
       CASE WHEN n < {RUNNING} THEN 'running' ELSE 'completed' END,
       CASE WHEN n < {RUNNING} THEN lpad('7', 32, '0')::uuid END,
       CASE WHEN n >= {RUNNING} THEN 'stored' END, CASE WHEN n >= {RUNNING} THEN now() END
FROM generate_series(0, 19999) n;
INSERT INTO spending (client_id, day, tokens, microusd)
SELECT lpad(to_hex(c), 32, '0')::uuid, (now() AT TIME ZONE 'UTC')::date - d, 1, 1
FROM generate_series(1, {CLIENTS}) c, generate_series(0, {DAYS - 1}) d;
INSERT INTO reservations (run_id, attempt, job_id, client_id, tokens, microusd)
SELECT id, attempt, job_id, client_id, 1, 1 FROM runs WHERE state = 'running';
INSERT INTO budgets (scope, name, tokens) VALUES ('day', '', 1), ('client', '', 1), ('client_day', 'client 1', 1);
ANALYZE;
"""
HELD = {"run_id": RUN, "token": TOKEN}
STANDINGS = {"client_id": CLIENT, "run_id": RUN, "job_id": JOB, "job_tokens": 5, "job_microusd": 5}
VOID: dict[str, list[Any]] = {
    "ids": [UUID(int=9)],
    "void_turns": [None],
    "models": ["m"],
    "inputs": [1],
    "outputs": [1],
    "cache_reads": [1],
    "cache_creations": [1],
    "costs": [1],
    "raws": ["{}"],
}
WANTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "take_turn": ("budgeting", "rows", {"client": str(CLIENT), "lock": 7}),
    "standings": ("budgeting", "rows", STANDINGS),
    "reserve": ("budgeting", "value", {**HELD, "tokens": 5, "microusd": 5}),
    "release": ("budgeting", "value", HELD),
    "count_void": ("checkpointing", "value", {**HELD, "job_id": JOB, "attempt": 1, **VOID}),
    "days": (
        "budgeting",
        "rows",
        {"client_id": CLIENT, "first_day": TODAY - timedelta(days=29), "last_day": TODAY},
    ),
    "known_clients": ("budgeting", "rows", {"names": ["client 1"]}),
    "forget_reservations": ("scheduling", "execute", {}),
}


@pytest.fixture(scope="module")
async def full_database(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_budget_plans_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    connection = await asyncpg.connect(servers.postgres.database_url(name))
    await connection.execute(FILL, timeout=60)
    await connection.close()
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


def scans(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan" and plan["Relation Name"] in GROWING:
        yield plan["Relation Name"]
    for part in plan.get("Plans", []):
        yield from scans(part)


async def plan_of(url: str, wanted: str, mode: str, *, options: str = "FORMAT JSON") -> dict[str, Any]:
    file, ask, parameters = WANTED[wanted]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        explaining = Explaining(connection, options=options)
        await getattr(Statements(SQL / f"{file}.sql"), ask)(explaining, wanted, **parameters)
    finally:
        await connection.close()
    return explaining.plan


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("wanted", WANTED)
async def test_no_growing_table_is_read_whole(full_database: str, wanted: str, mode: str) -> None:
    plan = await plan_of(full_database, wanted, mode)

    assert list(scans(plan)) == [], orjson.dumps(plan, option=orjson.OPT_INDENT_2).decode()


async def test_a_standing_reads_one_day_of_all_and_one_clients_own_days(full_database: str) -> None:
    plan = await plan_of(full_database, "standings", "force_generic_plan", options="ANALYZE, FORMAT JSON")

    # Its own days, today of its own, and today of everybody.
    assert rows_read(plan, "spending") <= DAYS + 1 + CLIENTS
    assert rows_read(plan, "runs") <= 10
    assert rows_read(plan, "reservations") <= 2 * RUNNING
