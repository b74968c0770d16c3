"""Orders as agents hear them: each is answered, taken up once, and thrown away where it is stale or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from services.agent import worker
from services.agent.attempt import Attempt
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrder, WorkOrders
from services.contracts.words import RunState
from services.jobs.heartbeat import Heartbeat
from services.jobs.models import ClaimedRun
from services.jobs.orders import Claim, Order
from services.jobs.running import Running
from services.runtime.postgres import StoreUnavailableError
from services.scheduler.admission import encoded_orders
from tests.integration.agent.agents import QuietHeartbeat, StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import call, hanging, said, whole
from tests.integration.waiting import until, until_async

DONE = whole(call(2, "task_complete", summary="Nothing to do.", status="done"))
ANSWER = whole(call(1, "task_complete", summary="Answered.", status="done"))


class NotedClaims(Running):
    """Notes how many runs each claim got."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self.got: list[int] = []

    async def claim(self, orders: Sequence[Order]) -> list[Claim]:
        claims = await super().claim(orders)
        self.got.append(len(claims))
        return claims


async def test_stale_orders_start_nothing(fleet: Fleet, start_agent: StartAgent):
    """One heard twice, one of another admission, one of a run that nobody knows, one of a run that has ended."""
    running = NotedClaims(fleet)
    await start_agent(running=running)
    fleet.model.answer(DONE)
    (ended,) = await fleet.order(await fleet.submit(), must_claim=True)
    await fleet.until_run(ended.run_id, RunState.COMPLETED)
    fleet.model.answer(hanging(said("Almost there."), call(2, "task_complete", summary="Nothing.", status="done")))
    (order,) = await fleet.order(await fleet.submit(), must_claim=True)
    await fleet.model.until(fleet.model.waits)
    for stale in (order, replace(order, token=uuid4()), replace(order, run_id=UUID(int=1)), ended):
        await fleet.send(stale)
    fleet.model.answer(ANSWER)
    behind = await fleet.dispatch_to_claim(kind="task", repositories=[])
    await fleet.until_run(behind, RunState.COMPLETED)  # claims come one after the other
    assert sum(running.got) == 3
    assert fleet.worktrees(order.run_id) == ["1"]
    fleet.model.go_on.set()
    run = await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert (run["attempt"], run["summary"]) == (1, "Nothing.")
    assert len(fleet.model.requests) == 3


async def test_an_order_among_stale_ones_is_taken_up(fleet: Fleet, start_agent: StartAgent):
    running = NotedClaims(fleet)
    await start_agent(running=running)
    fleet.model.answer(DONE)
    await fleet.submit()
    order = replace((await fleet.admit())[0], work=None)
    stale = [replace(order, token=uuid4()), replace(order, run_id=UUID(int=1))]
    await fleet.send(stale[0], order, stale[1], order)
    run = await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert (run["attempt"], running.got) == (1, [1])


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_an_order_that_was_recalled_starts_nothing_however_late_it_comes(fleet: Fleet, start_agent: StartAgent):
    running = NotedClaims(fleet)
    agent = await start_agent(running=running)
    await fleet.submit()
    recalled = replace((await fleet.admit())[0], beat=0)
    await fleet.domain.scheduling.recall_orders([recalled])
    assert await fleet.domain.lose() == 1
    await fleet.send(recalled)
    await until(lambda: running.got == [0])
    run = await fleet.run(recalled.run_id)
    assert (run["state"], run["agent"], run["attempts_spent"], run["times_lost"]) == ("queued", None, 0, 0)

    (again,) = await fleet.admit()
    await fleet.send(recalled)
    await until(lambda: running.got == [0, 0])
    assert fleet.model.requests == []
    fleet.model.answer(DONE)
    await fleet.send(again)
    run = await fleet.until_run(again.run_id, RunState.COMPLETED)
    assert (run["attempt"], run["agent"], running.got) == (2, agent.name, [0, 0, 1])


async def test_an_order_whose_answer_cannot_be_heard_is_carried_out(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    fleet.model.answer(DONE)
    await fleet.submit()
    (order,) = await fleet.admit()
    await fleet.bus.ring(subjects.orders(order.agent), encoded_orders([order]))
    assert (await fleet.until_run(order.run_id, RunState.COMPLETED))["attempt"] == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff nonsense", id="no protobuf"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n\x03abc", id="another message"),
        pytest.param(WorkOrders(orders=[WorkOrder(run_id="x", token=b"t" * 16)]).SerializeToString(), id="no run"),
        pytest.param(
            WorkOrders(orders=[WorkOrder(run_id=str(UUID(int=1)), token=b"t")]).SerializeToString(), id="no token"
        ),
    ],
)
async def test_what_is_no_order_is_answered_and_thrown_away(fleet: Fleet, start_agent: StartAgent, data: bytes):
    running = NotedClaims(fleet)
    agent = await start_agent(running=running)
    await fleet.bus.tell(subjects.orders(agent.name), data)
    fleet.model.answer(DONE)
    await fleet.until_run(await fleet.dispatch_to_claim(), RunState.COMPLETED)
    assert running.got == [1]


