"""Admission sends work orders for what it dispatched, and the sweep sends again what no message moved."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder, RunControl, WorkOrder
from services.contracts.words import Queue
from services.jobs import scheduling
from services.jobs.admitting import Admitting
from services.jobs.cancelling import MOST_AT_ONCE
from services.runtime.jetstream import Bus, Message
from services.scheduler import reconcile
from services.scheduler.admission import Admission
from services.scheduler.reconcile import Reconciler, UseCases
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until


@pytest.fixture
def admission(domain: Domain, bus: Bus) -> Admission:
    return Admission(Admitting(domain.units, most_runs=3), bus)


@pytest.fixture
def reconciler(domain: Domain, bus: Bus) -> Reconciler:
    cases = UseCases(domain.admitting, domain.scheduling, domain.cancelling, domain.publishing, domain.messaging)
    return Reconciler(cases, bus, on_admissible=lambda: None)


async def one_by_one() -> int:
    return 1


def orders(bus: Bus, queue: Queue) -> AsyncIterator[list[Message]]:
    return bus.pull(subjects.WORK_STREAM, subjects.work(queue), subjects.work_consumer(queue), batch=one_by_one)


async def next_order(bus: Bus, queue: Queue) -> Message:
    stream = orders(bus, queue)
    async with asyncio.timeout(30):
        (message,) = await anext(stream)
        return message


async def waiting_orders(bus: Bus) -> int:
    position = await bus.stream_position(subjects.WORK_STREAM)
    return position.last_sequence - position.first_sequence + 1 if position.last_sequence else 0


async def agent(domain: Domain, capacity: int) -> None:
    await domain.execute("INSERT INTO nodes (name, kind, capacity) VALUES ('agent-1', 'agent', $1)", capacity)


async def test_an_admitted_run_gets_a_work_order(domain: Domain, bus: Bus, admission: Admission) -> None:
    await agent(domain, 1)
    job_id = await domain.submit()
    await admission.run_once()

    message = await next_order(bus, Queue.CODE)

    order = WorkOrder.FromString(message.data)
    (run,) = await domain.rows("SELECT id, state, dispatch FROM runs")
    assert (order.run_id, order.job_id, order.dispatch) == (str(run["id"]), str(job_id), run["dispatch"])
    assert (message.headers or {})["Nats-Msg-Id"] == f"{run['id']}:1"
    assert run["state"] == "dispatched"


@pytest.mark.parametrize(("capacity", "admitted"), [(0, 0), (2, 2), (10, 3)])
async def test_the_agents_capacity_and_the_limit_bound_it(
    domain: Domain, bus: Bus, admission: Admission, capacity: int, admitted: int
) -> None:
    await agent(domain, capacity)
    await domain.submit(*(f"https://a/{n}" for n in range(5)))

    for _ in range(2):
        await admission.run_once()

    assert len(await domain.rows("SELECT FROM runs WHERE state = 'dispatched'")) == admitted
    assert await waiting_orders(bus) == admitted


async def test_a_dead_agents_capacity_does_not_count(domain: Domain, admission: Admission) -> None:
    await agent(domain, 2)
    await domain.execute("UPDATE nodes SET seen_at = now() - interval '9 seconds'")
    await domain.submit()

    await admission.run_once()

    assert await domain.rows("SELECT FROM runs WHERE state = 'dispatched'") == []


async def test_without_nats_runs_stay_queued(
    domain: Domain, bus: Bus, admission: Admission, nats_server: EmbeddedServers
) -> None:
    await agent(domain, 2)
    job_id = await domain.submit()
    await nats_server.kill("nats")
    await until(lambda: not bus.is_connected)

    await admission.run_once()

    assert await domain.run_states(job_id) == ["queued"]


async def test_a_publication_nobody_claimed_gets_another_order(
    domain: Domain, bus: Bus, reconciler: Reconciler
) -> None:
    run, changeset_id = await domain.hand_over()
    await domain.execute("UPDATE changesets SET dispatched_at = now() - interval '1 minute'")

    await reconciler.run_once()

    order = PublishOrder.FromString((await next_order(bus, Queue.PUBLISH)).data)
    assert (order.changeset_id, order.run_id, order.dispatch) == (str(changeset_id), str(run.hold.run_id), 2)


async def test_a_lost_work_order_is_sent_again(
    domain: Domain, bus: Bus, admission: Admission, reconciler: Reconciler
) -> None:
    await agent(domain, 1)
    job_id = await domain.submit()
    await domain.admit()  # and its order is never sent
    await domain.execute("UPDATE runs SET dispatched_at = now() - interval '1 minute'")

    await reconciler.run_once()
    assert await domain.run_states(job_id) == ["queued"]
    await admission.run_once()

    assert WorkOrder.FromString((await next_order(bus, Queue.CODE)).data).dispatch == 2


async def test_an_agent_is_told_of_a_cancel_and_the_idle_are_cancelled(
    domain: Domain, bus: Bus, reconciler: Reconciler
) -> None:
    run = await domain.start()
    idle = await domain.submit()
    heard: list[bytes] = []

    async def hear(message: Message) -> None:
        heard.append(message.data)

    await bus.listen(subjects.control(str(run.hold.run_id)), hear)
    for job_id in (run.hold.job_id, idle):
        await domain.cancelling.request(domain.client, job_id)

    await reconciler.run_once()

    await until(lambda: bool(heard))
    control = RunControl.FromString(heard[0])
    assert (control.run_id, control.kind) == (str(run.hold.run_id), RunControl.KIND_CANCEL)
    assert await domain.run_states(idle) == ["cancelled"]
    assert await domain.run_states(run.hold.job_id) == ["running"]


async def test_one_sweep_cancels_a_long_queue(domain: Domain, reconciler: Reconciler) -> None:
    """Else whoever cancels behind it waits for many sweeps."""
    many = await domain.submit(*(f"https://a/{n}" for n in range(2 * MOST_AT_ONCE)))
    last = await domain.submit()
    for job_id in (many, last):
        await domain.cancelling.request(domain.client, job_id)

    await reconciler.run_once()

    assert await domain.run_states(last) == ["cancelled"]
    assert set(await domain.run_states(many)) == {"cancelled"}


async def test_nothing_expires_until_the_sweep_was_connected_for_a_lease(
    domain: Domain, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "LEASE", timedelta(milliseconds=1))
    run = await domain.start()
    await domain.expire(run.hold.run_id)

    await reconciler.run_once()
    await reconciler.run_once()
    assert await domain.run_states(run.hold.job_id) == ["running"]

    monkeypatch.setattr(reconcile, "LEASE", timedelta())
    await reconciler.run_once()
    assert await domain.run_states(run.hold.job_id) == ["queued"]
