"""Half-open and slow links to Postgres and NATS: every call ends, nothing waits for ever, and service comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import httpx
import pytest

from services.contracts import subjects
from services.contracts.words import Queue
from services.runtime import jetstream
from services.runtime.jetstream import Bus, BusUnavailableError, Message, Outgoing
from services.runtime.postgres import Connection, Database, StoreUnavailableError
from tests.integration.faults.conftest import StartGateway, StartService
from tests.integration.faults.ledger import (
    assert_every_event_was_published_once,
    assert_every_job_was_done_once,
    until_drained,
)
from tests.integration.faults.processes import AGENT, SCHEDULER, Service, Submitter
from tests.integration.faults.proxy import Link
from tests.integration.waiting import until, until_async

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]
CALL_SECONDS = 30
"""More than any call may take: its own deadlines are 2 to 10 s, and some are tried again."""
WORK = subjects.work(Queue.PUBLISH)
ORDERS = subjects.orders("agent-1")
TASK = {"prompt": "say hello", "kind": "task"}


async def one(connection: Connection) -> object:
    return await connection.fetchval("SELECT 1")


async def lend(database: Database) -> object:
    async with database.connection() as connection:
        return await connection.fetchval("SELECT 1")


STORE_CALLS: tuple[Callable[[Database], Awaitable[object]], ...] = (
    lambda database: database.in_transaction(one),
    lambda database: database.in_statement(one),
    lend,
)


async def test_calls_to_a_half_open_postgres_end_and_the_next_go_through(
    linked_database: Database, postgres_link: Link
) -> None:
    postgres_link.stall()
    async with asyncio.timeout(CALL_SECONDS):
        answers = await asyncio.gather(*(call(linked_database) for call in STORE_CALLS), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailableError] * len(STORE_CALLS)
    assert await asyncio.wait_for(linked_database.check(), CALL_SECONDS) != "ok"
    postgres_link.flow()

    for call in STORE_CALLS:

        async def goes_through(call: Callable[[Database], Awaitable[object]] = call) -> bool:
            with suppress(StoreUnavailableError):
                return await call(linked_database) == 1
            return False

        await until_async(goes_through)


async def test_a_pool_ends_in_time_over_a_half_open_link(postgres_link: Link) -> None:
    database = Database(postgres_link.url, size=2, name="linked")
    await database.in_transaction(one)
    postgres_link.stall()
    await asyncio.wait_for(database.close(), CALL_SECONDS)


async def read_all(bus: Bus) -> None:
    async for _ in bus.read(subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=0, until=1):
        pass


BUS_CALLS: tuple[Callable[[Bus], Awaitable[object]], ...] = (
    lambda bus: bus.publish(Outgoing(WORK, b"x", "1")),
    lambda bus: bus.publish_all([Outgoing(WORK, b"x", str(n)) for n in range(9)]),
    lambda bus: bus.publish_in_order([Outgoing(WORK, b"x", str(n)) for n in range(9)]),
    lambda bus: bus.stream_position(subjects.EVENTS_STREAM),
    lambda bus: bus.tell(ORDERS, b"x"),
    read_all,
)


async def answer(message: Message) -> None:
    await message.respond(b"")


async def test_calls_to_a_half_open_nats_end_and_the_next_go_through(
    bus: Bus, linked_bus: Bus, nats_link: Link
) -> None:
    await bus.listen(ORDERS, answer)
    nats_link.stall()
    async with asyncio.timeout(CALL_SECONDS):
        answers = await asyncio.gather(*(call(linked_bus) for call in BUS_CALLS), return_exceptions=True)
        await linked_bus.ring(subjects.EVENTS_DOORBELL)
    assert [type(answer) for answer in answers] == [BusUnavailableError] * len(BUS_CALLS)
    nats_link.flow()

    for call in BUS_CALLS:

        async def goes_through(call: Callable[[Bus], Awaitable[object]] = call) -> bool:
            with suppress(BusUnavailableError):
                await call(linked_bus)
                return True
            return False

        await until_async(goes_through)


async def test_a_bus_is_closed_for_good_over_a_half_open_link(nats_link: Link) -> None:
    """Else it goes on connecting behind whoever closed it."""
    bus = Bus(nats_link.url, name="closing")
    await bus.start(wait=timedelta(seconds=CALL_SECONDS))
    await until(lambda: bus.is_connected)
    nats_link.stall()
    try:
        await asyncio.wait_for(bus.close(), CALL_SECONDS)
        assert bus._client.is_closed
    finally:
        await bus._client.close()


@dataclass
class Pulling:
    pulled: list[bytes]
    task: asyncio.Task[None]


@pytest.fixture
async def pulling(linked_bus: Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pulling]:
    """A puller of publish orders over the link. What was sent into a broken line comes again after AckWait, made
    short.
    """
    monkeypatch.setattr(jetstream, "ACK_WAIT", timedelta(seconds=1))
    pulled: list[bytes] = []

    async def ten() -> int:
        return 10

    async def pull() -> None:
        consumer = subjects.work_consumer(Queue.PUBLISH)
        async for messages in linked_bus.pull(subjects.WORK_STREAM, WORK, consumer, batch=ten):
            for message in messages:
                pulled.append(message.data)
                await message.ack()

    task = asyncio.create_task(pull())
    yield Pulling(pulled, task)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_consumer_behind_a_half_open_link_hears_again(
    bus: Bus, linked_bus: Bus, nats_link: Link, pulling: Pulling
) -> None:
    await bus.publish(Outgoing(WORK, b"before", "1"))
    await until(lambda: b"before" in pulling.pulled)
    nats_link.stall()
    await until(lambda: not linked_bus.is_connected)
    await bus.publish(Outgoing(WORK, b"meanwhile", "2"))
    nats_link.flow()

    await until(lambda: b"meanwhile" in pulling.pulled)


async def test_a_line_that_is_cut_over_and_over_loses_no_order(bus: Bus, nats_link: Link, pulling: Pulling) -> None:
    for number in range(10):
        order = str(number).encode()
        await bus.publish(Outgoing(WORK, order, str(number)))
        await until(partial(_has, pulling.pulled, order))
        nats_link.cut()

    assert not pulling.task.done()
    assert set(pulling.pulled) == {str(number).encode() for number in range(10)}


def _has(pulled: list[bytes], order: bytes) -> bool:
    return order in pulled


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_what_was_deleted_by_hand_is_made_again(bus: Bus, pulling: Pulling, what: str) -> None:
    await bus.publish(Outgoing(WORK, b"before", "1"))
    await until(lambda: b"before" in pulling.pulled)
    assert bus._jetstream is not None
    if what == "consumer":
        await bus._jetstream.delete_consumer(subjects.WORK_STREAM, subjects.work_consumer(Queue.PUBLISH))
    else:
        await bus._jetstream.delete_stream(subjects.WORK_STREAM)

    async def arrives() -> bool:
        with suppress(BusUnavailableError):
            await bus.publish(Outgoing(WORK, b"after", "2"))
        return b"after" in pulling.pulled

    await until_async(arrives)


async def test_a_gateway_with_a_half_open_postgres_answers_and_recovers(
    start_gateway: StartGateway, postgres_link: Link
) -> None:
    gateway = await start_gateway(DATABASE_URL=postgres_link.url)
    await gateway.until_healthy()
    postgres_link.stall()

    async def ask(method: str) -> httpx.Response:
        body = TASK if method == "POST" else None
        return await gateway.client.request(method, "/v1/jobs", json=body, timeout=CALL_SECONDS)

    answers = await asyncio.gather(*(ask(method) for method in ("POST", "GET") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {503}
    postgres_link.flow()
    await gateway.until_healthy()
    assert (await ask("POST")).status_code == 201


async def has_said(service: Service, words: str) -> bool:
    return any(words in line for line in await service.lines())


async def test_a_scheduler_and_an_agent_behind_half_open_links_go_on(
    start: StartService, submitter: Submitter, database: Database, bus: Bus, postgres_link: Link, nats_link: Link
) -> None:
    linked = {"DATABASE_URL": postgres_link.url, "NATS_URL": nats_link.url}
    scheduler, _ = await start(SCHEDULER, **linked), await start(AGENT, **linked)
    await submitter.submit()
    await until_drained(database)
    postgres_link.stall()
    nats_link.stall()
    for _ in range(20):
        await submitter.submit()
    for complaint in ("failing, will be tried again", "NATS connection lost"):
        await until_async(partial(has_said, scheduler, complaint))
    postgres_link.flow()
    nats_link.flow()

    await until_drained(database)
    await assert_every_job_was_done_once(database, submitter.accepted)
    await assert_every_event_was_published_once(database, bus)
