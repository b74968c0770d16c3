"""What is told together is noted together, whoever tells it, and has its place over all jobs by that."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.words import EventKind
from services.jobs.migrate import migrate
from services.jobs.unit import Draft, Unit
from services.runtime.postgres import Database
from tests.integration.jobs.conftest import database_of
from tests.integration.jobs.domain import Domain
from tests.integration.jobs.sequences import SEQUENCED

OLD_EVENT = """
INSERT INTO events (job_id, client_id, number, id, run_id, attempt, kind, data, created_at)
VALUES ($1, $2, $3, $4, NULL, 0, 'log', '{"message": "x"}', now())"""


async def tell(domain: Domain, count: int, *job_ids: UUID) -> None:
    """``count`` events of each of these jobs, in one transaction."""

    async def work(unit: Unit) -> None:
        for job_id in job_ids:
            for n in range(count):
                unit.tell(job_id, Draft(EventKind.LOG, {"message": str(n)}))

    await domain.units.run(job_ids, work)


async def publish(domain: Domain, begin: int, *, most: int) -> list[tuple[UUID, int, int]]:
    """All that waits, as one publisher after the other: job, number, and sequence counted from ``begin``."""
    told: list[tuple[UUID, int, int]] = []
    confirmed = begin
    while events := await domain.given_out(confirmed, most=most):
        told += [(event.job_id, event.number, (event.sequence or 0) - begin) for event in events]
        confirmed = events[-1].sequence or confirmed
    return told


@pytest.fixture
async def begin(domain: Domain) -> int:
    """The last sequence of what other tests have told, all of it published."""
    while await domain.given_out(10**12, most=10_000):
        pass
    return await domain.log.newest()


async def test_a_transaction_is_one_batch(domain: Domain) -> None:
    jobs = [await domain.submit() for _ in range(3)]
    before = len(await domain.rows("SELECT FROM event_batches"))
    await tell(domain, 4, *jobs)
    batches = await domain.rows("SELECT job_ids, numbers FROM event_batches ORDER BY id")
    assert len(batches) == before + 1
    assert batches[-1]["job_ids"] == sorted(job for job in jobs for _ in range(4))
    assert batches[-1]["numbers"] == [2, 3, 4, 5] * 3


async def test_a_statement_that_tells_nothing_leaves_no_batch(domain: Domain) -> None:
    await domain.submit()
    before = await domain.rows("SELECT FROM event_batches")
    await domain.execute("INSERT INTO events SELECT * FROM events WHERE false")
    assert await domain.rows("SELECT FROM event_batches") == before


@pytest.mark.parametrize("most", [1, 3, 7, 1_000])
async def test_a_batch_is_read_in_parts_where_it_is_larger(domain: Domain, begin: int, most: int) -> None:
    jobs = [await domain.submit() for _ in range(2)]
    await tell(domain, 10, *jobs)
    told = await publish(domain, begin, most=most)
    assert [sequence for *_, sequence in told] == list(range(1, 23))
    for job_id in jobs:
        assert [number for job, number, _ in told if job == job_id] == list(range(1, 12))


async def test_what_was_given_out_and_not_confirmed_comes_again_as_it_was(domain: Domain, begin: int) -> None:
    job_id = await domain.submit()
    await tell(domain, 10, job_id)
    first = await domain.given_out(begin, most=100)
    await tell(domain, 2, job_id)
    again = await domain.given_out(begin + 4, most=100)
    assert first is not None
    assert again == first[4:], "nothing new before that is confirmed"
    last = await domain.given_out(begin + 11, most=100)
    assert [(event.number, event.sequence) for event in last or []] == [(12, begin + 12), (13, begin + 13)]


async def test_a_scheduler_of_before_takes_nothing_for_sent(domain: Domain, begin: int) -> None:
    """It knows no batches: that something has a sequence and is not among its events is the same to it as sent."""
    await domain.submit()
    first = await domain.given_out(begin, most=10)
    await domain.execute("UPDATE event_cursor SET published = assigned")
    assert first
    assert await domain.given_out(0, most=10) == first


async def test_events_that_somebody_deleted_hold_nothing_up(domain: Domain, begin: int) -> None:
    gone, kept = await domain.submit(), await domain.submit()
    await tell(domain, 3, gone)
    await domain.execute("DELETE FROM events WHERE job_id = $1", gone)
    assert [(job, number) for job, number, _ in await publish(domain, begin, most=2)] == [(kept, 1)]
    await tell(domain, 1, kept)
    (event,) = await domain.given_out(await domain.log.newest(), most=10) or []
    assert (event.job_id, event.number) == (kept, 2)


async def test_a_job_that_many_tell_of_at_once_stays_in_order(domain: Domain, begin: int) -> None:
    """Batches are made under the lock of their jobs."""
    jobs = [await domain.submit() for _ in range(4)]
    told: list[tuple[UUID, int, int]] = []
    telling = asyncio.gather(*(tell(domain, 3, *jobs[n % 3 : n % 3 + 2]) for n in range(30)))
    while not telling.done():
        told += await publish(domain, begin + len(told), most=5)
    await telling
    told += await publish(domain, begin + len(told), most=5)
    numbers = {job: [number for one, number, _ in told if one == job] for job in jobs}
    assert all(each == list(range(1, len(each) + 1)) for each in numbers.values())
    assert sum(map(len, numbers.values())) == 4 + 30 * 6


@pytest.fixture
async def before(servers: EmbeddedServers) -> AsyncIterator[str]:
    """A database whose events have their own sequences."""
    async with database_of(servers, "0011") as url:
        yield url


async def test_what_was_told_before_keeps_its_place(before: str) -> None:
    """Three events were published, two wait; the code before tells one more, and a client reads all of it."""
    old = await asyncpg.connect(before)
    database = Database(before, size=4, name="test")
    job_id, client_id = uuid7(), uuid7()
    try:
        await old.execute("INSERT INTO clients (id, name) VALUES ($1, 'old')", client_id)
        for number in range(1, 6):
            await old.execute(OLD_EVENT, job_id, client_id, number, uuid7())
        await old.execute("UPDATE events SET sequence = number, published_at = now() WHERE number <= 3")
        await old.execute("UPDATE event_cursor SET assigned = 3, published = 2")
        await asyncio.to_thread(migrate, before)
        await old.execute(OLD_EVENT, job_id, client_id, 6, uuid7())
        domain = Domain(database)
        assert await domain.rows("SELECT FROM events WHERE published_at IS NULL") == [], "as the scheduler before asks"

        first = await domain.given_out(0, most=10)
        assert [(event.number, event.sequence) for event in first or []] == [(3, 3)], "sent, but not confirmed"
        rest = await domain.given_out(3, most=10)
        assert [(event.number, event.sequence) for event in rest or []] == [(4, 4), (5, 5), (6, 6)]

        for after in range(6):
            page = await domain.log.published_after(client_id, after, most=2)
            assert [event.sequence for event in page.events] == list(range(after + 1, 7))[:2]
        assert await domain.log.first_kept() == 1
        await domain.execute("DELETE FROM events WHERE number <= 4")
        assert await domain.log.first_kept() == 5
        rows = await domain.rows(f"SELECT number, place FROM {SEQUENCED} e ORDER BY place")
        assert [tuple(row) for row in rows] == [(5, 5), (6, 6)]
    finally:
        await old.close()
        await database.close()


async def test_what_waits_at_the_migration_is_not_one_batch(before: str) -> None:
    """A batch is read as a whole."""
    old = await asyncpg.connect(before)
    database = Database(before, size=2, name="test")
    jobs = sorted(uuid7() for _ in range(3))
    try:
        await old.executemany(
            OLD_EVENT, [(job_id, UUID(int=1), number, uuid7()) for job_id in jobs for number in range(1, 401)]
        )
        await asyncio.to_thread(migrate, before)
        domain = Domain(database)
        batches = await domain.rows("SELECT cardinality(numbers) AS events FROM event_batches ORDER BY id")
        assert [row["events"] for row in batches] == [500, 500, 200]
        told = await publish(domain, 0, most=70)
        assert [each[:2] for each in told] == [(job_id, number) for job_id in jobs for number in range(1, 401)]
    finally:
        await old.close()
        await database.close()
