"""Durable events reach NATS in order and once, whoever publishes and however often."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Any
from uuid import UUID

import orjson
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts import subjects
from services.contracts.words import EventKind
from services.jobs import outbox
from services.jobs.eventlog import MOST_BYTES
from services.jobs.outbox import Outbox
from services.jobs.unit import Draft, Unit
from services.runtime.jetstream import Bus, BusUnavailableError, Tailed
from services.runtime.postgres import Database
from services.scheduler.publication import EventPublisher
from tests.integration.jobs.domain import Domain
from tests.integration.jobs.sequences import SEQUENCED
from tests.integration.scheduler.conftest import Restart
from tests.integration.waiting import until, until_async

Published = dict[str, list[int]]


@pytest.fixture
def publisher(database: Database, bus: Bus) -> EventPublisher:
    return EventPublisher(Outbox(database), bus)


async def tell(domain: Domain, job_id: UUID, count: int) -> None:
    async def work(unit: Unit) -> None:
        for n in range(count):
            unit.tell(job_id, Draft(EventKind.LOG, {"message": str(n)}))

    await domain.units.run([job_id], work)


async def published(bus: Bus) -> Published:
    """The numbers that the stream has of each job, in the stream's order."""
    end = (await bus.stream_position(subjects.EVENTS_STREAM)).last_sequence
    numbers: Published = defaultdict(list)
    async for message in bus.read(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=0, until=end):
        event = orjson.loads(message.data)
        numbers[event["jobId"]].append(event["number"])
    return dict(numbers)


async def unpublished(domain: Domain) -> int:
    return len(await domain.rows(f"SELECT FROM {SEQUENCED} e WHERE place IS NULL"))


async def test_events_are_published_in_order_and_marked(domain: Domain, bus: Bus, publisher: EventPublisher) -> None:
    jobs = [await domain.submit() for _ in range(3)]
    for job_id in jobs:
        await tell(domain, job_id, 250)  # more than fit into one batch

    await publisher.run_once()

    assert await published(bus) == {str(job_id): list(range(1, 252)) for job_id in jobs}
    assert await unpublished(domain) == 0


async def test_a_message_is_what_the_log_has(domain: Domain, bus: Bus, publisher: EventPublisher) -> None:
    """To the byte, whatever is told: PostgreSQL writes JSON in its own way."""
    run = await domain.start()
    odd: list[dict[str, Any]] = [
        {},
        {"message": "", "": None},
        {"message": 'grün 🚢 "\\\x7f\u2028\x01', "level": "日本"},
        {"z": 1, "a": {"nested": [1.5, -0.0, 1e300, 2**63 - 1, True, [], {}]}, "message": "\r\n+ACK\r\n"},
    ]

    async def work(unit: Unit) -> None:
        for data in odd:
            unit.tell(run.hold.job_id, Draft(EventKind.LOG, data))
            unit.tell(run.hold.job_id, Draft(EventKind.LOG, data), run_id=run.hold.run_id, attempt=2)

    await domain.units.run([run.hold.job_id], work)
    await publisher.run_once()

    end = (await bus.stream_position(subjects.EVENTS_STREAM)).last_sequence
    messages = [m async for m in bus.read(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=0, until=end)]
    events = await domain.events(run.hold.job_id)
    assert [event.data for event in events if event.kind is EventKind.LOG] == [data for data in odd for _ in range(2)]
    assert [message.data for message in messages] == [event.encoded() for event in events]
    assert [message.subject for message in messages] == [
        subjects.event(str(event.job_id), str(event.run_id or ""), event.kind) for event in events
    ]
    assert [(message.headers or {})["Nats-Msg-Id"] for message in messages] == [str(event.id) for event in events]


async def test_sequences_have_no_hole_and_follow_the_stream(
    domain: Domain, bus: Bus, publisher: EventPublisher
) -> None:
    await publisher.run_once()
    first = await assigned(domain) + 1
    jobs = [await domain.submit() for _ in range(3)]
    for job_id in jobs:
        await publisher.run_once()
        await tell(domain, job_id, 5)
    await publisher.run_once()

    end = (await bus.stream_position(subjects.EVENTS_STREAM)).last_sequence
    sequences = []
    async for message in bus.read(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=0, until=end):
        assert message.headers is not None
        assert message.headers[subjects.CLIENT_HEADER] == str(domain.client.id)
        sequences.append(int(message.headers[subjects.SEQUENCE_HEADER]))
    assert sequences[-18:] == list(range(first, first + 18))
    page = await domain.log.published_after(domain.client.id, first - 1)
    assert [event.sequence for event in page.events] == sequences[-18:]
    assert (page.through, page.is_last) == (sequences[-1], True)


async def test_another_clients_events_are_passed_over(domain: Domain, publisher: EventPublisher) -> None:
    other = await domain.new_client("other")
    await domain.submit(client=other)
    await publisher.run_once()
    end = await assigned(domain)

    page = await domain.log.published_after(domain.client.id, 0)

    assert (page.events, page.through, page.is_last) == ([], end, True)


async def assigned(domain: Domain) -> int:
    (row,) = await domain.rows("SELECT assigned FROM event_cursor")
    return int(row["assigned"])


