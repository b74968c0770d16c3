"""Work orders that come twice, late, or over and over: one claim each, whatever NATS says of the message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrder
from services.contracts.words import Queue
from services.jobs.admitting import Dispatched
from services.runtime import jetstream
from services.runtime.jetstream import Bus, Message, Outgoing
from tests.integration.faults.answering_agent import BLOCK
from tests.integration.faults.conftest import StartService
from tests.integration.faults.processes import AGENT, SCHEDULER
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until_async

MANY = 50
RECEIVE_SECONDS = 30
NAKS = 30


def order_message(order: Dispatched, message_id: str) -> Outgoing:
    data = WorkOrder(run_id=str(order.run_id), job_id=str(order.job_id), dispatch=order.dispatch).SerializeToString()
    return Outgoing(subjects.work(order.queue), data, message_id)


async def one_by_one() -> int:
    return 1


async def receive(bus: Bus, queue: Queue) -> Message:
    """The next order, taken and not acknowledged."""
    pulled = bus.pull(subjects.WORK_STREAM, subjects.work(queue), subjects.work_consumer(queue), batch=one_by_one)
    async with asyncio.timeout(RECEIVE_SECONDS):
        (message,) = await anext(pulled)
    return message


async def no_order_is_left(bus: Bus) -> bool:
    position = await bus.stream_position(subjects.WORK_STREAM)
    return position.first_sequence > position.last_sequence


@pytest.fixture
async def other_bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(nats_url, name="other")
    await bus.start(wait=timedelta(seconds=RECEIVE_SECONDS))
    yield bus
    await bus.close()


async def test_an_order_that_comes_fifty_times_to_two_agents_is_one_claim(
    start: StartService, domain: Domain, bus: Bus
) -> None:
    for _ in range(2):
        await start(AGENT)
    order = await domain.dispatch_one(kind="task", prompt=f"{BLOCK}1")

    await bus.publish_all([order_message(order, f"again {number}") for number in range(MANY)])
    await until_async(lambda: no_order_is_left(bus))

    async def is_done() -> bool:
        return await domain.run_states(order.job_id) == ["completed"]

    await until_async(is_done)
    kinds = await domain.kinds(order.job_id)
    assert kinds.count("run.started") == kinds.count("run.finished") == 1
    before = await domain.fingerprint()
    await bus.publish_all([order_message(order, f"later {number}") for number in range(MANY)])
    await until_async(lambda: no_order_is_left(bus))
    assert await domain.fingerprint() == before


async def test_an_older_order_claims_nothing(domain: Domain) -> None:
    old = await domain.dispatch_one()
    await domain.scheduling.recall(overdue=timedelta())
    (new,) = await domain.admit()
    before = await domain.fingerprint()

    assert await domain.claim(old) is None
    assert await domain.fingerprint() == before
    assert await domain.claim(new) is not None


async def test_a_run_stays_with_its_first_claim_when_its_order_is_delivered_again(
    domain: Domain, bus: Bus, other_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acknowledgement comes too late: another agent has the same order, and finds it carried out."""
    monkeypatch.setattr(jetstream, "ACK_WAIT", timedelta(seconds=1))
    order = await domain.dispatch_one()
    await bus.publish(order_message(order, "once"))
    first = await receive(bus, order.queue)
    run = await domain.claimed(order)

    second = await receive(other_bus, order.queue)
    assert second.data == first.data
    assert second.metadata.num_delivered == 2
    assert await domain.claim(order, agent="agent-2") is None
    await first.ack()
    await second.nak()

    await domain.finish(run)
    assert await domain.run_states(order.job_id) == ["completed"]


async def test_an_order_that_was_acknowledged_and_never_claimed_is_sent_anew(
    domain: Domain, bus: Bus, other_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late acknowledgement takes the message from the second agent, which then dies: the sweep finds the run."""
    monkeypatch.setattr(jetstream, "ACK_WAIT", timedelta(seconds=1))
    order = await domain.dispatch_one()
    await bus.publish(order_message(order, "once"))
    first = await receive(bus, order.queue)
    await receive(other_bus, order.queue)
    await first.ack_sync()
    assert await no_order_is_left(bus)

    assert await domain.scheduling.recall(overdue=timedelta()) == 1
    (again,) = await domain.admit()
    assert (again.run_id, again.dispatch) == (order.run_id, order.dispatch + 1)
    assert await domain.claim(order, agent="agent-2") is None
    assert await domain.claim(again) is not None


async def test_an_order_that_is_sent_back_over_and_over_still_comes(domain: Domain, bus: Bus) -> None:
    order = await domain.dispatch_one()
    await bus.publish(order_message(order, "once"))
    for _ in range(NAKS):
        await (await receive(bus, order.queue)).nak()

    message = await receive(bus, order.queue)
    assert message.metadata.num_delivered == NAKS + 1
    assert await domain.claim(order) is not None


async def test_no_durable_consumer_gives_up_on_a_message(start: StartService, bus: Bus) -> None:
    await start(SCHEDULER)
    await start(AGENT)
    wanted = {"scheduler", *(subjects.work_consumer(queue) for queue in (Queue.CODE, Queue.TASK, Queue.REVIEW))}
    assert bus._jetstream is not None
    context = bus._jetstream
    bounds: dict[str | None, int | None] = {}

    async def all_are_there() -> bool:
        for stream in (subjects.COMMANDS_STREAM, subjects.WORK_STREAM):
            bounds.update({each.name: each.config.max_deliver for each in await context.consumers_info(stream)})
        return wanted <= bounds.keys()

    await until_async(all_are_there)
    assert set(bounds.values()) == {-1}