async def test_a_run_to_be_cancelled_ends_when_its_order_comes(
    fleet: Fleet, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
):
    """Nothing of it begins."""
    begun: list[Attempt] = []

    async def work(attempt: Attempt) -> None:
        begun.append(attempt)

    monkeypatch.setattr(Attempt, "work", work)
    await start_agent(heartbeat=QuietHeartbeat)
    job_id = await fleet.submit()
    order = replace((await fleet.admit())[0], work=None)
    await fleet.cancel(order.run_id, tell=True)
    assert (await fleet.run(order.run_id))["state"] == "running", "its agent may have begun, and has the last word"
    await fleet.send(order)
    run = await fleet.until_run(order.run_id, RunState.CANCELLED)
    assert (run["attempt"], run["lease_token"], begun) == (1, None, [])
    assert (await fleet.domain.kinds(job_id))[-3:] == ["job.started", "run.finished", "job.finished"]
    assert await fleet.domain.rows("SELECT FROM leases") == []


class AwayOnce(Running):
    """Postgres is away at the first claim."""

    tries = 0

    async def claim(self, orders: Sequence[Order]) -> list[Claim]:
        self.tries += 1
        if self.tries == 1:
            raise StoreUnavailableError("away")
        return await super().claim(orders)


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_run_that_could_not_be_claimed_comes_back_as_it_was(fleet: Fleet, start_agent: StartAgent):
    running = AwayOnce(fleet.domain.units)
    await start_agent(running=running)
    job_id = await fleet.submit(deadlineSeconds=3_600)
    before = await fleet.domain.rows("SELECT queue_deadline FROM runs")
    (order,) = await fleet.order(job_id, must_claim=True)
    await until(lambda: running.tries == 1)
    await fleet.lose(order.run_id)
    run = await fleet.run(order.run_id)
    assert (run["state"], run["attempts_spent"], run["times_lost"]) == ("queued", 0, 0)
    assert (run["time_left"].total_seconds(), run["queue_deadline"]) == (3_600, before[0]["queue_deadline"])
    (told,) = [event for event in await fleet.domain.events(job_id) if event.kind == "run.requeued"]
    assert told.data == {"reason": "unclaimed"}
    assert fleet.model.requests == []

    fleet.model.answer(DONE)
    await fleet.order(job_id)
    run = await fleet.until_run(order.run_id, RunState.COMPLETED)
    assert (run["attempt"], run["times_lost"], running.tries) == (2, 0, 2)


class Unreadable(Running):
    """Cannot make anything of what was left of a run."""

    async def take_up(self, claim: Claim) -> ClaimedRun:
        raise TypeError(f"a bug in reading {claim.hold.run_id}")


def _bug(claim: Claim) -> ClaimedRun | None:
    raise TypeError(f"a bug in reading the order of {claim.hold.run_id}")


@pytest.mark.parametrize(("known_run", "is_held_meanwhile"), [(_bug, False), (lambda _: None, True)])
async def test_a_run_that_cannot_be_begun_with_is_not_held_on_to(
    fleet: Fleet,
    start_agent: StartAgent,
    monkeypatch: pytest.MonkeyPatch,
    known_run: Callable[[Claim], ClaimedRun | None],
    is_held_meanwhile: bool,
):
    held, dropped = list[UUID](), list[UUID]()
    monkeypatch.setattr(worker, "known_run", known_run)
    monkeypatch.setattr(Heartbeat, "hold", lambda _, run_id, *__, **___: held.append(run_id))
    monkeypatch.setattr(Heartbeat, "drop", lambda _, run_id: dropped.append(run_id))
    await start_agent(running=Unreadable(fleet.domain.units))
    run_id = await fleet.dispatch()

    async def has_owned_up() -> bool:
        return (await fleet.domain.rows("SELECT taken FROM leases WHERE id = $1", run_id))[0]["taken"] is True

    await until_async(has_owned_up)
    assert held == dropped == ([run_id] if is_held_meanwhile else [])
    assert fleet.model.requests == []
