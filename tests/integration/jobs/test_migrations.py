"""The schema is brought up to date under a running system: what the code before it wrote, and still writes, goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.words import ChangesetState, Publish
from services.jobs.leases import renew
from services.jobs.migrate import migrate
from services.jobs.models import Client
from services.jobs.tracking import Observed
from services.runtime.postgres import Database
from tests.integration.conftest import execute
from tests.integration.conftest import migrate as migrate_in_a_process
from tests.integration.jobs.changes import HOUR, claimed, on_github, show, tracked
from tests.integration.jobs.conftest import database_of
from tests.integration.jobs.domain import Domain
from tests.integration.jobs.sequences import SEQUENCED

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
    async with database_of(servers, "0001") as url:
        await execute(url, f"INSERT INTO clients (id, name) VALUES ('{CLIENT}', 'old client')")
        yield url


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

        while events := await domain.given_out(10**6, most=3):
            assert {event.client_id for event in events} == {CLIENT}
        rows = await domain.rows(f"SELECT place FROM {SEQUENCED} e ORDER BY place")
        assert [row["place"] for row in rows] == list(range(1, len(rows) + 1))
    finally:
        await old.close()
        await database.close()


# As the code of revision 0003 stores a run's changeset, a draft since its tests failed, and queues its publication.
OLD_CHANGESET = """
INSERT INTO changesets (id, run_id, job_id, client_id, repository, branch, base_sha, base_branch, commit_sha,
    commit_author_name, commit_author_email, commit_time, commit_message, patch, files, insertions, deletions, is_draft,
    verified, state, dispatch, dispatched_at, attempts)
SELECT $1, r.id, r.job_id, r.client_id, r.repository, r.branch, 'b', 'main', 'c', 'n', 'e', now(), 'm', 'p', '[]', 1, 1,
    true, false, 'queued', 1, now(), 0
FROM runs r WHERE r.id = $2"""


async def hand_over_as_before(connection: "asyncpg.Connection[asyncpg.Record]") -> UUID:
    """Both of a job's runs completed: one waits for its publication; return that changeset's id."""
    job_id, changeset_id = await submit_as_before(connection), uuid7()
    async with connection.transaction():
        await connection.execute(
            "UPDATE runs SET state = 'completed', outcome = 'no_changes', finished_at = now(), attempt = 1"
            " WHERE job_id = $1 AND position = 1",
            job_id,
        )
        statement = "UPDATE runs SET state = 'publishing', attempt = 1 WHERE job_id = $1 AND position = 0 RETURNING id"
        await connection.execute(OLD_CHANGESET, changeset_id, await connection.fetchval(statement, job_id))
        await connection.execute(
            "UPDATE jobs SET state = 'running', started_at = now(), runs_started = 2, runs_active = 1,"
            " runs_completed = 1 WHERE id = $1",
            job_id,
        )
    return changeset_id


async def test_what_was_queued_to_be_published_is_published_as_it_was_meant(before: str) -> None:
    await asyncio.to_thread(migrate, before, to="0003")
    old = await asyncpg.connect(before)
    database = Database(before, size=4, name="test")
    try:
        changesets = [await hand_over_as_before(old)]
        await asyncio.to_thread(migrate, before)
        changesets.append(await hand_over_as_before(old))

        domain = Domain(database)
        for changeset_id in changesets:
            publication = await claimed(domain, changeset_id)
            assert (publication.publish, publication.also_ours, publication.name) == (Publish.DRAFT, [], "old")
            await show(domain, publication, on_github(1))
            (change,) = await domain.tracking.take_due(most=9, again=HOUR) or [await tracked(domain, changeset_id)]
            await domain.tracking.record(change, Observed(ChangesetState.MERGED), again=HOUR)
            row = await domain.row("changesets", changeset_id)
            job = await domain.row("jobs", row["job_id"])
            assert (row["state"], row["forge"], job["state"]) == ("merged", "github", "completed")
    finally:
        await old.close()
        await database.close()


async def test_what_was_published_before_is_still_shown(before: str) -> None:
    await asyncio.to_thread(migrate, before, to="0003")
    old = await asyncpg.connect(before)
    database = Database(before, size=4, name="test")
    try:
        changeset_id = await hand_over_as_before(old)
        await old.execute("UPDATE changesets SET state = 'open', published_at = now(), url = '/c/1'")
        await old.execute("UPDATE runs SET state = 'completed', outcome = 'unverified', finished_at = now()")
        await asyncio.to_thread(migrate, before)

        domain = Domain(database)
        read = await domain.reading.changeset(Client(CLIENT, "old client"), changeset_id)
        assert (read.state, read.is_draft, read.forge, read.checks) == ("open", True, "local", "none")
        with pytest.raises(asyncpg.CheckViolationError):
            await old.execute("UPDATE runs SET outcome = 'unheard of'")
        await old.execute("UPDATE runs SET outcome = 'skipped'")
    finally:
        await old.close()
        await database.close()


async def test_it_migrates_beside_code_that_reads_and_writes(before: str) -> None:
    """Old code goes on while the schema is changed: it may wait, or be undone as in any deadlock and try again."""
    await asyncio.to_thread(migrate, before, to="0003")
    done = asyncio.Event()

    async def work() -> int:
        connection, times = await asyncpg.connect(before), 0
        try:
            while not done.is_set() or times == 0:
                with suppress(asyncpg.DeadlockDetectedError):
                    await hand_over_as_before(connection)
                    times += 1
        finally:
            await connection.close()
        return times

    workers = [asyncio.create_task(work()) for _ in range(3)]
    try:
        async with asyncio.timeout(60):
            await asyncio.to_thread(migrate, before)
    finally:
        done.set()
    times = await asyncio.gather(*workers)

    connection = await asyncpg.connect(before)
    try:
        assert await connection.fetchval("SELECT count(*) FROM changesets WHERE checks = 'none'") == sum(times)
    finally:
        await connection.close()


# As the code of revision 0010 claims a run that was dispatched: a lease was its holder's from the beginning.
OLD_CLAIM = """
WITH claimed AS (
    UPDATE runs SET state = 'running', dispatch = 1, attempt = 1, agent = 'old', lease_token = gen_random_uuid(),
                    started_at = now(), run_deadline = now() + interval '1 hour', queue_deadline = NULL
    WHERE job_id = $1 AND position = 0
    RETURNING id, lease_token
), counted AS (
    UPDATE jobs SET state = 'running', started_at = now(), runs_started = 1, runs_active = 1 WHERE id = $1
)
INSERT INTO leases (id, kind, token, holder, expires_at)
SELECT id, 'run', lease_token, 'old', clock_timestamp() + interval '8 seconds' FROM claimed
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, token = excluded.token, holder = excluded.holder,
                               expires_at = excluded.expires_at
