"""The plans of what is asked about published changesets: with many of them, each reads few rows."""

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.unit import SQL
from services.runtime.postgres import SERVER_SETTINGS, Statements
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.test_plans import Explaining, rows_read, scans

JOBS, CLIENTS, REPOSITORIES, NAMES, BRANCHES = 20_000, 4, 100, 500, 5_000
OPEN_EVERY, DUE = 21, 500
TOKEN, SOON = UUID(int=7), timedelta(seconds=10)

# A few clients with a long history: jobs of few names, four of them on a branch, one in 21 still open.
FILL = f"""
CREATE FUNCTION id(n int) RETURNS uuid LANGUAGE sql AS $$ SELECT lpad(to_hex(n), 32, '0')::uuid $$;
INSERT INTO clients (id, name) SELECT id(n), 'client ' || n FROM generate_series(0, {CLIENTS - 1}) n;
INSERT INTO jobs (id, client_id, kind, name, prompt, options, runs_total)
SELECT id(n), id(n % {CLIENTS}), 'code', 'name ' || n % {NAMES}, 'x',
       jsonb_build_object('onExisting', (ARRAY['update', 'replace', 'skip'])[1 + n % 3]), 1
FROM generate_series(0, {JOBS - 1}) n;
INSERT INTO runs (id, job_id, client_id, position, queue, repository, branch, priority, state, outcome, finished_at)
SELECT id(n), id(n), id(n % {CLIENTS}), 0, 'code', 'https://forge.example/o/' || n % {REPOSITORIES},
       'b-' || n % {BRANCHES}, 0, 'completed', 'delivered', now()
FROM generate_series(0, {JOBS - 1}) n;
INSERT INTO changesets (id, run_id, job_id, client_id, repository, branch, base_sha, commit_sha, commit_author_name,
                        commit_author_email, commit_time, commit_message, patch, files, insertions, deletions, state,
                        forge, number, head_sha, dispatch, published_at, closed_at, observe_at)
SELECT id(n), id(n), id(n), id(n % {CLIENTS}), 'https://forge.example/o/' || n % {REPOSITORIES},
       'b-' || n % {BRANCHES}, 'a', 'c', 'n', 'e', now(), 'm', 'p', '[]', 1, 1,
       CASE WHEN n % {OPEN_EVERY} = 0 THEN 'open' ELSE 'closed' END, 'github', n / {REPOSITORIES}, md5(n::text), 1,
       now(), CASE WHEN n % {OPEN_EVERY} <> 0 THEN now() END,
       CASE WHEN n % {OPEN_EVERY} = 0 THEN now() + (n - {DUE * OPEN_EVERY}) * interval '1 minute' END
FROM generate_series(0, {JOBS - 1}) n;
UPDATE changesets SET state = 'queued', published_at = NULL, closed_at = NULL, observe_at = NULL, forge = NULL
WHERE id IN (id(1), id(6));
UPDATE runs SET state = 'running', lease_token = id({TOKEN.int}), outcome = NULL, finished_at = NULL
WHERE id IN (id(3), id(5));
INSERT INTO leases (id, kind, token, holder, taken, expires_at)
SELECT id, 'run', lease_token, 'agent', false, now() FROM runs WHERE state = 'running';
ANALYZE;
"""
ONE = UUID(int=1)
REPLACING, UPDATING = UUID(int=4), UUID(int=6)
CLAIMED = [UUID(int=3), UUID(int=5)]
CLAIM = {
    "run_ids": CLAIMED,
    "tokens": [TOKEN, TOKEN],
    "lease": SOON,
}
COMPLETE = {
    "job_ids": CLAIMED,
    "job_event_ids": CLAIMED,
    "event_ids": CLAIMED,
    "run_ids": CLAIMED,
    "tokens": [TOKEN, TOKEN],
    "outcomes": ["answered", "stored"],
    "summaries": ["done", "done"],
    "told_summaries": [None, None],
    "read_through": [0, 0],
}
WAKE = {"forge": "github", "repositories": ["%/o/7", "%:o/7"], "numbers": [3], "branches": ["b-7"], "shas": ["a" * 32]}
# What is asked; and how many changesets that may read: those of one branch, or what a client has open on a repository.
WANTED: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "take_due": ("tracking", "rows", {"most": 20, "again": SOON}, 60),
    "wake": ("tracking", "rows", WAKE, REPOSITORIES + 2 * JOBS / BRANCHES + 10),
    "claim_changeset": ("publishing", "row", {"id": ONE, "dispatch": 1, "token": TOKEN}, 4 * JOBS / BRANCHES),
    "earlier": ("publishing", "rows", {"id": REPLACING}, 60),
    "queue_later": ("publishing", "execute", {"id": UPDATING, "publish": "draft"}, 60),
    "due": ("publishing", "rows", {"overdue": SOON}, 10),
    "retire_earlier": ("running", "rows", {"run_id": REPLACING, "before": UUID(int=JOBS), "comment": "x"}, 60),
    "claim_runs": ("running", "rows", CLAIM, 60),
    "complete_runs": ("running", "rows", COMPLETE, 60),
}


@pytest.fixture(scope="module")
async def full_database(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_forge_plans_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    connection = await asyncpg.connect(servers.postgres.database_url(name))
    await connection.execute(FILL, timeout=60)
    await connection.close()
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("wanted", WANTED)
async def test_few_rows_are_read_of_a_long_history(full_database: str, wanted: str, mode: str) -> None:
    file, ask, parameters, most = WANTED[wanted]
    connection = await asyncpg.connect(full_database, server_settings=SERVER_SETTINGS | {"plan_cache_mode": mode})
    try:
        async with connection.transaction():
            explaining = Explaining(connection, options="ANALYZE, FORMAT JSON")
            await getattr(Statements(SQL / f"{file}.sql"), ask)(explaining, wanted, **parameters)
            await connection.execute("ROLLBACK; BEGIN")
    finally:
        await connection.close()

    words = orjson.dumps(explaining.plan, option=orjson.OPT_INDENT_2).decode()
    assert list(scans(explaining.plan)) == [], words
    assert rows_read(explaining.plan, "changesets") <= most, words
