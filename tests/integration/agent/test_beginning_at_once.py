"""A run of which its order says everything is begun with at once, for as long as the lease must still last."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from services.agent import worker
from services.agent.attempt import Attempt
from services.contracts.words import RunState
from services.jobs.heartbeat import Heartbeat
from services.jobs.orders import Claim, Order
from services.jobs.running import Running
from services.jobs.scheduling import MAX_TIMES_LOST, Dispatched
from services.runtime.postgres import StoreUnavailableError
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import call, hanging, said, whole
from tests.integration.waiting import until

END = call(2, "task_complete", summary="Nothing to do.", status="done")
DONE = whole(END)
MANY = 20


class CountedClaims(Running):
    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self.claimed: list[Order] = []

    async def claim(self, orders: Sequence[Order]) -> list[Claim]:
        self.claimed += orders
        return await super().claim(orders)


@pytest.fixture
def running(fleet: Fleet) -> CountedClaims:
    return CountedClaims(fleet)


async def ordered(fleet: Fleet) -> Dispatched:
    await fleet.submit()
    (order,) = await fleet.admit()
    assert order.work is not None
    return order


async def test_nothing_is_claimed_and_a_renewal_takes_the_lease_up(
    fleet: Fleet, start_agent: StartAgent, running: CountedClaims
):
    agent = await start_agent(running=running)
    fleet.model.answer(hanging(said("Almost there."), END))
    order = await ordered(fleet)
    await fleet.send(order)
    await fleet.model.until(fleet.model.waits)

    async def is_taken() -> bool:
        (lease,) = await fleet.domain.rows("SELECT taken, holder FROM leases")
        return (lease["taken"], lease["holder"]) == (True, agent.name)

    await fleet.until(is_taken)
    fleet.model.go_on.set()
    run = await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert (run["attempt"], run["summary"], running.claimed) == (1, "Nothing to do.", [])


async def test_an_order_that_comes_often_begins_one_attempt(
    fleet: Fleet, start_agent: StartAgent, running: CountedClaims
):
    """While it is under way, and when it has ended."""
    await start_agent(running=running)
    fleet.model.answer(hanging(said("Almost there."), END))
    order = await ordered(fleet)
    await fleet.send(*[order] * MANY)
    await fleet.model.until(fleet.model.waits)
    await fleet.send(*[order] * MANY)
    fleet.model.go_on.set()
    await fleet.until_run(order.run_id, RunState.COMPLETED)
    await fleet.send(*[order] * MANY)
    fleet.model.answer(DONE)
    await fleet.until_run(await fleet.dispatch(), RunState.COMPLETED)
    assert len(fleet.model.requests) == 2
    assert running.claimed == []


async def test_one_that_is_heard_late_is_claimed(
    fleet: Fleet, start_agent: StartAgent, running: CountedClaims, monkeypatch: pytest.MonkeyPatch
):
    """It may have been given to another since."""
    monkeypatch.setattr(worker, "FRESH_FOR", timedelta())
    await start_agent(running=running)
    fleet.model.answer(DONE)
    order = await ordered(fleet)
    await fleet.send(order)
    await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert [each.token for each in running.claimed] == [order.token]


@pytest.mark.parametrize("beat", [0, 10**9])
async def test_one_that_was_given_after_no_known_beat_is_claimed(
    fleet: Fleet, start_agent: StartAgent, running: CountedClaims, beat: int
):
    await start_agent(running=running)
    fleet.model.answer(DONE)
    order = await ordered(fleet)
    await fleet.send(replace(order, beat=beat))
    await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert [each.token for each in running.claimed] == [order.token]


async def test_of_one_message_some_are_begun_with_and_some_claimed(
    fleet: Fleet, start_agent: StartAgent, running: CountedClaims
):
    await start_agent(running=running, capacity=2)
    fleet.model.ever_after = DONE
    await fleet.submit(kind="task", repositories=[])
    await fleet.submit()
    silent, saying = await fleet.admit()
    await fleet.send(replace(silent, work=None), saying)
    for order in (silent, saying):
        await fleet.until_run(order.run_id, RunState.COMPLETED, RunState.WAITING)
    assert [each.token for each in running.claimed] == [silent.token]


async def test_one_that_is_to_be_cancelled_stops_when_that_is_heard(
    fleet: Fleet, start_agent: StartAgent, running: CountedClaims
):
    """The word was sent before the agent had heard of the run: the renewal says it again."""
    await start_agent(running=running)
    fleet.model.answer(hanging(said("Almost there."), END))
    order = await ordered(fleet)
    await fleet.cancel(order.run_id, tell=True)
    await fleet.send(order)
    run = await fleet.until_run(order.run_id, RunState.CANCELLED)
    assert (run["attempt"], run["lease_token"], running.claimed) == (1, None, [])
    assert await fleet.domain.rows("SELECT FROM leases") == []


class Failing(CountedClaims):
    """Postgres is away when the run's base is to be stored."""

    async def prepared(self, *_: object, **__: object) -> None:
        raise StoreUnavailableError("away")


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("cause", ["a bug at its beginning", "a bug", "Postgres"])
async def test_one_that_ends_without_a_word_counts_as_lost(
    fleet: Fleet, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch, cause: str
):
    """Before any renewal: else a run that always ends so would begin again for ever."""

    async def fail(_: Attempt) -> None:
        raise ZeroDivisionError("a bug")

    def fail_at_once(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    if cause == "a bug":
        monkeypatch.setattr(Attempt, "work", fail)
    elif cause == "a bug at its beginning":
        monkeypatch.setattr(Attempt, "__init__", fail_at_once)
    running = Failing(fleet) if cause == "Postgres" else CountedClaims(fleet)
    await start_agent(running=running)
    order = await ordered(fleet)
    for _ in range(MAX_TIMES_LOST):
        before = len(running.claimed)
        await fleet.send(order)
        await until(lambda before=before: len(running.claimed) > before)  # type: ignore[misc]

        async def is_taken() -> bool:
            (lease,) = await fleet.domain.rows("SELECT taken FROM leases")
            return bool(lease["taken"])

        await fleet.until(is_taken)
        await fleet.lose(order.run_id)
        if (await fleet.run(order.run_id))["state"] == "failed":
            break
        (order,) = await fleet.admit()
    run = await fleet.run(order.run_id)
    assert (run["state"], run["exit_reason"], run["times_lost"]) == ("failed", "lost", MAX_TIMES_LOST)


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_what_an_agent_that_stops_has_not_heard_of_goes_back_at_once_as_it_was(
    fleet: Fleet, start_agent: StartAgent
):
    agent = await start_agent()
    order = await ordered(fleet)
    await agent.stop()
    assert await fleet.domain.lose() == 1
    run = await fleet.run(order.run_id)
    assert (run["state"], run["times_lost"]) == ("queued", 0)


async def test_nothing_begins_so_late_that_its_lease_may_be_over(
    fleet: Fleet, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
):
    """As of a process that was stopped between hearing the order and beginning."""
    monkeypatch.setattr(worker, "GIVE_UP_AFTER", timedelta(seconds=-1))
    begun: list[Attempt] = []
    monkeypatch.setattr(Attempt, "__init__", lambda *_: begun.append(_[0]))
    await start_agent()
    with capture_logs() as logs:
        await fleet.send(await ordered(fleet))
        await until(lambda: any("too late" in line["event"] for line in logs))
    assert begun == []


async def test_its_lease_counts_from_the_beat_that_it_was_given_after(
    fleet: Fleet, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
):
    """Not from when it was heard: without a renewal its work must end before the lease runs out."""
    held: dict[UUID, list[float]] = defaultdict(list)
    sent: dict[int, float] = {}

    class NotingHeartbeat(Heartbeat):
        def hold(self, identifier: UUID, token: UUID, *, claimed_at: float, **told: Any) -> None:
            held[identifier].append(claimed_at)
            super().hold(identifier, token, claimed_at=claimed_at, **told)

        def sent_at(self, beat: int) -> float | None:
            found = super().sent_at(beat)
            if found is not None:
                sent[beat] = found
            return found

    await start_agent(heartbeat=NotingHeartbeat)
    fleet.model.answer(DONE)
    order = await ordered(fleet)
    await fleet.send(order)
    await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert set(held[order.run_id]) == {sent[order.beat]}


async def test_what_is_on_its_way_when_all_is_handed_back_is_handed_back(fleet: Fleet, start_agent: StartAgent):
    agent = await start_agent()
    orders = []
    for _ in range(3):
        fleet.model.answer(hanging(said("Almost there."), END))
        orders.append(await ordered(fleet))
    async with asyncio.TaskGroup() as group:
        for order in orders:
            group.create_task(fleet.send(order))
        group.create_task(agent.drain(0.1))
    for order in orders:
        run = await fleet.until_run(order.run_id, RunState.QUEUED)
        assert (run["attempts_spent"], run["times_lost"]) == (0, 0)
    assert await fleet.domain.rows("SELECT FROM leases") == []