RETURNING id"""


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_what_old_code_has_claimed_was_taken_up(before: str) -> None:
    """Before the migration and after it: lost, it is counted as before, and whoever renews it holds it."""
    await asyncio.to_thread(migrate, before, to="0010")
    old = await asyncpg.connect(before)
    database = Database(before, size=4, name="test")
    try:
        runs = [await old.fetchval(OLD_CLAIM, await submit_as_before(old))]
        await asyncio.to_thread(migrate, before)
        runs += [await old.fetchval(OLD_CLAIM, await submit_as_before(old)) for _ in range(2)]

        await old.execute("INSERT INTO nodes (name, kind, capacity) VALUES ('old', 'agent', 9)")
        domain = Domain(database)
        assert (await domain.admitting.admit()).orders == (), "an agent of before hears of no run that it is given"
        assert [row["taken"] for row in await domain.rows("SELECT taken FROM leases")] == [True] * 3
        kept = await domain.row("runs", runs.pop())
        async with database.connection() as connection:
            assert len(await renew(connection, {kept["id"]: kept["lease_token"]})) == 1
        for run_id in runs:
            await domain.expire(run_id)
        assert await domain.lose() == 2
        for run_id in runs:
            row = await domain.row("runs", run_id)
            assert (row["state"], row["times_lost"], row["attempts_spent"]) == ("queued", 1, 0)
            assert (await domain.events(row["job_id"]))[-1].data == {"reason": "lost"}
        assert await domain.running.holds(kept["id"], attempt=1, token=kept["lease_token"])
        orders = {order.run_id: order for order in await domain.admit()}
        for run_id in runs:
            assert (await domain.claimed(orders[run_id])).hold.attempt == 2
    finally:
        await old.close()
        await database.close()


async def test_migrators_at_once_migrate_once(before: str) -> None:
    await asyncio.gather(*(migrate_in_a_process(before) for _ in range(3)))

    connection = await asyncpg.connect(before)
    try:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == "0014"
        invalid = await connection.fetch(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready"
        )
        assert invalid == []
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("stamped", "index", "table", "column"),
    [("0002", "jobs_to_admit", "jobs", "fair_tag"), ("0004", "changesets_to_observe", "changesets", "observe_at")],
)
async def test_an_index_that_was_broken_off_is_made_again(
    before: str, stamped: str, index: str, table: str, column: str
) -> None:
    """As after a kill in the middle of CREATE INDEX CONCURRENTLY: the columns are there, and an index of that name."""
    await asyncio.to_thread(migrate, before, to=stamped)
    await execute(before, f"CREATE INDEX {index} ON {table} (id)")

    await asyncio.to_thread(migrate, before)

    connection = await asyncpg.connect(before)
    try:
        definition = await connection.fetchval("SELECT indexdef FROM pg_indexes WHERE indexname = $1", index)
        assert column in definition
    finally:
        await connection.close()
