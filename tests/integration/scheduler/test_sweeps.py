"""The sweep moves what no message has moved."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder, RunControl
from services.contracts.words import Queue
from services.jobs import scheduling
from services.jobs.cancelling import MOST_AT_ONCE
from services.runtime.jetstream import Bus, Message
from services.scheduler import reconcile
from services.scheduler.reconcile import Reconciler
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until


async def one_by_one() -> int:
    return 1


def orders(bus: Bus, queue: Queue) -> AsyncIterator[list[Message]]:
    return bus.pull(subjects.WORK_STREAM, subjects.work(queue), subjects.work_consumer(queue), batch=one_by_one)


async def next_order(bus: Bus, queue: Queue) -> Message:
    stream = orders(bus, queue)
    async with asyncio.timeout(30):
        (message,) = await anext(stream)
        return message


async def test_a_publication_nobody_claimed_gets_another_order(
    domain: Domain, bus: Bus, reconciler: Reconciler
) -> None:
    run, changeset_id = await domain.hand_over()
    await domain.execute("UPDATE changesets SET dispatched_at = now() - interval '1 minute'")

    await reconciler.run_once()

    order = PublishOrder.FromString((await next_order(bus, Queue.PUBLISH)).data)
    assert (order.changeset_id, order.run_id, order.dispatch) == (str(changeset_id), str(run.hold.run_id), 2)


async def test_a_run_that_the_version_before_dispatched_is_queued_again(domain: Domain, reconciler: Reconciler) -> None:
    """In a state of which nothing comes any more: its work order went where nobody listens."""
    order = await domain.dispatch_one()
    await domain.execute("DELETE FROM leases")
    await domain.execute(
        "UPDATE runs SET state = 'dispatched', attempt = 0, agent = NULL, lease_token = NULL, run_deadline = NULL, "
        "dispatched_at = now() - interval '1 minute'"
    )

    await reconciler.run_once()

    assert await domain.run_states(order.job_id) == ["queued"]
    (again,) = await domain.admit()
    assert await domain.claim(again) is not None


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
