"""The schema is brought up to date under a running system: what the code before it wrote, and still writes, goes on."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.migrate import migrate
from services.runtime.postgres import Database
from tests.integration.conftest import drop_database, execute
from tests.integration.conftest import migrate as migrate_in_a_process
from tests.integration.jobs.domain import Domain

# As the code of revision 0001 submits a job of two runs, one at a time.
OLD_JOB = """
INSERT INTO jobs (id, client_id, kind, name, prompt, options, priority, not_before, runs_total)
VALUES ($1, $2, 'code', 'old', 'x', '{"maxParallel": 1}', 0, NULL, 2)"""
OLD_RUNS = """
INSERT INTO runs (id, job_id, client_id, position, queue, repository, base_ref, branch, priority, max_parallel,
                  not_before)
SELECT r.id, $1, $2, r.position, 'code', 'https://a/' || r.position, NULL, 'b-' || r.id, 0, 1, NULL
FROM unnest($3::uuid[], $4::int[]) AS r (id, position)"""
OLD_EVENT = """
INSERT INTO events (job_id, number, id, run_id, attempt, kind, data, created_at)
VALUES ($1, 1, $2, NULL, 0, 'job.submitted', '{"kind": "code", "runs": 2}', now())"""
CLIENT = UUID(int=7)


async def submit_as_before(connection: "asyncpg.Connection[asyncpg.Record]") -> UUID:
    job_id: UUID = uuid7()
    async with connection.transaction():
        await connection.execute(OLD_JOB, job_id, CLIENT)
        await connection.execute(OLD_RUNS, job_id, CLIENT, [uuid7(), uuid7()], [0, 1])
        await connection.execute(OLD_EVENT, job_id, uuid7())
        await connection.execute("UPDATE jobs SET last_event_number = 1 WHERE id = $1", job_id)
    return job_id


@pytest.fixture
async def before(servers: EmbeddedServers) -> AsyncIterator[str]:
    """A database of revision 0001."""
    name = f"test_migrations_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name}")
    url = servers.postgres.database_url(name)
    await asyncio.to_thread(migrate, url, to="0001")
    await execute(url, f"INSERT INTO clients (id, name) VALUES ('{CLIENT}', 'old client')")
    yield url
    await drop_database(servers, name)


async def test_what_was_there_and_what_old_code_still_adds_is_carried_out(before: str) -> None:
    old = await asyncpg.connect(before)
    database = Database(before, size=4, name="test")
    try:
        jobs = [await submit_as_before(old)]
        await asyncio.to_thread(migrate, before)
        jobs.append(await submit_as_before(old))

        domain = Domain(database)
        for expected in (2, 2):  # each job keeps to its maxParallel
            orders = await domain.admit()
            assert len(orders) == expected
            for order in orders:
                await domain.finish(await domain.claimed(order))
        assert {(await domain.row("jobs", job_id))["state"] for job_id in jobs} == {"completed"}

        while events := await domain.outbox.next(10**6, most=3):
            assert {event.client_id for event in events} == {CLIENT}
        rows = await domain.rows("SELECT sequence FROM events ORDER BY sequence")
        assert [row["sequence"] for row in rows] == list(range(1, len(rows) + 1))
    finally:
        await old.close()
        await database.close()


async def test_migrators_at_once_migrate_once(before: str) -> None:
    await asyncio.gather(*(migrate_in_a_process(before) for _ in range(3)))

    connection = await asyncpg.connect(before)
    try:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0003"
        invalid = await connection.fetch(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready"
        )
        assert invalid == []
    finally:
        await connection.close()


async def test_an_index_that_was_broken_off_is_made_again(before: str) -> None:
    """As after a kill in the middle of CREATE INDEX CONCURRENTLY: the columns are there, and an index of that name."""
    await asyncio.to_thread(migrate, before, to="0002")
    await execute(before, "DROP INDEX jobs_to_admit")
    await execute(before, "CREATE INDEX jobs_to_admit ON jobs (id)")
    await execute(before, "DROP TABLE inbox, limits, fair_clocks, event_cursor")
    columns = {
        "clients": ["is_operator"],
        "jobs": ["queue", "max_parallel", "fair_tag", "ready_from"],
        "runs": [
            *("held_since", "queue_seconds", "queue_deadline", "run_seconds", "time_left", "run_deadline"),
            *("idle_seconds", "idle_deadline", "resumes"),
        ],
        "events": ["client_id", "sequence"],
    }
    for table, names in columns.items():
        for name in names:
            await execute(before, f"ALTER TABLE {table} DROP COLUMN {name} CASCADE")
    await execute(before, "UPDATE alembic_version SET version_num = '0001'")

    await asyncio.to_thread(migrate, before)

    connection = await asyncpg.connect(before)
    try:
        definition = await connection.fetchval("SELECT indexdef FROM pg_indexes WHERE indexname = 'jobs_to_admit'")
        assert "fair_tag" in definition
    finally:
        await connection.close()
