"""Orders that come twice, late, or to nobody: each run is one agent's, and none is forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from quarterdeck.stack.ports import free_ports
from services.contracts import subjects
from services.contracts.words import Queue
from services.jobs.scheduling import Dispatched
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.scheduler.admission import encoded_orders
from tests.integration.faults.answering_agent import BEGUN, PAUSE
from tests.integration.faults.conftest import StartService
from tests.integration.faults.ledger import assert_every_job_was_done_once, rows_of, until_drained
from tests.integration.faults.processes import AGENT, SCHEDULER, Service, Submitter
from tests.integration.jobs.domain import Domain
from tests.integration.scheduler.hearing import Agent, let_live
from tests.integration.waiting import until, until_async

pytestmark = pytest.mark.usefixtures("postgres_is_up_long")
VCS = "services.vcs"
MANY = 50
DEAF = "agent-1"


async def tell(bus: Bus, order: Dispatched, *, agent: str | None = None, times: int = 1) -> None:
    """Tell the agent of the order, or another ``agent``; so many times at once."""
    data = encoded_orders([order])
    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            group.create_task(bus.tell(subjects.orders(agent or order.agent), data))


async def started(start: StartService, domain: Domain) -> Service:
    """An agent that has said that it has places."""
    agent = await start(AGENT)

    async def has_places() -> bool:
        return bool(await domain.rows("SELECT FROM nodes WHERE capacity > 0"))

    await until_async(has_places)
    return agent


async def give(domain: Domain, **fields: Any) -> Dispatched:
    """A run that was given to an agent, which nobody has told."""
    job_id = await domain.submit(kind="task", **fields)
    (order,) = (await domain.admitting.admit()).orders
    assert order.job_id == job_id
    return order


async def until_completed(domain: Domain, job_id: UUID) -> None:
    async def is_completed() -> bool:
        return await domain.run_states(job_id) == ["completed"]

    await until_async(is_completed)


async def begun(agent: Service, order: Dispatched) -> int:
    return (await agent.lines()).count(f"{BEGUN} {order.run_id}")


async def test_an_order_that_comes_fifty_times_is_begun_with_once(
    start: StartService, domain: Domain, bus: Bus
) -> None:
    """At once, while its run is under way, and when that has ended."""
    agent = await started(start, domain)
    order = await give(domain, prompt=f"{PAUSE}1")

    await tell(bus, order, times=MANY)

    async def is_under_way() -> bool:
        return await begun(agent, order) > 0

    await until_async(is_under_way)
    await tell(bus, order, times=MANY)
    await until_completed(domain, order.job_id)
    before = await domain.row("runs", order.run_id), await domain.kinds(order.job_id)
    await tell(bus, order, times=MANY)

    behind = await give(domain)
    await tell(bus, behind)
    await until_completed(domain, behind.job_id)
    assert await begun(agent, order) == 1
    assert (await domain.row("runs", order.run_id), await domain.kinds(order.job_id)) == before
    assert before[1].count("run.started") == before[1].count("run.finished") == 1


async def test_an_order_whose_run_was_given_to_another_since_is_not_begun_with(
    start: StartService, domain: Domain, bus: Bus
) -> None:
    """It comes late: its lease ran out on the way."""
    agent = await started(start, domain)
    late = replace(await give(domain), beat=0)  # of a beat that is forgotten by then
    await domain.expire(late.run_id)
    assert await domain.lose() == 1
    (new,) = await domain.admit()  # to another
    run = await domain.claimed(new)
    before = await domain.fingerprint()

    await tell(bus, late, times=MANY)

    async def has_places() -> bool:
        return bool(await domain.rows("SELECT FROM nodes WHERE capacity > 0 AND name = $1", late.agent))

    await until_async(has_places)
    await domain.execute("DELETE FROM nodes WHERE name <> $1", late.agent)
    assert await domain.fingerprint() == before
    behind = await give(domain)
    await tell(bus, behind)
    await until_completed(domain, behind.job_id)
    assert await begun(agent, late) == 0
    await domain.finish(run)
    assert (await domain.row("runs", late.run_id))["attempt"] == 2


async def test_what_an_agent_does_not_hear_another_gets(
    start: StartService, submitter: Submitter, database: Database, domain: Domain, bus: Bus
) -> None:
    """Of two that live, one is deaf, and has the larger share of its places free, so that all is given to it first."""
    await let_live(domain, DEAF, 1_000)
    await start(SCHEDULER)
    await start(AGENT)
    for _ in range(20):
        await submitter.submit()

    await until_drained(database)

    await assert_every_job_was_done_once(database, submitter.accepted)
    runs = await rows_of(database, "SELECT attempts_spent, times_lost FROM runs")
    assert {(row["attempts_spent"], row["times_lost"]) for row in runs} == {(0, 0)}
    unheard = await rows_of(
        database, "SELECT FROM events WHERE kind = 'run.requeued' AND data ->> 'reason' = 'unclaimed'"
    )
    assert unheard, "the deaf one was given something"
    assert not await rows_of(database, f"SELECT FROM nodes WHERE name = '{DEAF}' AND capacity > 0"), (
        "it is known to be deaf"
    )


async def test_a_scheduler_that_stops_notes_who_has_not_answered(start: StartService, domain: Domain, bus: Bus) -> None:
    agent = Agent(DEAF, domain, answers=False)
    await agent.listen(bus, 1)
    scheduler = await start(SCHEDULER)
    await domain.submit()
    await until(lambda: bool(agent.ordered))

    await scheduler.stop()

    assert scheduler.process.returncode == 0
    (lease,) = await domain.rows("SELECT taken, expires_at < clock_timestamp() AS is_over FROM leases")
    assert (lease["taken"], lease["is_over"]) == (False, False), "it may have begun"
    assert await domain.rows("SELECT FROM nodes WHERE capacity > 0") == []
    assert "never retrieved" not in "\n".join(await scheduler.lines())


async def test_no_durable_consumer_gives_up_on_a_message(start: StartService, bus: Bus, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    root = tmp_path / "vcs"
    root.mkdir()
    await start(SCHEDULER)
    await start(
        VCS, QUARTERDECK_VCS_LISTEN=f"127.0.0.1:{port}", QUARTERDECK_VCS_TOKEN="a token", QUARTERDECK_VCS_ROOT=str(root)
    )
    wanted = {"scheduler", subjects.work_consumer(Queue.PUBLISH)}
    assert bus._jetstream is not None
    context = bus._jetstream
    bounds: dict[str | None, int | None] = {}

    async def all_are_there() -> bool:
        for stream in (subjects.COMMANDS_STREAM, subjects.WORK_STREAM):
            bounds.update({each.name: each.config.max_deliver for each in await context.consumers_info(stream)})
        return wanted <= bounds.keys()

    await until_async(all_are_there)
    assert bounds == dict.fromkeys(wanted, -1)