async def test_publishing_again_adds_nothing(domain: Domain, bus: Bus, publisher: EventPublisher) -> None:
    """As after a crash between JetStream's word and the note of it, by the next process."""
    job_id = await domain.submit()
    await tell(domain, job_id, 5)
    await publisher.run_once()
    before = await domain.rows(f"SELECT id, place FROM {SEQUENCED} e ORDER BY number")
    await domain.execute("UPDATE event_cursor SET sent = sent - 6")

    await EventPublisher(domain.outbox, bus).run_once()

    assert await domain.rows(f"SELECT id, place FROM {SEQUENCED} e ORDER BY number") == before

    assert await published(bus) == {str(job_id): [1, 2, 3, 4, 5, 6]}
    assert await unpublished(domain) == 0


async def test_publishers_at_once_keep_the_order(domain: Domain, bus: Bus, publisher: EventPublisher) -> None:
    job_id = await domain.submit()

    async def write() -> None:
        for _ in range(10):
            await tell(domain, job_id, 7)

    async def publish() -> None:
        for _ in range(10):
            await publisher.run_once()

    await asyncio.gather(write(), publish(), publish(), publish())
    await publisher.run_once()

    assert await published(bus) == {str(job_id): list(range(1, 72))}


async def test_what_has_its_turn_sees_all_that_was_published_before(domain: Domain) -> None:
    """One scheduler's turn begins while what another has published is not committed yet."""
    await domain.submit()
    (before,) = await domain.rows("SELECT assigned FROM event_cursor")
    last = before["assigned"]
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with domain.database.transaction() as other:
        await other.execute("UPDATE event_batches SET last_sequence = $1 WHERE last_sequence IS NULL", last + 1)
        await other.execute("UPDATE event_cursor SET assigned = $1, sent = $2", last + 1, last)
        turn = asyncio.create_task(domain.given_out(last, most=10))

        async def is_past_or_waiting() -> bool:
            return turn.done() or bool(await domain.rows(waiting))

        await until_async(is_past_or_waiting)

    (event,) = await turn or []
    assert event.sequence == last + 1
    assert await domain.given_out(last + 1, most=10) == []
    (cursor,) = await domain.rows("SELECT assigned, sent FROM event_cursor")
    assert tuple(cursor) == (last + 1, last + 1)


async def test_while_one_scheduler_publishes_no_other_does(domain: Domain, publisher: EventPublisher) -> None:
    await domain.submit()
    async with domain.database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", outbox._PUBLISHER_LOCK)
        await publisher.run_once()
        assert await unpublished(domain) == 1

    await publisher.run_once()
    assert await unpublished(domain) == 0


async def test_what_could_not_be_published_waits(
    domain: Domain, bus: Bus, publisher: EventPublisher, nats_server: EmbeddedServers
) -> None:
    job_id = await domain.submit()
    await nats_server.kill("nats")
    with suppress(BusUnavailableError):  # it may not have noticed yet that nobody is there
        await publisher.run_once()
    await until(lambda: not bus.is_connected)
    await publisher.run_once()
    assert await unpublished(domain) == 1

    await nats_server.start("nats")
    await until(lambda: bus.is_connected)
    await publisher.run_once()
    assert await published(bus) == {str(job_id): [1]}


@pytest.mark.parametrize("size", [600_000, 1024**2 - 350, 1024**2 + 1, 8_000_000])
async def test_an_event_of_any_size_holds_up_no_other(
    domain: Domain, bus: Bus, publisher: EventPublisher, size: int
) -> None:
    """As it was written when nothing bounded its texts, in the midst of others."""
    run = await domain.start()
    jobs = [await domain.submit(client=await domain.new_client(name)) for name in ("one", "other")]

    async def work(unit: Unit) -> None:
        finished = {"state": "completed", "summary": "x" * size}
        unit.tell(run.hold.job_id, Draft(EventKind.RUN_FINISHED, finished), run_id=run.hold.run_id, attempt=1)

    await domain.units.run([run.hold.job_id], work)
    await tell(domain, run.hold.job_id, 3)
    for job_id in jobs:
        await tell(domain, job_id, 3)

    await publisher.run_once()

    assert await unpublished(domain) == 0
    last = (await domain.row("jobs", run.hold.job_id))["last_event_number"]
    numbers = await published(bus)
    assert numbers == {str(run.hold.job_id): list(range(1, last + 1))} | {str(job_id): [1, 2, 3, 4] for job_id in jobs}
    (sent,) = await told(bus, EventKind.RUN_FINISHED)
    assert len(sent.data) < MOST_BYTES
    event = orjson.loads(sent.data)
    assert (event["number"], event["runFinished"]["state"]) == (last - 3, "completed")
    assert event["runFinished"]["summary"].startswith("xxx")
    assert f"/v1/jobs/{run.hold.job_id}/events" in event["leftOut"]
    (kept,) = await domain.log.after(run.hold.job_id, last - 4, most=1)
    assert kept.data["summary"] == "x" * size


async def told(bus: Bus, kind: EventKind) -> list[Tailed]:
    end = (await bus.stream_position(subjects.EVENTS_STREAM)).last_sequence
    subject = f"qd.evt.*.*.{kind.replace('.', '_')}"
    return [each async for each in bus.read(subjects.EVENTS_STREAM, subject, after=0, until=end)]


async def test_a_wiped_stream_gets_what_comes_from_then_on(
    domain: Domain, bus: Bus, publisher: EventPublisher, restart: Restart
) -> None:
    job_id = await domain.submit()
    await publisher.run_once()
    await restart(wiped=True)
    await tell(domain, job_id, 1)

    await publisher.run_once()

    assert await published(bus) == {str(job_id): [2]}
