"""Work orders: taken while there is room, acknowledged once claimed, and thrown away where they are stale or none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from nats.errors import ConnectionClosedError

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrder
from services.contracts.words import Queue, RunState
from services.jobs.admitting import Dispatched
from services.jobs.running import Claim, Order, Running
from services.runtime.jetstream import Bus, Message, Outgoing
from services.runtime.postgres import StoreUnavailableError
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import call, hanging, said, whole

EDIT = whole(call(1, "write_file", path="g.txt", content="b"))
DONE = whole(call(2, "task_complete", summary="Wrote b.", status="done"))
ANSWER = whole(call(1, "task_complete", summary="Answered.", status="done"))


async def send(fleet: Fleet, order: Dispatched, message_id: str) -> None:
    """Send an order under another id than its own, which NATS would not take twice."""
    data = WorkOrder(run_id=str(order.run_id), job_id=str(order.job_id), dispatch=order.dispatch).SerializeToString()
    await fleet.bus.publish(Outgoing(subjects.work(order.queue), data, message_id))


async def test_stale_orders_are_thrown_away(fleet: Fleet, start_agent: StartAgent):
    """One of a run under way, of an earlier dispatch, of a run that nobody knows, of one that has ended."""
    await start_agent(capacity=2)
    fleet.model.answer(DONE)
    (ended,) = await fleet.order(await fleet.submit())
    await fleet.until_run(ended.run_id, RunState.COMPLETED)
    fleet.model.answer(hanging(said("Almost there."), call(2, "task_complete", summary="Nothing.", status="done")))
    (order,) = await fleet.order(await fleet.submit())
    await fleet.model.until(fleet.model.waits)
    stale = [order, replace(order, dispatch=0), replace(order, run_id=UUID(int=1), job_id=UUID(int=2)), ended]
    for number, each in enumerate(stale):
        await send(fleet, each, f"stale {number}")
    await fleet.until_no_orders()
    fleet.model.go_on.set()
    runs = [await fleet.until_run(each.run_id, RunState.COMPLETED) for each in (ended, order)]
    assert [run["attempt"] for run in runs] == [1, 1]
    assert len(fleet.model.requests) == 2


async def test_the_order_of_a_run_to_be_cancelled_is_thrown_away(fleet: Fleet, start_agent: StartAgent):
    (order,) = await fleet.order(await fleet.submit())
    await fleet.cancel(order.run_id, tell=True)
    await start_agent()
    await fleet.until_no_orders()
    run = await fleet.run(order.run_id)
    assert (run["state"], run["attempt"]) == ("dispatched", 0), "the sweep cancels it"
    assert fleet.model.requests == []


@pytest.mark.parametrize("data", [b"\xff\xff nonsense", b"", b"\n\x03abc"])
async def test_what_is_no_work_order_is_thrown_away(fleet: Fleet, start_agent: StartAgent, data: bytes):
    await start_agent(capacity=1)
    await fleet.bus.publish(Outgoing(subjects.work(Queue.CODE), data, "odd"))
    fleet.model.answer(DONE)
    await fleet.until_run(await fleet.dispatch(), RunState.COMPLETED)
    await fleet.until_no_orders()


class AwayOnce(Running):
    """Postgres is away at the first claim."""

    tries = 0

    async def claim(self, orders: Sequence[Order], *, agent: str) -> list[Claim]:
        self.tries += 1
        if self.tries == 1:
            raise StoreUnavailableError("away")
        return await super().claim(orders, agent=agent)


async def test_an_order_that_could_not_be_claimed_comes_again(
    fleet: Fleet, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.runtime.jetstream.ACK_WAIT", timedelta(seconds=0.5))
    running = AwayOnce(fleet.domain.units)
    await start_agent(running=running, capacity=1)
    fleet.model.answer(DONE)
    run = await fleet.until_run(await fleet.dispatch(), RunState.COMPLETED)
    assert (run["attempt"], run["times_lost"], running.tries) == (1, 0, 2)


class DeafBus(Bus):
    """Hears every order of another bus, whose server hears nothing back."""

    def __init__(self, source: Bus) -> None:
        super().__init__("nats://nowhere", name="deaf")
        self._source = source

    async def pull(
        self, stream: str, subject: str, durable: str, *, batch: Callable[[], Awaitable[int]]
    ) -> AsyncIterator[Any]:
        async for messages in self._source.pull(stream, subject, durable, batch=batch):
            yield messages

    async def acknowledge(self, messages: Sequence[Any]) -> None:
        raise ConnectionClosedError

    async def listen(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> None:
        await self._source.listen(subject, callback)


async def test_an_order_that_cannot_be_acknowledged_is_carried_out(fleet: Fleet, start_agent: StartAgent):
    """It is claimed; that it comes again is found to be stale."""
    await start_agent(bus=DeafBus(fleet.bus))
    fleet.model.answer(EDIT, DONE)
    run = await fleet.until_run(await fleet.dispatch(), RunState.PUBLISHING, RunState.FAILED)
    assert (run["state"], run["attempt"]) == ("publishing", 1)


class HeardMessage:
    """A work order that is written down where it is given back."""

    def __init__(self, message: Message, answers: list[tuple[str, str]]) -> None:
        self.subject = message.subject
        self.data = message.data
        self.reply = message.reply
        self._message = message
        self._answers = answers

    async def nak(self, delay: float) -> None:
        self._answers.append((self.subject, "nak"))
        await self._message.nak(delay=delay)


class EagerBus(DeafBus):
    """Has asked for an order of each queue before the places were taken."""

    def __init__(self, source: Bus) -> None:
        super().__init__(source)
        self.answers: list[tuple[str, str]] = []

    async def pull(
        self, stream: str, subject: str, durable: str, *, batch: Callable[[], Awaitable[int]]
    ) -> AsyncIterator[Any]:
        async for messages in self._source.pull(stream, subject, durable, batch=_one):
            yield [HeardMessage(message, self.answers) for message in messages]

    async def acknowledge(self, messages: Sequence[Any]) -> None:
        self.answers += [(message.subject, "ack") for message in messages]
        await self._source.acknowledge(messages)


async def _one() -> int:
    return 1


async def test_an_order_without_a_place_is_given_back_for_another_agent(fleet: Fleet, start_agent: StartAgent):
    bus = EagerBus(fleet.bus)
    full = await start_agent(bus=bus, capacity=1)
    fleet.model.answer(hanging(said("Almost there."), call(2, "task_complete", summary="Nothing.", status="done")))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    fleet.model.answer(ANSWER)
    task_id = await fleet.dispatch(kind="task", repositories=[])
    given_back = (subjects.work(Queue.TASK), "nak")

    async def is_given_back() -> bool:
        return given_back in bus.answers

    await fleet.until(is_given_back)
    other = await start_agent(capacity=1)
    run = await fleet.until_run(task_id, RunState.COMPLETED)
    assert (run["agent"], run["attempt"]) == (other.name, 1)
    assert set(bus.answers) == {(subjects.work(Queue.CODE), "ack"), given_back}
    await full.take_no_more()
    fleet.model.go_on.set()
    assert (await fleet.until_run(run_id, RunState.COMPLETED))["agent"] == full.name


async def test_a_full_agent_takes_the_next_order_once_it_has_room(fleet: Fleet, start_agent: StartAgent):
    await start_agent(capacity=1)
    fleet.model.ever_after = ANSWER
    run_ids = [await fleet.dispatch(kind="task", repositories=[]) for _ in range(5)]
    for run_id in run_ids:
        assert (await fleet.until_run(run_id, RunState.COMPLETED))["attempt"] == 1
    await fleet.until_no_orders()
